"""The grid: networks with their weights, methods with their policy, and the hash of everything a result depends on."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from srq_hw.compare.files import is_file, read_quantized_file
from srq_hw.compare.options import EDGE_BITS, CompareOptions, Widths
from srq_hw.compare.sets import CalibrationSet, ImageSet
from srq_hw.compare.store import source_sha256
from srq_hw.compare.table import FILE_METHOD
from srq_hw.errors import InputError, SrqError
from srq_hw.networks.checkpoint import CHECKPOINT_SUFFIXES
from srq_hw.networks.fetch import fetched_file
from srq_hw.networks.loading import FloatNetwork, load_network
from srq_hw.networks.registry import NETWORKS
from srq_hw.networks.sources import published_files
from srq_hw.normalform.trace import normalize
from srq_hw.pipeline.engine import sha256_json
from srq_hw.pipeline.session import normal_sha256
from srq_hw.quantize.recipe import Recipe, load_recipe
from srq_hw.target import Target
from srq_hw.yamlfile import did_you_mean

ALL_NETWORKS = "all"


@dataclass(frozen=True)
class NetworkEntry:
    """A float network of the grid, or a QONNX file (widths: the file's own, else None).

    sha256: of its weights, its structure and its normal form, or of the file; source: of the code.
    """

    spec: str
    weights: Path | None
    scale: int
    channels: int
    sha256: str
    source: str
    widths: Widths | None = None

    @property
    def is_file(self) -> bool:
        """Quantized already: one row, no float figures."""
        return self.widths is not None


@dataclass(frozen=True)
class Method:
    """A recipe of the grid under the name the user gave it."""

    name: str
    recipe: Recipe


@dataclass(frozen=True)
class Cell:
    """Network x method x widths; recipe: the method's, with the policy that --edges and --sums ask for.

    recipe and calibration are None in the one cell of a QONNX file.
    """

    network: NetworkEntry
    method: str
    widths: Widths
    recipe: Recipe | None
    target: Target
    calibration: CalibrationSet | None

    @property
    def program_key(self) -> str:
        """Hash of what the integer program depends on."""
        if self.recipe is None or self.calibration is None:
            file = {"source": self.network.source, "network": self.network.sha256, "target": self.target.sha256}
            return sha256_json(file)
        recipe = self.recipe.model_dump(mode="json")
        return sha256_json(
            {
                "source": self.network.source,
                "network": self.network.sha256,
                "target": self.target.sha256,
                "recipe": {key: value for key, value in recipe.items() if key not in ("name", "title")},
                "bits": [self.widths.weights, self.widths.activations],
                "calibration": self.calibration.sha256,
            }
        )

    def score_key(self, images: ImageSet) -> str:
        """Hash of what the program's figures on a set depend on."""
        return sha256_json({"program": self.program_key, "set": images.sha256})

    def key(self, sets: tuple[ImageSet, ...]) -> str:
        """Hash of what the whole row depends on."""
        return sha256_json({"program": self.program_key, "sets": [images.sha256 for images in sets]})


def float_key(network: NetworkEntry, images: ImageSet) -> str:
    """Hash of what the float network's and bicubic's figures on a set depend on."""
    return sha256_json({"source": network.source, "network": network.sha256, "set": images.sha256})


# --- networks -----------------------------------------------------------------------------------------------------


def find_networks(options: CompareOptions, target: Target) -> tuple[NetworkEntry, ...]:
    """Load every network once. InputError for an unknown name, missing or wrong weights, a file that cannot run."""
    specs = options.networks
    if ALL_NETWORKS in specs:
        here = [name for name in NETWORKS if _in_folder(name, options.weights_dir) is not None]
        if not here:
            raise InputError(
                f"--networks all: {options.weights_dir or 'no --weights-dir'} holds no known network's file"
            )
        specs = tuple(dict.fromkeys(name for spec in specs for name in (here if spec == ALL_NETWORKS else [spec])))
    return tuple(_file_entry(spec, target) if is_file(spec) else _entry(spec, options.weights_dir) for spec in specs)


def _file_entry(spec: str, target: Target) -> NetworkEntry:
    found = read_quantized_file(spec, target)
    return NetworkEntry(spec, None, found.graph.upscale, found.channels, found.sha256, source_sha256(), found.widths)


def _entry(spec: str, folder: Path | None) -> NetworkEntry:
    weights = None if ":" in spec else weights_file(spec, folder)
    net = load_network(spec, weights)
    for name, tensor in net.module.state_dict().items():
        if not bool(torch.isfinite(tensor).all()):
            raise InputError(f"network {spec}: {name} holds NaN or Inf; use another checkpoint ({net.source})")
    return NetworkEntry(spec, weights, net.scale, net.channels, network_sha256(net), source_sha256())


def weights_file(spec: str, folder: Path | None) -> Path | None:
    """The file of a network by name; None where it needs none (embedded, fetched)."""
    info = NETWORKS.get(spec.split("+")[0])
    if info is None:  # load_network says it best
        return None
    found = _in_folder(info.name, folder)
    if found is not None or info.embedded or fetched_file(info.name) is not None:
        return found
    files = [path.name for path in sorted(folder.iterdir())] if folder is not None and folder.is_dir() else []
    near = did_you_mean(info.name, files)
    where = f"--weights-dir {folder} holds no file of it{near}" if folder is not None else "no --weights-dir is given"
    raise InputError(
        f"network {info.name}: weights missing; {where}. Wanted is {info.name} with one of "
        f"{', '.join(CHECKPOINT_SUFFIXES)} (origin: {info.origin})"
    )


def _in_folder(name: str, folder: Path | None) -> Path | None:
    """NAME.pth; else the published file's own name; else a file of several scales (carn_m_x2x3x4 for carn_m_x4)."""
    if folder is None:
        return None
    if not folder.is_dir():
        raise InputError(f"--weights-dir {folder}: not a folder; give the folder of the checkpoints")
    files = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in CHECKPOINT_SUFFIXES]
    published = {item.file for item in published_files() if item.network == name}
    family, _, scale = name.rpartition("_x")
    shared = re.compile(rf"{re.escape(family)}_(?=(?:x\d)*x{scale})(?:x\d){{2,}}")
    tests = (
        lambda path: path.stem == name,
        lambda path: path.name in published,
        lambda path: bool(family) and shared.fullmatch(path.stem) is not None,
    )
    return next((path for test in tests for path in files if test(path)), None)


def network_sha256(net: FloatNetwork) -> str:
    """Digest of the weights, of how the module is put together, and of what it computes in normal form."""
    digest = hashlib.sha256(f"{net.name} {net.scale} {net.input_max} {net.channels} {net.module}".encode())
    for name, tensor in net.module.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode() + tensor.cpu().numpy().tobytes())
    try:
        digest.update(normal_sha256(normalize(net)).encode())
    except SrqError as error:  # its cells will say so; the float figures stand
        digest.update(str(error).encode())
    return digest.hexdigest()


# --- methods and widths -------------------------------------------------------------------------------------------


def find_methods(names: tuple[str, ...]) -> tuple[Method, ...]:
    """Recipes by name or file. InputError for an unknown one, or two that would share a name in the table."""
    found: list[Method] = []
    for name in names:
        recipe = load_recipe(name)
        label = Path(name).stem if Path(name).suffix else name
        if label in (item.name for item in found):
            raise InputError(f"--methods: two recipes are called {label}; rename one, the table tells them by name")
        found.append(Method(label, recipe))
    return tuple(found)


def with_policy(recipe: Recipe, widths: Widths, options: CompareOptions) -> Recipe:
    """The recipe with the widths that were asked for; edges and tail count only where they are wider than the rest."""
    change: dict[str, Any] = {}
    narrow = min(widths.weights, widths.activations)
    edges = recipe.policy.edges if options.edges is None else options.edges
    tail = recipe.policy.tail if options.tail is None else options.tail
    for name, bits in (("edges", EDGE_BITS if edges is None else edges), ("tail", tail)):
        change[name] = bits if isinstance(bits, int) and bits > narrow else None
    if options.sums is not None:
        change["sums"] = options.sums if isinstance(options.sums, int) else None
    return recipe.model_copy(update={"policy": recipe.policy.model_copy(update=change)})


def check_widths(widths: tuple[Widths, ...], target: Target) -> None:
    """InputError for a width of --bits that the target does not have."""
    rules = target.integer
    for item in widths:
        for what, bits, range_ in (
            ("weights", item.weights, rules.weights.bits),
            ("activations", item.activations, rules.activations.bits),
        ):
            if not range_.min <= bits <= range_.max:
                raise InputError(
                    f"--bits {item}: {bits} bits for {what}; target {target.name} allows {range_.min} to {range_.max}"
                )


def check_policy(options: CompareOptions, target: Target) -> None:
    """InputError for a width of --edges, --tail or --sums that the target does not have, where it would count."""
    rules = target.integer
    narrow = min(min(item.weights, item.activations) for item in options.widths)
    for option, bits in (("--edges", options.edges), ("--tail", options.tail)):
        for what, range_ in (("weights", rules.weights.bits), ("activations", rules.activations.bits)):
            if isinstance(bits, int) and bits > narrow and not range_.min <= bits <= range_.max:
                raise InputError(
                    f"{option} {bits}: {bits} bits for {what}; target {target.name} allows {range_.min} to {range_.max}"
                )
    least, most = rules.activations.bits.min, rules.sums_bits_max
    if isinstance(options.sums, int) and not least <= options.sums <= most:
        raise InputError(
            f"--sums {options.sums}: target {target.name} allows {least} to {most} bits in sums; leave it out, or "
            "use none"
        )


def make_cells(
    options: CompareOptions,
    networks: tuple[NetworkEntry, ...],
    methods: tuple[Method, ...],
    target: Target,
    calibration: CalibrationSet | None,
) -> tuple[Cell, ...]:
    """The whole grid: by network, then widths, then method; a QONNX file has one cell."""
    found = []
    for network in networks:
        if network.widths is not None:
            found.append(Cell(network, FILE_METHOD, network.widths, None, target, None))
            continue
        for widths in options.widths:
            for method in methods:
                recipe = with_policy(method.recipe, widths, options)
                found.append(Cell(network, method.name, widths, recipe, target, calibration))
    return tuple(found)
