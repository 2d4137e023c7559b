"""The instances on which `scripts/fit_costs.py` fits the cost model: one library unit each, with random constants.

A specification is plain data, so that a measured row can name it; `build` makes the same instance of it every time.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from srq_hw.backends.rtl.arrange import arrange
from srq_hw.backends.rtl.folding import Folding, Goal, Lanes
from srq_hw.backends.rtl.netlist import LOAD_BITS, Instance, Stream
from srq_hw.backends.rtl.plan import Plan
from srq_hw.backends.rtl.units import converted, unit
from srq_hw.graph.ir import IntGraph
from srq_hw.graph.synthetic import GraphBuilder, random_requant

Spec = Mapping[str, Any]


@dataclass(frozen=True)
class Sample:
    """One instance of the grid. held: kept out of the fit."""

    spec: Spec
    held: bool = False

    @property
    def name(self) -> str:
        """The specification as text, the same for the same specification."""
        return " ".join(f"{key}={_text(value)}" for key, value in self.spec.items())


def _text(value: object) -> str:
    return "x".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def build(spec: Spec) -> Instance:
    """The instance that a specification stands for."""
    return _BUILD[spec["unit"]](spec, np.random.default_rng(zlib.crc32(Sample(spec).name.encode())))


# --- nodes of a graph -------------------------------------------------------------------------------------------------


def _instances(graph: IntGraph, size: tuple[int, int], lanes: Lanes) -> tuple[Instance, ...]:
    """Of the last node of a graph, as the generator makes them."""
    ready = arrange(graph)
    node = ready.nodes[-1]
    folding = Folding(1, {other.name: lanes for other in ready.nodes})
    plan = Plan.of(ready, Goal(size, 1), folding, {other.name: other.name for other in ready.nodes})
    ins = tuple(
        plan.stream(name, f"in{index}", number)
        for index, (name, number) in enumerate(zip(node.inputs, lanes.inputs, strict=True))
    )
    return unit(plan, node, ins)


def _weights(random: np.random.Generator, shape: tuple[int, ...], bits: int, narrow: bool) -> np.ndarray:
    """Spread as trained weights are: about normal, the largest at the end of the range."""
    most = (1 << bits - 1) - 1
    weight = np.clip(np.rint(random.normal(0, (most + 1) / 3, shape)), -most, most).astype(np.int64)
    weight.flat[0] = -most if narrow else -most - 1
    return weight


def _conv(spec: Spec, random: np.random.Generator) -> Instance:
    """`a` to `b` channels, kernel k, pe x simd; w, x: bits of weights and activations; 3rd of x: signed."""
    inside, out, k, groups = spec["a"], spec["b"], spec["k"], spec.get("groups", 1)
    build = GraphBuilder(inside, spec["x"], spec.get("signed", False))
    if spec.get("zero", 0):
        build.tensors["image"] = replace(build.tensors["image"], zero_point=spec["zero"])
    weight = _weights(random, (out, inside // groups, k, k), spec["w"], spec.get("narrow", True))
    spread = 1 + int(np.abs(weight).sum((1, 2, 3)).max()) * (1 << spec["x"]) // 8
    bias = random.integers(-spread, spread, out)
    graph = build.finish(build.conv("image", weight, bias, "conv", groups), "one")
    lanes = Lanes((spec["simd"],), spec["pe"], 1, core=(spec["pe"], spec["simd"]), weights=spec.get("weights", ""))
    made = _instances(graph, tuple(spec["size"]), lanes)[0]
    return replace(made, parameters={**made.parameters, "EDGE": 1}) if spec.get("edge") else made


def _requant(spec: Spec, random: np.random.Generator) -> Instance:
    """c channels of acc bits to `bits`, `lanes` at once.

    how: channel; wide, with shifts that differ by up to 6; tensor, one ratio; pow2, a shift alone; prelu.
    """
    channels, how, bits = spec["c"], spec["how"], spec["bits"]
    build = GraphBuilder(channels, spec["acc"], True)
    count = 1 if how in ("tensor", "pow2") else channels
    multiplier, shift = random_requant(random, 2.0 ** (spec["acc"] - 2), bits, count)
    if how == "pow2":
        multiplier = np.ones_like(multiplier)
        shift = shift - 15
    if how == "wide":
        shift = shift - random.integers(0, 6, count)
    slope = random.integers(1, int(multiplier.max()), count) if how == "prelu" else None
    signed = spec.get("signed", False)
    rounding = spec.get("rounding", "half_even")
    name = build.requant("image", multiplier, shift, bits, signed, "requant", rounding, slope)
    graph = build.finish(name, "one")
    node = graph.nodes[0]
    zero, span = spec.get("zero", 0), 1 << bits
    attrs = {**node.attrs, "zero_point": zero}
    if how == "prelu" and bits <= 4:  # not all levels: a multiplier, not a search
        attrs["hi"] = attrs["lo"] + span - 2
    graph = graph.with_nodes((replace(node, attrs=attrs),), graph.tensors)
    lanes = spec["lanes"]
    return _instances(graph, tuple(spec["size"]), Lanes((lanes,), lanes, 1))[-1]


def _add(spec: Spec, random: np.random.Generator) -> Instance:
    """c channels of x bits on both sides; factors of so many bits, 0: ones."""
    build = GraphBuilder(spec["c"], spec["x"], True)
    second = build.requant("image", np.array([3]), np.array([1]), spec["x"], True, "other")
    bits = spec["factors"]
    factors = (1, 1) if not bits else tuple(int(v) | 1 for v in random.integers(1 << bits - 2, 1 << bits - 1, 2))
    graph = build.finish(build.add("image", second, "add", (factors[0], factors[1])), "one")
    lanes = spec["lanes"]
    return _instances(graph, tuple(spec["size"]), Lanes((lanes, lanes), lanes, 1))[0]


def _offset(spec: Spec, random: np.random.Generator) -> Instance:
    build = GraphBuilder(spec["c"], spec["x"], False)
    values = random.integers(-(1 << spec["x"] - 1), 0, spec["c"])
    graph = build.finish(build.offset("image", values, spec["x"] + 1, "offset"), "one")
    return _instances(graph, tuple(spec["size"]), Lanes((spec["lanes"],), spec["lanes"], 1))[0]


# --- what only moves values -------------------------------------------------------------------------------------------


def _stream(spec: Spec, name: str, channels: int, lanes: int, up: int = 1) -> Stream:
    height, width = spec["size"]
    return Stream(name, height * up, width * up, channels, lanes, spec["x"], False)


def _frame(stream: Stream) -> dict[str, int | str]:
    return {"HEIGHT": stream.height, "WIDTH": stream.width, "CHANNELS": stream.channels}


def _concat(spec: Spec, random: np.random.Generator) -> Instance:
    first, second = _stream(spec, "a", spec["a"], spec["lanes"]), _stream(spec, "b", spec["b"], spec["lanes"])
    out = _stream(spec, "m", spec["a"] + spec["b"], spec["lanes"])
    parameters: dict[str, int | str] = {
        "HEIGHT": out.height, "WIDTH": out.width, "A_CHANNELS": spec["a"], "B_CHANNELS": spec["b"],
        "LANES": out.lanes, "BITS": out.bits,
    }  # fmt: skip
    return Instance("srq_concat", "unit", parameters, {"a": first, "b": second, "m": out})


def _slice(spec: Spec, random: np.random.Generator) -> Instance:
    source, out = _stream(spec, "s", spec["c"], spec["lanes"]), _stream(spec, "m", spec["count"], spec["lanes"])
    own = {"FIRST": spec["first"], "COUNT": spec["count"], "LANES": out.lanes, "BITS": out.bits}
    return Instance("srq_slice", "unit", _frame(source) | own, {"s": source, "m": out})


def _shuffle(spec: Spec, random: np.random.Generator) -> Instance:
    """block x block; lanes in and out; crd: PyTorch's order."""
    block = spec["block"]
    source = _stream(spec, "s", spec["c"], spec["in"])
    out = _stream(spec, "m", spec["c"] // block**2, spec["out"], block)
    own = {"BLOCK": block, "CRD": spec["crd"], "IN_LANES": spec["in"], "OUT_LANES": spec["out"], "BITS": spec["x"]}
    return Instance("srq_shuffle", "unit", _frame(source) | own, {"s": source, "m": out})


def _repeat(spec: Spec, random: np.random.Generator) -> Instance:
    source, out = _stream(spec, "s", spec["c"], spec["lanes"]), _stream(spec, "m", spec["c"], spec["lanes"], 2)
    own = {"FACTOR": 2, "LANES": spec["lanes"], "BITS": spec["x"]}
    return Instance("srq_repeat", "unit", _frame(source) | own, {"s": source, "m": out})


def _width(spec: Spec, random: np.random.Generator) -> Instance:
    return converted(_stream(spec, "s", spec["c"], spec["in"]), spec["out"], "m")[0][0]


def _end(module: str) -> Callable[[Spec, np.random.Generator], Instance]:
    def made(spec: Spec, random: np.random.Generator) -> Instance:
        source = _stream(spec, "s", spec["c"], spec["lanes"])
        own: dict[str, int | str] = {"LANES": spec["lanes"], "BITS": spec["x"]}
        if module == "srq_input":
            own["PAD"] = 0
        return Instance(module, "unit", _frame(source) | own, {"s": source, "m": replace(source, name="m")})

    return made


def _fifo(spec: Spec, random: np.random.Generator) -> Instance:
    source = Stream("s", 64, 64, spec["bits"], spec["bits"], 1, False)
    parameters: dict[str, int | str] = {"BITS": spec["bits"], "DEPTH": spec["depth"]}
    return Instance("srq_fifo", "unit", parameters, {"s": source, "m": replace(source, name="m")})


def _store(spec: Spec, random: np.random.Generator) -> Instance:
    """Not an instance of any design: the memory of an srq_conv_load. `depth` words of `width` bits."""
    load = Stream("load", 1, 1, 1, 1, LOAD_BITS, False)
    parameters: dict[str, int | str] = {
        "WIDTH": spec["width"], "DEPTH": spec["depth"], "LOAD": LOAD_BITS, "STYLE": "ultra",
    }  # fmt: skip
    return Instance("srq_store", "unit", parameters, {"load": load})


def _duplicate(spec: Spec, random: np.random.Generator) -> Instance:
    source = Stream("s", 64, 64, spec["bits"], spec["bits"], 1, False)
    ports = {"s": source, "m0": replace(source, name="m0"), "m1": replace(source, name="m1")}
    return Instance("srq_duplicate", "unit", {"BITS": spec["bits"]}, ports)


_BUILD: dict[str, Callable[[Spec, np.random.Generator], Instance]] = {
    "conv": _conv,
    "requant": _requant,
    "add": _add,
    "offset": _offset,
    "concat": _concat,
    "slice": _slice,
    "shuffle": _shuffle,
    "repeat": _repeat,
    "width": _width,
    "input": _end("srq_input"),
    "output": _end("srq_output"),
    "fifo": _fifo,
    "duplicate": _duplicate,
    "store": _store,
}


# --- the grid ---------------------------------------------------------------------------------------------------------


def _rows(names: str, rows: list[tuple[Any, ...]], every: int = 4, **fixed: Any) -> list[Sample]:
    """Samples from a table; each `every`-th is held out. A name ending in ? is left out where the value is None."""
    keys = names.split()
    made = []
    for index, row in enumerate(rows):
        spec = fixed | {key.rstrip("?"): value for key, value in zip(keys, row, strict=True) if value is not None}
        made.append(Sample(spec, index % every == every - 1))
    return made


def _size(width: int) -> list[int]:
    return [width * 3 // 4, width]


def _conv_rows() -> list[Sample]:
    rows: list[tuple[Any, ...]] = []
    shapes = [  # a, b, k, pe, simd, width
        (3, 16, 3, 2, 3, 64), (3, 16, 3, 8, 3, 48), (16, 16, 3, 1, 4, 32), (16, 16, 3, 4, 8, 128),
        (16, 16, 3, 8, 2, 64), (16, 16, 1, 4, 4, 64), (12, 12, 3, 4, 12, 96), (24, 12, 3, 2, 8, 48),
        (8, 8, 5, 2, 2, 32), (32, 32, 3, 2, 16, 64), (32, 32, 1, 8, 8, 64), (56, 12, 1, 3, 14, 64),
        (16, 48, 3, 6, 4, 32), (1, 56, 5, 14, 1, 64), (64, 64, 3, 4, 8, 16), (64, 16, 3, 1, 16, 48),
        (20, 18, 3, 6, 5, 40), (12, 56, 1, 7, 6, 64), (16, 12, 3, 12, 4, 64), (16, 16, 3, 2, 1, 64),
        (64, 64, 3, 16, 2, 24), (16, 16, 3, 16, 1, 32), (10, 10, 3, 5, 10, 32), (32, 16, 3, 4, 4, 100),
    ]  # fmt: skip
    widths = [(8, 8), (4, 4), (8, 8), (4, 8), (8, 4), (4, 4), (2, 2), (2, 8)]
    for index, shape in enumerate(shapes):
        a, b, k, pe, simd, width = shape
        for turn in range(3 if index < 8 else 2):
            w, x = widths[(3 * turn + index) % len(widths)]
            narrow, signed = bool((index + turn) % 3), bool((index // 2 + turn) % 2)
            rows.append((a, b, k, pe, simd, w, x, signed, narrow, _size(width), None, None, None))
    rows += [
        (16, 16, 3, 4, 4, 8, 8, False, True, _size(64), None, 128, None),
        (16, 12, 3, 4, 4, 8, 8, False, True, _size(64), None, None, 1),
        (3, 12, 5, 4, 3, 8, 8, False, True, _size(48), None, None, 1),
        (3, 48, 7, 8, 3, 8, 8, False, True, _size(64), None, None, 1),
        (16, 16, 3, 4, 4, 8, 8, False, True, _size(64), 16, None, None),
        (32, 32, 3, 2, 2, 4, 4, False, True, _size(32), 32, None, None),
        (24, 24, 3, 8, 8, 8, 8, True, True, _size(64), 24, None, None),
        (16, 16, 3, 8, 8, 4, 4, True, True, _size(48), 16, 8, None),
        (32, 32, 3, 4, 4, 8, 8, False, True, _size(64), 4, None, None),
        (64, 64, 1, 4, 8, 8, 8, False, True, _size(32), 4, None, None),
        (16, 16, 1, 16, 16, 8, 8, False, True, _size(32), None, None, None),
        (12, 12, 1, 12, 4, 8, 8, False, True, _size(32), None, None, None),
    ]
    names = "a b k pe simd w x signed narrow size groups? zero? edge?"
    return _rows(names, rows, 5, unit="conv")


def _requant_rows() -> list[Sample]:
    rows: list[tuple[Any, ...]] = [
        (16, 24, 8, 4, "wide", 64, False, None, None), (16, 20, 8, 1, "wide", 64, True, None, None),
        (16, 18, 8, 8, "channel", 32, False, None, "half_up"), (3, 22, 8, 3, "channel", 128, False, None, None),
        (64, 26, 8, 2, "wide", 32, True, 12, None), (16, 17, 8, 4, "tensor", 64, True, None, None),
        (12, 10, 8, 2, "tensor", 64, True, None, "half_away"), (56, 29, 8, 7, "channel", 48, False, 100, None),
        (16, 24, 8, 4, "pow2", 64, False, None, None), (32, 20, 8, 8, "pow2", 64, True, None, "half_up"),
        (16, 24, 8, 4, "prelu", 64, True, None, None), (12, 20, 8, 2, "prelu", 64, True, None, "half_up"),
        (32, 21, 8, 16, "wide", 24, True, None, None), (16, 22, 8, 2, "tensor", 96, False, None, "floor"),
        (56, 18, 8, 14, "channel", 64, True, None, "trunc"), (48, 32, 8, 3, "wide", 64, True, None, None),
        (16, 27, 16, 2, "channel", 64, True, None, None), (24, 16, 6, 6, "channel", 40, False, None, None),
        (16, 16, 4, 4, "prelu", 64, False, None, None), (56, 24, 8, 4, "prelu", 64, True, None, None),
        (16, 30, 12, 1, "tensor", 64, True, None, None), (16, 14, 8, 16, "tensor", 32, True, 3, None),
        (48, 15, 8, 12, "pow2", 32, True, None, "half_away"), (8, 26, 8, 1, "prelu", 48, True, None, None),
    ]  # fmt: skip
    table = [(*row[:5], _size(row[5]), *row[6:]) for row in rows]
    search: list[tuple[Any, ...]] = [
        (16, 14, 4, 4, "channel", 64, False, None, None), (16, 18, 4, 1, "channel", 32, True, None, None),
        (12, 12, 4, 12, "channel", 64, False, None, None), (64, 16, 4, 2, "channel", 64, True, None, None),
        (16, 10, 2, 4, "channel", 64, False, None, None), (32, 9, 3, 8, "channel", 48, True, None, None),
        (16, 12, 4, 4, "tensor", 64, False, None, None), (56, 13, 4, 7, "channel", 64, False, None, None),
        (48, 20, 4, 3, "channel", 64, True, None, None), (16, 8, 2, 16, "tensor", 24, True, None, None),
        (24, 15, 4, 6, "channel", 100, False, None, None), (16, 22, 4, 8, "channel", 64, True, None, None),
    ]  # fmt: skip
    names = "c acc bits lanes how size signed zero? rounding?"
    found = [(*row[:5], _size(row[5]), *row[6:]) for row in search]
    return _rows(names, table, 4, unit="requant") + _rows(names, found, 4, unit="requant")


def _other_rows() -> list[Sample]:
    add = [
        (16, 8, 0, 4, 64), (16, 8, 16, 4, 64), (64, 8, 8, 1, 32), (12, 4, 0, 12, 48), (32, 8, 15, 2, 96),
        (16, 16, 0, 8, 32), (24, 4, 12, 3, 64), (16, 8, 16, 8, 64), (32, 12, 16, 2, 40), (8, 20, 0, 1, 64),
        (48, 8, 0, 16, 64), (16, 8, 10, 2, 24),
    ]  # fmt: skip
    offset = [(3, 8, 3, 64), (3, 8, 1, 32), (16, 8, 4, 64), (64, 8, 2, 48), (16, 4, 16, 64), (12, 12, 3, 128)]
    concat = [(16, 16, 4, 8, 64), (48, 16, 1, 8, 32), (8, 24, 8, 4, 64), (3, 12, 3, 8, 96), (64, 64, 16, 8, 48)]
    slices = [(16, 0, 8, 4, 8, 64), (64, 16, 48, 2, 8, 32), (48, 36, 12, 12, 4, 64), (64, 48, 16, 1, 8, 48)]
    shuffle = [
        (12, 2, 0, 3, 3, 8, 64), (12, 2, 1, 12, 3, 8, 64), (48, 4, 0, 3, 3, 8, 48), (64, 2, 0, 4, 4, 8, 64),
        (16, 4, 1, 4, 1, 8, 32), (64, 2, 0, 16, 16, 4, 100), (48, 4, 0, 1, 1, 8, 64), (9, 3, 1, 1, 1, 8, 64),
        (27, 3, 0, 3, 3, 8, 90), (16, 4, 0, 1, 1, 8, 128), (64, 2, 1, 8, 8, 8, 16), (12, 2, 0, 1, 1, 4, 40),
        (64, 4, 0, 2, 2, 8, 32), (48, 4, 1, 6, 3, 8, 64),
    ]  # fmt: skip
    repeat = [(16, 4, 8, 64), (64, 2, 8, 32), (3, 3, 8, 128), (16, 1, 4, 48), (12, 12, 8, 24), (32, 8, 4, 100)]
    width = [
        (12, 12, 4, 8, 64), (16, 1, 4, 8, 64), (16, 8, 2, 24, 64), (16, 16, 1, 8, 32), (24, 8, 12, 8, 48),
        (16, 2, 16, 20, 64), (12, 3, 4, 8, 96), (64, 8, 16, 4, 32), (64, 4, 1, 22, 64), (18, 9, 6, 8, 40),
        (56, 4, 14, 8, 64), (56, 14, 4, 18, 64), (48, 6, 3, 8, 32), (16, 4, 2, 4, 100), (12, 1, 3, 8, 48),
        (16, 4, 1, 26, 24),
    ]  # fmt: skip
    ends = [(3, 3, 8, 64), (1, 1, 8, 128), (48, 4, 8, 32), (3, 3, 12, 48)]
    fifo = [
        (32, 512), (8, 24), (16, 64), (64, 100), (24, 17), (8, 1000), (96, 48), (32, 200), (18, 4000), (12, 130),
        (128, 20), (8, 300), (32, 33), (24, 2500), (4, 700), (48, 72),
    ]  # fmt: skip
    duplicate = [(8,), (32,), (96,), (24,)]

    def sized(rows: Sequence[tuple[int, ...]]) -> list[tuple[Any, ...]]:
        return [(*row[:-1], _size(row[-1])) for row in rows]

    return [
        *_rows("c x factors lanes size", sized(add), 4, unit="add"),
        *_rows("c x lanes size", sized(offset), 4, unit="offset"),
        *_rows("a b lanes x size", sized(concat), 4, unit="concat"),
        *_rows("c first count lanes x size", sized(slices), 4, unit="slice"),
        *_rows("c block crd in out x size", sized(shuffle), 4, unit="shuffle"),
        *_rows("c lanes x size", sized(repeat), 4, unit="repeat"),
        *_rows("c in out x size", sized(width), 4, unit="width"),
        *_rows("c lanes x size", sized(ends), 4, unit="input"),
        *_rows("c lanes x size", sized(ends), 4, unit="output"),
        *_rows("bits depth", fifo, 4, unit="fifo"),
        *_rows("bits", duplicate, 4, unit="duplicate"),
    ]


def _load_rows() -> list[Sample]:
    """srq_store alone, and srq_conv_load, which is fitted as srq_conv and srq_store: all of those are held out."""
    store = [
        (8, 36864), (8, 288), (16, 4608), (16, 18432), (24, 1536), (32, 2304), (36, 144), (64, 4608), (72, 512),
        (128, 2304), (256, 1152), (512, 576), (4, 9216), (12, 600), (20, 2000), (96, 48), (1024, 144), (64, 18432),
        (10, 5000), (32, 36864),
    ]  # fmt: skip
    conv: list[tuple[Any, ...]] = [
        (64, 64, 3, 1, 1, 8, 8, False, False, _size(32)), (64, 64, 3, 2, 4, 8, 8, True, True, _size(32)),
        (64, 64, 3, 4, 8, 8, 8, False, True, _size(64)), (32, 32, 3, 1, 4, 8, 8, True, True, _size(48)),
        (64, 64, 3, 2, 2, 4, 4, True, True, _size(32)), (64, 32, 1, 4, 4, 8, 8, False, True, _size(64)),
        (64, 64, 3, 8, 8, 4, 4, False, True, _size(24)), (16, 64, 5, 2, 8, 8, 8, False, False, _size(40)),
    ]  # fmt: skip
    names = "a b k pe simd w x signed narrow size"
    held = [replace(one, held=True) for one in _rows(names, conv, unit="conv", weights="ultra")]
    return _rows("width depth", store, 4, unit="store") + held


def grid() -> list[Sample]:
    """All of them, cheap units and expensive ones mixed, each once."""
    made = _conv_rows() + _requant_rows() + _other_rows() + _load_rows()
    return list({sample.name: sample for sample in made}.values())
