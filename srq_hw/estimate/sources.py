"""The integer graph that an estimate is about: a file's own, or a network's, quantized quickly at some width.

Lanes, memories and multipliers follow from shapes and widths. Scales come from one patch of one image: other images
move multipliers and thresholds, not what the design takes.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache, cached_property
from pathlib import Path
from typing import Protocol

from srq_hw.errors import InputError
from srq_hw.evaluate.colour import network_view
from srq_hw.evaluate.demo import demo_calibration_images
from srq_hw.evaluate.resize import downscale
from srq_hw.exchange.direct import to_intgraph
from srq_hw.exchange.lower import image_size, load_qonnx
from srq_hw.exchange.names import QONNX_SUFFIXES
from srq_hw.graph.ir import IntGraph
from srq_hw.networks.loading import FloatNetwork, load_network
from srq_hw.normalform.normal import NormalNet
from srq_hw.normalform.trace import normalize
from srq_hw.pipeline.options import DEFAULT_RECIPE
from srq_hw.quantize.freeze import freeze
from srq_hw.quantize.ptq import quantize
from srq_hw.quantize.recipe import Patches, load_recipe
from srq_hw.show import read_graph
from srq_hw.target import Target

#: what calibrates: a square of so many low-resolution pixels
PATCHES = Patches(count=1, size=32, seed=0)


class Source(Protocol):
    """Where graphs come from."""

    @property
    def name(self) -> str:
        """For the table's title."""

    @property
    def free(self) -> bool:
        """True where the widths may be chosen: a network, not a finished graph."""

    @property
    def size(self) -> tuple[int, int] | None:
        """Image size (H, W) that a file is made for; None where it is open."""

    def graph(self, target: Target, bits: int | None) -> IntGraph:
        """For a target's integer rules, bits of weights and activations alike (None: the target's default)."""


class FixedGraph:
    """A QONNX file, a graph.json or a build folder: its widths are what they are."""

    free = False

    def __init__(self, path: str) -> None:
        self.name = path
        self._read: Callable[[str], IntGraph] = cache(lambda rules: read_graph(path, self._targets[rules]))
        self._targets: dict[str, Target] = {}

    @cached_property
    def size(self) -> tuple[int, int] | None:
        path = Path(self.name)
        return image_size(load_qonnx(path)) if path.suffix.lower() in QONNX_SUFFIXES else None

    def graph(self, target: Target, bits: int | None) -> IntGraph:
        key = rules_of(target)
        self._targets[key] = target
        return self._read(key)


class Network:
    """A float network by name or factory. InputError for one that is not there, at once."""

    free = True
    size = None

    def __init__(self, spec: str | None, weights: Path | None) -> None:
        self._network: FloatNetwork = load_network(spec, weights)
        self._normal: NormalNet = normalize(self._network)
        self.name = self._network.name
        self._known: dict[tuple[str, int | None], IntGraph] = {}

    def graph(self, target: Target, bits: int | None) -> IntGraph:
        key = (rules_of(target), bits)
        if key not in self._known:
            recipe = load_recipe(DEFAULT_RECIPE).model_copy(update={"patches": PATCHES})
            picture = downscale(demo_calibration_images()[0].rgb, self._network.scale)
            images = [network_view(picture, self._network.channels)]
            found = quantize(self._normal, target, recipe, images, bits, bits)
            self._known[key] = to_intgraph(freeze(found.plan, found.calibration, target))
        return self._known[key]


def rules_of(target: Target) -> str:
    """Equal for targets whose integer rules are."""
    return json.dumps(target.integer.model_dump(mode="json"), sort_keys=True)


def open_source(model: str | None, weights: Path | None, bits: int | None) -> Source:
    """What the user named, as `build` takes it, or a graph.json or build folder.

    InputError for an option that a finished graph would leave without effect.
    """
    path = Path(model or "")
    fixed = model is not None and (path.suffix.lower() in (*QONNX_SUFFIXES, ".json") or path.is_dir())
    if not fixed:
        return Network(model, weights)
    for name, value in {"--weights": weights, "--bits": bits}.items():
        if value is not None:
            raise InputError(f"{name} {value}: {model} is quantized already; leave it out, or name the float network")
    assert model is not None
    if path.suffix.lower() == ".json" and not path.is_file():
        raise InputError(f"{model}: no such file; give a graph.json, a .qonnx file or the name of a network")
    return FixedGraph(model)
