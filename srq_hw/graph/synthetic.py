"""Synthetic EDSR-shaped IntGraphs with random integers, for benchmarks and tests that need a shape, not a picture."""

from __future__ import annotations

import numpy as np

from srq_hw.fixedpoint import bits_for, dyadic, int_range
from srq_hw.graph.check import verify
from srq_hw.graph.ir import Attr, IntGraph, Node, Tensor
from srq_hw.graph.ops import OPS
from srq_hw.graph.opspec import Bounds


class GraphBuilder:
    """Appends nodes and their tensors; every method returns the name of the tensor it made."""

    def __init__(self, channels: int, bits: int = 8, signed: bool = False) -> None:
        self.nodes: list[Node] = []
        self.tensors = {"image": Tensor("image", channels, bits, signed)}

    def add_node(self, node: Node, channels: int, bits: int, signed: bool, upscale: int, zero_point: int = 0) -> str:
        """Append any node with its output type."""
        self.nodes.append(node)
        self.tensors[node.output] = Tensor(node.output, channels, bits, signed, upscale, zero_point)
        return node.output

    def _accumulator_bits(self, node: Node) -> int:
        """32, or more where inputs of these types can reach more."""
        ins = [self.tensors[name] for name in node.inputs]
        reach = OPS[node.op].bounds(node, ins, [Bounds.of(tensor) for tensor in ins])
        return max(32, bits_for(int(reach.lo.min()), int(reach.hi.max()), signed=True))

    def conv(self, source: str, weight: np.ndarray, bias: np.ndarray, name: str, groups: int = 1) -> str:
        """Conv to an accumulator of 32 bits, or what it needs. weight (O, I/g, kh, kw), bias (O,), integers."""
        params = {"weight": weight.astype(np.int64), "bias": bias.astype(np.int64)}
        node = Node("Conv", name, (source,), name, {"groups": groups}, params)
        bits = self._accumulator_bits(node)
        return self.add_node(node, weight.shape[0], bits, True, self.tensors[source].upscale)

    def requant(
        self,
        source: str,
        multiplier: np.ndarray,
        shift: np.ndarray,
        bits: int,
        signed: bool,
        name: str,
        rounding: str = "half_even",
        negative_multiplier: np.ndarray | None = None,
    ) -> str:
        """Requant to (bits, signed); multiplier and shift int64 (1,) or (C,)."""
        params = {"multiplier": np.asarray(multiplier, np.int64), "shift": np.asarray(shift, np.int64)}
        if negative_multiplier is not None:
            params["negative_multiplier"] = np.asarray(negative_multiplier, np.int64)
        lo, hi = int_range(bits, signed)
        attrs: dict[str, Attr] = {"rounding": rounding, "lo": lo, "hi": hi, "zero_point": 0}
        tensor = self.tensors[source]
        return self.add_node(
            Node("Requant", name, (source,), name, attrs, params), tensor.channels, bits, signed, tensor.upscale
        )

    def add(self, a: str, b: str, name: str, multipliers: tuple[int, int] = (1, 1)) -> str:
        """Weighted sum to an accumulator of 32 bits, or what it needs."""
        tensor = self.tensors[a]
        node = Node("Add", name, (a, b), name, {"multipliers": multipliers})
        return self.add_node(node, tensor.channels, self._accumulator_bits(node), True, tensor.upscale)

    def offset(self, source: str, offset: np.ndarray, bits: int, name: str) -> str:
        """Per-channel integer offset to a signed type."""
        tensor = self.tensors[source]
        node = Node("Offset", name, (source,), name, {}, {"offset": np.asarray(offset, np.int64)})
        return self.add_node(node, tensor.channels, bits, True, tensor.upscale)

    def depth_to_space(self, source: str, block: int, name: str, mode: str = "CRD") -> str:
        """Pixel shuffle; keeps the type."""
        t = self.tensors[source]
        node = Node("DepthToSpace", name, (source,), name, {"block": block, "mode": mode})
        return self.add_node(node, t.channels // block**2, t.bits, t.signed, t.upscale * block, t.zero_point)

    def finish(self, output: str, name: str) -> IntGraph:
        """The verified graph."""
        graph = IntGraph(name, "image", output, tuple(self.nodes), dict(self.tensors))
        verify(graph)
        return graph


def random_requant(rng: np.random.Generator, span: float, bits: int, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Per-channel 16-bit multipliers and shifts that map about +-span onto the range of a signed type."""
    ratios = (1 << (bits - 1)) / (span * rng.uniform(0.7, 1.4, channels))
    pairs = [dyadic(float(ratio), 16) for ratio in ratios]
    return np.array([m for m, _ in pairs]), np.array([s for _, s in pairs])


def edsr_graph(
    features: int,
    blocks: int,
    scale: int = 2,
    weight_bits: int = 8,
    act_bits: int = 8,
    seed: int = 0,
    last_conv: bool = True,
    mean_shift: bool = False,
    rounding: str = "half_even",
) -> IntGraph:
    """EDSR with random integers: head, blocks, tail, global skip, up, shuffle and (last_conv) an RGB conv behind it.

    Every layer is requantized to about full range, so that no tensor dies out or saturates throughout.
    """
    rng = np.random.default_rng(seed)
    build = GraphBuilder(3)

    def conv(source: str, out: int, name: str, relu: bool = False, bits: int = act_bits, signed: bool = True) -> str:
        cin = build.tensors[source].channels
        limit = (1 << (weight_bits - 1)) - 1
        weight = rng.integers(-limit, limit + 1, (out, cin, 3, 3))
        lo, hi = build.tensors[source].range
        spread = float(np.sqrt(cin * 9 * np.mean(np.square(weight)) * (hi - lo) ** 2 / 12))
        bias = rng.integers(-int(spread), int(spread) + 1, out)
        acc = build.conv(source, weight, bias, name)
        multiplier, shift = random_requant(rng, 2.5 * spread, bits, out)
        return build.requant(acc, multiplier, shift, bits, signed and not relu, f"{name}_q", rounding)

    def add(a: str, b: str, name: str) -> str:
        total = build.add(a, b, name)
        multiplier, shift = dyadic(float(rng.uniform(0.5, 0.8)), 16)
        return build.requant(total, np.array([multiplier]), np.array([shift]), act_bits, True, f"{name}_q", rounding)

    x = "image"
    if mean_shift:
        x = build.offset(x, np.array([-114, -111, -103]), 9, "image_offset")
    x = head = conv(x, features, "head")
    for index in range(blocks):
        y = conv(x, features, f"block{index}_conv1", relu=True)
        y = conv(y, features, f"block{index}_conv2")
        x = add(x, y, f"block{index}_add")
    x = add(conv(x, features, "tail"), head, "skip")
    if last_conv:
        x = build.depth_to_space(conv(x, features * scale**2, "up"), scale, "shuffle")
        x = conv(x, 3, "last", bits=8, signed=False)
    else:
        x = build.depth_to_space(conv(x, 3 * scale**2, "up", bits=8, signed=False), scale, "shuffle")
    return build.finish(x, f"edsr{blocks}_{features}_x{scale}")
