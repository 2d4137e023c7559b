"""One node per operation and trap, with lanes: what the FINN operations are tested on, in any process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import onnx

from srq_hw.backends.finn.ops.nodes import make_duplicate, make_node
from srq_hw.graph.check import bounds, ends
from srq_hw.graph.ir import Int, IntGraph, Node, Tensor
from srq_hw.graph.ops import OPS
from srq_hw.graph.synthetic import GraphBuilder
from srq_hw.graph.taps import filter_taps

FRAMES = 3


@dataclass(frozen=True)
class Case:
    """A node of a graph (a fork of its input where node is ""), the lanes it gets, the size of the graph's image."""

    name: str
    graph: IntGraph
    node: str
    lanes: dict[str, int]
    size: tuple[int, int] = (5, 4)
    outputs: int = 1

    @property
    def own(self) -> Node:
        """The node."""
        return next(node for node in self.graph.nodes if node.name == self.node)

    @property
    def inputs(self) -> list[Tensor]:
        """Tensors that it reads."""
        names = self.own.inputs if self.node else (self.graph.input,)
        return [self.graph.tensors[name] for name in names]

    def onnx_node(self) -> onnx.NodeProto:
        """As emission makes it, with the lanes."""
        sources = [f"x{index}" for index in range(len(self.inputs))]
        results = [f"y{index}" for index in range(self.outputs)]
        if self.node:
            made = make_node(self.graph, self.own, self.size, sources, results[0], self.name)
        else:
            made = make_duplicate(self.graph, self.graph.input, self.size, sources[0], results, self.name)
        for item in made.attribute:
            if item.name in self.lanes:
                item.i = self.lanes[item.name]
        return made

    def images(self) -> list[Int]:
        """Frames for each input, (FRAMES, H, W, C), of what really arrives, with both ends of it."""
        reach, rng = bounds(self.graph), np.random.default_rng(sum(map(ord, self.name)))
        found = []
        for tensor in self.inputs:
            lo, hi = ends(reach[tensor.name])
            shape = (FRAMES, self.size[0] * tensor.upscale, self.size[1] * tensor.upscale, tensor.channels)
            spread = rng.integers(lo, hi, shape, endpoint=True)
            near = np.clip(rng.integers(-4, 5, shape), lo, hi)
            pick = rng.integers(0, 6, shape)
            found.append(
                np.select([pick == 0, pick == 1, pick == 2], [np.full(shape, lo), np.full(shape, hi), near], spread)
            )
        return found

    def expected(self) -> list[Int]:
        """Frames of each output by the table of operations."""
        xs = self.images()
        if not self.node:
            return xs * self.outputs
        return [OPS[self.own.op].execute(self.own, self.inputs, xs)]


def _image(channels: int, bits: int, signed: bool, zero_point: int = 0) -> GraphBuilder:
    b = GraphBuilder(channels, bits, signed)
    b.tensors["image"] = replace(b.tensors["image"], zero_point=zero_point)
    return b


def _weights(seed: int, shape: tuple[int, ...], bits: int) -> tuple[Int, Int]:
    rng = np.random.default_rng(seed)
    half = 1 << bits - 1
    return rng.integers(-half, half, shape), rng.integers(-500, 500, shape[0])


def _conv(
    name: str, channels: int, shape: tuple[int, int, int, int], groups: int, lanes: dict[str, int], bits: int = 8,
    weight_bits: int = 8, signed: bool = False, zero_point: int = 0,
) -> Case:  # fmt: skip
    b = _image(channels, bits, signed, zero_point)
    b.conv("image", *_weights(len(name), shape, weight_bits), "conv", groups)
    return Case(name, b.finish("conv", name), "conv", lanes)


def _requant(
    name: str, bits: int, lanes: int, seed: int, signed_in: bool = True, zero_point: int = 0, fall: bool = False,
    rounding: str = "half_even", per_tensor: bool = False,
) -> Case:  # fmt: skip
    rng = np.random.default_rng(seed)
    b = _image(3, 7, signed=True)
    source = "image"
    if signed_in:
        source = b.conv("image", *_weights(seed, (6, 3, 3, 3), 6), "acc")
    else:
        b = _image(6, 7, signed=False)
    tensor = b.tensors[source]
    lo, hi = ends(bounds(IntGraph("part", "image", source, tuple(b.nodes), b.tensors))[source])
    count = 1 if per_tensor else tensor.channels
    shift = rng.integers(14, 17, count)
    step = 2**bits / (max(abs(lo), hi) / 3)
    params = {"multiplier": np.rint(rng.uniform(0.6, 1.4, count) * step * 2.0**shift).astype(np.int64), "shift": shift}
    if fall:
        params["negative_multiplier"] = -params["multiplier"] // 3
    attrs = {
        "rounding": rounding,
        "lo": -(1 << bits - 1),
        "hi": (1 << bits - 1) - 1,
        "zero_point": zero_point,
    }
    b.add_node(Node("Requant", "q", (source,), "q", attrs, params), tensor.channels, bits, True, 1, zero_point)
    return Case(name, b.finish("q", name), "q", {"PE": lanes})


def _add(name: str, multipliers: tuple[int, int], lanes: int) -> Case:
    b = _image(4, 8, False, 128)
    q = _same_size(b, "other", 5, True, 3)
    b.add("image", q, "sum", multipliers)
    return Case(name, b.finish("sum", name), "sum", {"PE": lanes})


def _same_size(b: GraphBuilder, name: str, bits: int, signed: bool, zero_point: int = 0) -> str:
    """Another quantized tensor of the image's shape."""
    lo, hi = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    attrs = {"rounding": "floor", "lo": lo, "hi": hi, "zero_point": zero_point}
    channels = b.tensors["image"].channels
    acc = b.conv("image", np.eye(channels, dtype=np.int64)[:, :, None, None], np.zeros(channels), f"{name}_acc")
    params = {"multiplier": np.array([1]), "shift": np.array([1])}
    return b.add_node(Node("Requant", name, (acc,), name, attrs, params), channels, bits, signed, 1, zero_point)


def _offset() -> Case:
    b = _image(3, 8, False)
    b.offset("image", np.array([-114, -111, 300]), 11, "moved")
    return Case("offset", b.finish("moved", "offset"), "moved", {"PE": 3})


def _concat() -> Case:
    b = _image(4, 6, True)
    two = _same_size(b, "two", 6, True)
    b.add_node(Node("Slice", "part", (two,), "part", {"start": 0, "stop": 2}), 2, 6, True, 1)
    b.add_node(Node("Concat", "all", ("image", "part", two), "all"), 10, 6, True, 1)
    return Case("concat", b.finish("all", "concat"), "all", {"PE": 2})


def _slice() -> Case:
    b = _image(12, 5, True)
    b.add_node(Node("Slice", "part", ("image",), "part", {"start": 3, "stop": 9}), 6, 5, True, 1)
    return Case("slice", b.finish("part", "slice"), "part", {"PE": 3})


def _shuffle(name: str, mode: str, lanes: dict[str, int], channels: int = 18, block: int = 3) -> Case:
    b = _image(channels, 5, False, 7)
    b.depth_to_space("image", block, "big", mode)
    return Case(name, b.finish("big", name), "big", lanes)


def _repeat() -> Case:
    b = _image(4, 7, True)
    b.add_node(Node("ResizeNearest", "big", ("image",), "big", {"factor": 3}), 4, 7, True, 3)
    return Case("repeated", b.finish("big", "repeat"), "big", {"PE": 2})


def _filter(name: str, channels: int, lanes: dict[str, int]) -> Case:
    taps, denominator = filter_taps("bicubic", 2)
    b = _image(channels, 8, False, 16)
    node = Node("ResizeFilter", "big", ("image",), "big", {"factor": 2, "denominator": denominator}, {"taps": taps})
    b.add_node(node, channels, 32, True, 2)
    return Case(name, b.finish("big", name), "big", lanes)


def _fork() -> Case:
    return Case("forked", _image(6, 5, True).finish("image", "fork"), "", {"PE": 3}, outputs=3)


def _behind_shuffle() -> Case:
    """A node that is not at the input: its frames are larger than the image."""
    b = _image(8, 4, True)
    b.depth_to_space("image", 2, "big")
    b.conv("big", *_weights(3, (4, 2, 1, 5), 4), "conv")
    return Case("behind_shuffle", b.finish("conv", "behind"), "conv", {"PE": 4, "SIMD": 2})


MAKERS: tuple[Callable[[], Case], ...] = (
    lambda: _conv("conv_zero_point", 6, (4, 6, 3, 3), 1, {"PE": 2, "SIMD": 3}, zero_point=113),
    lambda: _conv("conv_point", 4, (6, 4, 1, 1), 1, {"PE": 3, "SIMD": 4}, bits=4, weight_bits=4, signed=True),
    lambda: _conv("conv_grouped", 6, (8, 3, 3, 3), 2, {"PE": 4, "SIMD": 1}, bits=5, signed=True, zero_point=-3),
    lambda: _conv("conv_depthwise", 4, (4, 1, 3, 3), 4, {"PE": 2, "SIMD": 2}, zero_point=9),
    lambda: _requant("requant_prelu", 8, 2, 1, zero_point=-20, fall=True),
    lambda: _requant("requant_thresholds", 4, 3, 2, rounding="half_up", per_tensor=True),
    lambda: _requant("requant_unsigned", 6, 6, 3, signed_in=False, rounding="half_away"),
    lambda: _add("add", (1, 1), 4),
    lambda: _add("add_unequal", (200003, 3001), 2),
    _offset, _concat, _slice,
    lambda: _shuffle("shuffle_crd", "CRD", {"PE": 1, "SIMD": 6}),
    lambda: _shuffle("shuffle_dcr", "DCR", {"PE": 2, "SIMD": 2}),
    _repeat,
    lambda: _filter("filter_grey", 1, {"PE": 1, "SIMD": 1, "CorePE": 2}),
    lambda: _filter("filter_colour", 3, {"PE": 3, "SIMD": 3, "CorePE": 4}),
    _fork, _behind_shuffle,
)  # fmt: skip


def small_network() -> IntGraph:
    """Every operation in one graph, with forks of two and three readers."""
    b = GraphBuilder(3)
    x = b.offset("image", np.array([-114, -111, -103]), 9, "recentred")
    acc = b.conv(x, *_weights(1, (8, 3, 3, 3), 5), "head")
    q = b.requant(acc, np.array([1]), np.array([9]), 6, True, "head_q")
    b.add_node(Node("Slice", "part", (q,), "part", {"start": 0, "stop": 4}), 4, 6, True, 1)
    acc = b.conv("part", *_weights(2, (4, 2, 3, 3), 4), "grouped", 2)
    y = b.requant(acc, np.array([3]), np.array([8]), 6, True, "grouped_q")
    b.add_node(Node("Concat", "both", (y, "part"), "both"), 8, 6, True, 1)
    y = b.requant(b.add("both", q, "sum", (3, 1)), np.array([1]), np.array([2]), 4, True, "sum_q")
    big = b.depth_to_space(y, 2, "shuffled")
    taps, denominator = filter_taps("bicubic", 2)
    node = Node(
        "ResizeFilter", "smooth", ("part",), "smooth", {"factor": 2, "denominator": denominator}, {"taps": taps}
    )
    b.add_node(node, 4, 32, True, 2)
    smooth = b.requant("smooth", np.array([1]), np.array([15]), 4, True, "smooth_q")
    b.add_node(Node("Slice", "two", (smooth,), "two", {"start": 2, "stop": 4}), 2, 4, True, 2)
    b.add_node(Node("Slice", "few", (q,), "few", {"start": 6, "stop": 8}), 2, 6, True, 1)
    b.add_node(Node("ResizeNearest", "near", ("few",), "near", {"factor": 2}), 2, 6, True, 2)
    total = b.add(b.add(big, "two", "sum1"), "near", "sum2")
    return b.finish(b.requant(total, np.array([5]), np.array([2]), 8, True, "out"), "small")


def all_cases() -> list[Case]:
    """Every one, in a fixed order."""
    return [make() for make in MAKERS]
