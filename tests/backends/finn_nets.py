"""Small random IntGraphs that hold every operation and every trap the FINN back end has to survive."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from srq_hw.graph.ir import IntGraph, Node
from srq_hw.graph.synthetic import GraphBuilder, random_requant
from srq_hw.graph.taps import filter_taps


class Net:
    """A GraphBuilder with random weights, biases and requantizations; every method returns a tensor name."""

    def __init__(self, seed: int, channels: int = 3, bits: int = 8, signed: bool = False) -> None:
        self.rng = np.random.default_rng(seed)
        self.build = GraphBuilder(channels, bits, signed)

    def conv(self, source: str, out: int, name: str, kernel: tuple[int, int] = (3, 3), bits: int = 8) -> str:
        """Convolution with weights over the whole narrow range and a bias of the size of its sums."""
        tensor = self.build.tensors[source]
        limit = (1 << (bits - 1)) - 1
        weight = self.rng.integers(-limit, limit + 1, (out, tensor.channels, *kernel))
        spread = self.spread(source, weight)
        return self.build.conv(source, weight, self.rng.integers(-spread, spread + 1, out), name)

    def spread(self, source: str, weight: np.ndarray) -> int:
        """About one standard deviation of the accumulator."""
        lo, hi = self.build.tensors[source].range
        return max(1, int(np.sqrt(weight[0].size * np.mean(np.square(weight)) * (hi - lo) ** 2 / 12)))

    def quantized(
        self,
        source: str,
        out: int,
        name: str,
        kernel: tuple[int, int] = (3, 3),
        bits: int = 8,
        weight_bits: int = 8,
        signed: bool = True,
        slope: int | None = None,
        rounding: str = "half_even",
    ) -> str:
        """conv and a Requant behind it; slope: PReLU with slope/16 of the positive multiplier."""
        acc = self.conv(source, out, name, kernel, weight_bits)
        weight = self.build.nodes[-1].params["weight"]
        multiplier, shift = random_requant(self.rng, 2.5 * self.spread(source, weight), bits, out)
        negative = None if slope is None else multiplier * slope // 16
        return self.build.requant(acc, multiplier, shift, bits, signed, f"{name}_q", rounding, negative)

    def halved_add(self, a: str, b: str, name: str, bits: int = 8, signed: bool = True) -> str:
        """(a + b) / 2, rounded half to even: every odd sum is a tie."""
        total = self.build.add(a, b, name)
        return self.build.requant(total, np.array([1]), np.array([1]), bits, signed, f"{name}_q")


def zoo(seed: int = 1) -> IntGraph:
    """Nine-bit recentred image, 1x1, 1x5 and 5x5 kernels, PReLU, ReLU, ties, a clipped range, concat, global skip,
    an inner CRD shuffle that cannot be reordered (its source forks), a DCR shuffle, four-bit layers, and an output CRD
    shuffle.
    """
    net = Net(seed)
    b = net.build
    x = b.offset("image", np.array([-114, -111, -103]), 9, "recentred")
    head = net.quantized(x, 8, "head", kernel=(5, 5))
    y = net.quantized(head, 8, "prelu", kernel=(1, 1), slope=3)
    y = net.quantized(y, 8, "relu", kernel=(1, 5), signed=False)
    y = net.halved_add(net.quantized(y, 8, "tied"), head, "skip")
    z = net.quantized(y, 8, "narrow", kernel=(3, 1))
    clipped = b.nodes[-1]  # an output range inside the type: levels below are always reached, above never
    b.nodes[-1] = Node(
        clipped.op,
        clipped.name,
        clipped.inputs,
        clipped.output,
        {**clipped.attrs, "lo": -100, "hi": 90},
        clipped.params,
    )
    both = b.add_node(Node("Concat", "both", (y, z), "both"), 16, 8, True, 1)
    wide = net.quantized(both, 16, "wide", bits=4, weight_bits=4)
    again = net.quantized(wide, 16, "again", kernel=(1, 1), bits=4, weight_bits=4)
    forked = net.halved_add(wide, again, "forked", bits=4)
    y = b.depth_to_space(forked, 2, "inner_crd")
    y = net.halved_add(b.depth_to_space(forked, 2, "inner_dcr", "DCR"), y, "met", bits=4)
    y = net.quantized(y, 12, "last", bits=8, signed=False, rounding="half_up")
    return b.finish(b.depth_to_space(y, 2, "shuffle"), "zoo")


def misfits(seed: int = 3) -> IntGraph:
    """What FINN has no RTL for: a zero point inside, groups, depthwise, 3-bit activations, a slice, x + x, an Add of
    other scales, a sum that two nodes read, a falling slope, nine bits, nearest and bicubic upsampling, and sums of a
    17x17 kernel that float32 does not hold.
    """
    net = Net(seed)
    b = net.build

    def grouped(source: str, out: int, name: str, groups: int, zero_point: int = 0) -> str:
        channels = b.tensors[source].channels // groups
        acc = b.conv(
            source, net.rng.integers(-7, 8, (out, channels, 3, 3)), net.rng.integers(-99, 99, out), name, groups
        )
        multiplier, shift = random_requant(net.rng, 600 * channels, 8, out)
        made = b.requant(acc, multiplier, shift, 8, zero_point > 0, f"{name}_q")
        if zero_point:
            node, tensor = b.nodes[-1], b.tensors[made]
            b.nodes[-1] = replace(node, attrs={**node.attrs, "zero_point": zero_point})
            b.tensors[made] = replace(tensor, zero_point=zero_point)
        return made

    head = net.quantized("image", 8, "head")
    shifted = grouped(head, 8, "grouped", 2, zero_point=5)
    y = net.quantized(grouped(shifted, 8, "depthwise", 8), 8, "dense")
    y = net.halved_add(y, y, "doubled")
    part = b.add_node(Node("Slice", "part", (y,), "part", {"start": 2, "stop": 6}), 4, 8, True, 1)
    few = net.quantized(part, 8, "few", bits=3, signed=False)
    low = net.quantized(few, 8, "low")
    total = b.add(low, head, "weighted", (3, 2))
    falls = b.requant(total, np.array([3]), np.array([4]), 8, True, "falls", "half_up", np.array([-1]))
    raised = b.requant(total, np.array([1]), np.array([1]), 9, True, "nine")
    y = b.requant(b.add(falls, raised, "met"), np.array([1]), np.array([2]), 8, True, "met_q")
    acc = b.conv(y, np.full((12, 8, 17, 17), 117), net.rng.integers(-9000, 9000, 12), "huge")
    y = b.requant(acc, np.arange(20001, 20013), np.full(12, 33), 8, False, "huge_q")
    y = b.depth_to_space(y, 2, "shuffle")
    near = b.add_node(Node("ResizeNearest", "near", ("image",), "near", {"factor": 2}), 3, 8, False, 2)
    taps, denominator = filter_taps("bicubic", 2)
    smooth = Node(
        "ResizeFilter", "smooth", ("image",), "smooth", {"factor": 2, "denominator": denominator}, {"taps": taps}
    )
    smooth_q = b.requant(b.add_node(smooth, 3, 32, True, 2), np.array([1]), np.array([14]), 8, False, "smooth_q")
    near = b.requant(b.add(near, smooth_q, "skip"), np.array([1]), np.array([1]), 8, False, "skip_q")
    y = b.requant(b.add(y, near, "sum"), np.array([1]), np.array([1]), 8, False, "sum_q")
    return b.finish(y, "misfits")


def tied_pow2() -> IntGraph:
    """Power-of-two scales without bias: exact ties are common; signed output, biased so that it leaves its middle."""
    net = Net(2)
    acc = net.conv("image", 6, "first", bits=4)
    y = net.build.requant(acc, np.array([1]), np.array([7]), 4, False, "first_q")
    acc = net.conv(y, 3, "second", bits=4)
    y = net.build.requant(acc, np.array([1]), np.array([3]), 8, True, "second_q")
    return net.build.finish(y, "tied_pow2")
