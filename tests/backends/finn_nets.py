"""Small random IntGraphs that hold every operation and every trap the FINN back end has to survive."""

from __future__ import annotations

import numpy as np

from srq_hw.graph.ir import IntGraph, Node
from srq_hw.graph.synthetic import GraphBuilder, random_requant


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


def tied_pow2() -> IntGraph:
    """Power-of-two scales without bias: exact ties are common; signed output, biased so that it leaves its middle."""
    net = Net(2)
    acc = net.conv("image", 6, "first", bits=4)
    y = net.build.requant(acc, np.array([1]), np.array([7]), 4, False, "first_q")
    acc = net.conv(y, 3, "second", bits=4)
    y = net.build.requant(acc, np.array([1]), np.array([3]), 8, True, "second_q")
    return net.build.finish(y, "tied_pow2")
