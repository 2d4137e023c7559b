"""Hypothesis strategies for small random IntGraphs: every op of the table, every rounding rule, odd types and sizes.

    @given(graphs(), st.integers(0, 2**32 - 1))
    def test(graph, seed):
        image = random_image(graph, 5, 7, seed)

Weights come from a seeded generator, so that a failing example shrinks by structure and not number by number.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from hypothesis import strategies as st

from srq_hw.fixedpoint import PRODUCT_LIMIT, ROUNDINGS, bits_for, dyadic, int_range
from srq_hw.graph.ir import IntGraph, Node
from srq_hw.graph.ops import OPS
from srq_hw.graph.opspec import Bounds
from srq_hw.graph.synthetic import GraphBuilder
from srq_hw.graph.taps import KERNELS, filter_taps

OPERATIONS = (
    "conv", "conv", "conv", "grouped", "add", "concat", "depth_to_space", "shuffle", "shuffle", "resize", "offset",
    "requant", "two_requants", "slice", "filter",
)  # fmt: skip

_BITS = st.integers(2, 8)

MAX_CHANNELS = 18
MAX_UPSCALE = 4


class _Writer:
    """GraphBuilder plus the interval of every tensor, from which multipliers are drawn that use the output's range."""

    def __init__(self, draw: Callable, act_bits: st.SearchStrategy[int], weight_bits: st.SearchStrategy[int]) -> None:
        self.draw, self.act_bits, self.weight_bits = draw, act_bits, weight_bits
        channels, bits, signed = draw(st.integers(1, 4)), draw(act_bits), draw(st.booleans())
        self.build = GraphBuilder(channels, bits, signed)
        self.reach = {"image": Bounds.of(self.build.tensors["image"])}
        self.rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        #: tensors that a convolution may read: quantized ones
        self.maps = ["image"]

    def node(self, op, sources, channels, upscale, attrs, params, bits=None, signed=True, zero_point=0) -> str:
        name = f"{op.lower()}{len(self.build.nodes)}"
        node = Node(op, name, tuple(sources), f"{name}_out", attrs, params)
        ins = [self.build.tensors[source] for source in sources]
        reach = OPS[op].bounds(node, ins, [self.reach[source] for source in sources])
        if bits is None:
            bits = max(32, bits_for(int(reach.lo.min()), int(reach.hi.max()), signed=True))
        self.reach[node.output] = reach
        return self.build.add_node(node, channels, bits, signed, upscale, zero_point)

    def conv(self, source: str, grouped: bool, out_multiple: int = 1) -> str:
        draw, tensor = self.draw, self.build.tensors[source]
        divisors = [g for g in range(1, tensor.channels + 1) if tensor.channels % g == 0]
        groups = draw(st.sampled_from(divisors)) if grouped else 1
        per_group = draw(st.integers(1, 3 if groups > 1 else 12))
        out = min(per_group, max(1, MAX_CHANNELS // groups)) * groups
        out = -(-out // out_multiple) * out_multiple * (groups if out_multiple % groups else 1)
        rows, columns = draw(st.sampled_from([(1, 1), (3, 3), (3, 3), (5, 5), (1, 3), (5, 1)]))
        bits = draw(self.weight_bits)
        lo, hi = int_range(bits, signed=True)
        shape = (out, tensor.channels // groups, rows, columns)
        if draw(st.booleans()):
            weight = self.rng.integers(lo, hi + 1, shape)
        else:
            weight = self.rng.choice(np.array([lo, lo, 0, hi, hi]), shape)
        spread = 1 << draw(st.integers(1, 18))
        bias = self.rng.integers(-spread, spread + 1, out)
        params = {"weight": weight.astype(np.int64), "bias": bias.astype(np.int64)}
        return self.node("Conv", [source], out, tensor.upscale, {"groups": groups}, params)

    def requant(self, source: str) -> str:
        draw, tensor, reach = self.draw, self.build.tensors[source], self.reach[source]
        bits, signed = draw(self.act_bits), draw(st.booleans())
        lo, hi = int_range(bits, signed)
        zero_point = draw(st.one_of(st.just(0), st.integers(lo, hi)))
        low = zero_point if draw(st.booleans()) else lo
        largest = max(1, int(np.abs([reach.lo, reach.hi]).max()))
        multiplier_bits = draw(st.sampled_from([1, 4, 16, min(31, (PRODUCT_LIMIT // (8 * largest)).bit_length() - 2)]))
        channels = draw(st.sampled_from([1, tensor.channels]))
        gain = draw(st.sampled_from([1.0, 4.0, 16.0]))
        ratios = gain * (hi - lo) / largest * self.rng.uniform(0.5, 1.0, channels)
        pairs = np.array([dyadic(float(ratio), max(1, multiplier_bits)) for ratio in ratios], np.int64)
        params = {"multiplier": pairs[:, 0], "shift": pairs[:, 1]}
        if draw(st.booleans()):
            least = 0 if draw(st.booleans()) else -int(pairs[:, 0].max())
            params["negative_multiplier"] = self.rng.integers(least, pairs[:, 0].max() + 1, channels)
        rounding = draw(st.sampled_from(sorted(ROUNDINGS)))
        attrs = {"rounding": rounding, "lo": low, "hi": hi, "zero_point": zero_point}
        return self.keep(
            self.node("Requant", [source], tensor.channels, tensor.upscale, attrs, params, bits, signed, zero_point)
        )

    def keep(self, name: str) -> str:
        self.maps.append(name)
        return name

    def step(self, op: str) -> None:
        """Append one operation if some map allows it, with the Requant that makes a map of an accumulator again."""
        draw, tensors = self.draw, self.build.tensors
        source = draw(st.sampled_from(self.maps))
        tensor = tensors[source]
        if op in ("conv", "grouped"):
            self.requant(self.conv(source, grouped=op == "grouped"))
        elif op == "shuffle" and tensor.upscale * 2 <= MAX_UPSCALE:
            self._shuffle(self.requant(self.conv(source, draw(st.booleans()), out_multiple=4)), 2)
        elif op == "two_requants":
            acc = self.conv(source, grouped=False)
            self.requant(acc)
            self.requant(acc)
        elif op == "requant" and tensor.zero_point == 0:
            self.requant(source)
        elif op == "add":
            shape = (tensor.channels, tensor.upscale)
            other = draw(st.sampled_from([m for m in self.maps if (tensors[m].channels, tensors[m].upscale) == shape]))
            multipliers = (draw(st.integers(1, 1 << 12)), draw(st.integers(1, 3)))
            self.requant(self.node("Add", [source, other], *shape, {"multipliers": multipliers}, {}))
        elif op == "concat":
            form = (tensor.bits, tensor.signed, tensor.zero_point, tensor.upscale)
            alike = [m for m in self.maps if self._form(m) == form]
            others = draw(st.lists(st.sampled_from(alike), min_size=1, max_size=2))
            channels = sum(tensors[m].channels for m in (source, *others))
            if channels <= MAX_CHANNELS:
                self._move("Concat", [source, *others], channels, tensor.upscale, {})
        elif op == "depth_to_space":
            blocks = [b for b in (2, 3) if tensor.channels % b**2 == 0 and tensor.upscale * b <= MAX_UPSCALE]
            if blocks:
                self._shuffle(source, draw(st.sampled_from(blocks)))
        elif op == "resize" and tensor.upscale * 2 <= MAX_UPSCALE:
            self._move("ResizeNearest", [source], tensor.channels, tensor.upscale * 2, {"factor": 2})
        elif op == "slice" and tensor.channels > 1:
            start = draw(st.integers(0, tensor.channels - 1))
            stop = draw(st.integers(start + 1, tensor.channels))
            self._move("Slice", [source], stop - start, tensor.upscale, {"start": start, "stop": stop})
        elif op == "filter" and tensor.upscale * 2 <= MAX_UPSCALE:
            factors = [f for f in (2, 3, 4) if tensor.upscale * f <= MAX_UPSCALE]
            factor, kernel = draw(st.sampled_from(factors)), draw(st.sampled_from(sorted(KERNELS)))
            taps, denominator = filter_taps(kernel, factor)
            attrs = {"factor": factor, "denominator": denominator}
            made = self.node("ResizeFilter", [source], tensor.channels, tensor.upscale * factor, attrs, {"taps": taps})
            self.requant(made)
        elif op == "offset":
            offset = self.rng.integers(-200, 201, tensor.channels)
            lo, hi = int(self.reach[source].lo.min()) - 200, int(self.reach[source].hi.max()) + 200
            bits = bits_for(lo, hi, signed=True)
            params = {"offset": offset}
            self.keep(self.node("Offset", [source], tensor.channels, tensor.upscale, {}, params, bits))

    def _shuffle(self, source: str, block: int) -> None:
        tensor = self.build.tensors[source]
        attrs = {"block": block, "mode": self.draw(st.sampled_from(["CRD", "DCR"]))}
        self._move("DepthToSpace", [source], tensor.channels // block**2, tensor.upscale * block, attrs)

    def _form(self, name: str) -> tuple[int, bool, int, int]:
        tensor = self.build.tensors[name]
        return tensor.bits, tensor.signed, tensor.zero_point, tensor.upscale

    def _move(self, op: str, sources: list[str], channels: int, upscale: int, attrs: dict) -> None:
        bits, signed, zero_point, _ = self._form(sources[0])
        self.keep(self.node(op, sources, channels, upscale, attrs, {}, bits, signed, zero_point))


@st.composite
def graphs(
    draw: Callable,
    act_bits: st.SearchStrategy[int] = _BITS,
    weight_bits: st.SearchStrategy[int] = _BITS,
    operations: tuple[str, ...] = OPERATIONS,
    max_steps: int = 7,
) -> IntGraph:
    """A verified random graph whose output is any of its maps. act_bits, weight_bits: widths to draw from."""
    writer = _Writer(draw, act_bits, weight_bits)
    for op in draw(st.lists(st.sampled_from(operations), min_size=1, max_size=max_steps)):
        writer.step(op)
    output = draw(st.sampled_from([writer.build.nodes[-1].output, *writer.maps])) if writer.build.nodes else "image"
    return writer.build.finish(output, "random")


def random_image(graph: IntGraph, height: int, width: int, seed: int) -> np.ndarray:
    """An image (H, W, C) for the graph, int64: half of it any value of the type, half only its two ends."""
    tensor = graph.tensors[graph.input]
    lo, hi = tensor.range
    rng = np.random.default_rng(seed)
    shape = (height, width, tensor.channels)
    anything = rng.integers(lo, hi + 1, shape)
    ends = np.where(rng.integers(0, 2, shape) == 0, lo, hi)
    return np.where(rng.integers(0, 2, (height, width, 1)) == 0, anything, ends)
