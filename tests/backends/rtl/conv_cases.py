"""Convolutions to bench srq_conv and srq_conv_load with, and what the graph's definition of Conv says of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from srq_hw.backends.rtl.memories import conv_bias, conv_weights
from srq_hw.graph.ir import Node, Tensor
from srq_hw.graph.ops import OPS
from tests.backends.rtl.bench import IntArray, Port

FRAMES = 3
BIAS_BITS, ACC_BITS = 24, 26
BIAS_FILE = "bias.hex"

#: channel groups of a case, else 1; as many as channels: depthwise
GROUPS = {
    "3x3_two_groups": 2,
    "1x1_three_groups": 3,
    "3x3_depthwise": 6,
    "edge_5x3_two_groups": 2,
    "edge_3x3_depthwise": 4,
}
#: name: (height, width, in, out, KH, KW, PE, SIMD, weight bits, activation bits, signed, zero point); repeated edge
#: pixels where the name says so
CASES = {
    "3x3_int8": (5, 7, 4, 6, 3, 3, 3, 2, 8, 8, True, 0),
    "3x3_uint8_zero_point": (4, 6, 3, 4, 3, 3, 4, 3, 8, 8, False, 131),
    "3x3_int4": (4, 5, 4, 8, 3, 3, 8, 2, 4, 4, False, 3),
    "3x3_int2": (4, 5, 2, 4, 3, 3, 2, 2, 2, 2, False, 0),
    "5x3_int4x8": (6, 4, 2, 3, 5, 3, 3, 1, 4, 8, True, -5),
    "1x1": (3, 5, 6, 4, 1, 1, 4, 3, 8, 8, True, 0),
    "1x1_one_beat": (3, 5, 3, 2, 1, 1, 2, 3, 8, 8, False, 0),
    "1x1_repeat": (3, 5, 4, 6, 1, 1, 2, 4, 8, 8, True, 0),
    "3x3_two_groups": (4, 5, 4, 8, 3, 3, 2, 1, 8, 8, False, 9),
    "1x1_three_groups": (3, 4, 6, 3, 1, 1, 1, 2, 4, 8, True, 0),
    "3x3_depthwise": (5, 4, 6, 6, 3, 3, 3, 3, 8, 8, True, -4),
    "edge_3x3": (5, 6, 3, 12, 3, 3, 4, 3, 8, 8, False, 131),
    "edge_5x3_two_groups": (3, 4, 4, 8, 5, 3, 2, 1, 8, 8, True, -9),
    "edge_3x3_depthwise": (5, 4, 4, 4, 3, 3, 2, 2, 8, 8, True, 7),
}


@dataclass(frozen=True)
class ConvCase:
    """A line of CASES."""

    height: int
    width: int
    inside: int
    out: int
    kh: int
    kw: int
    pe: int
    simd: int
    w_bits: int
    a_bits: int
    signed: bool
    zero_point: int
    groups: int
    edge: bool

    @staticmethod
    def of(name: str) -> ConvCase:
        return ConvCase(*CASES[name], GROUPS.get(name, 1), name.startswith("edge"))

    @property
    def depthwise(self) -> bool:
        return self.groups == self.inside

    @property
    def s(self) -> Port:
        return Port("s", self.simd, self.a_bits, self.signed)

    @property
    def m(self) -> Port:
        return Port("m", self.pe, ACC_BITS, True)

    @property
    def word(self) -> int:
        """Bits of a word of weights."""
        return self.pe * (1 if self.depthwise else self.simd) * self.w_bits

    @property
    def cycles(self) -> int:
        """Per frame, without stalls."""
        inputs = 1 if self.depthwise else self.inside // self.groups // self.simd
        return self.height * self.width * (self.out // self.pe) * self.kh * self.kw * inputs

    @property
    def fill(self) -> int:
        """Beats that the first window needs."""
        return (self.kh // 2 * self.width + self.kw // 2 + 1) * (self.inside // self.simd)

    @property
    def parameters(self) -> dict[str, int | str]:
        """Of the module, except where its weights come from."""
        return {
            "HEIGHT": self.height,
            "WIDTH": self.width,
            "CHANNELS_IN": self.inside,
            "CHANNELS_OUT": self.out,
            "KH": self.kh,
            "KW": self.kw,
            "GROUPS": self.groups,
            "DEPTHWISE": int(self.depthwise),
            "PE": self.pe,
            "SIMD": self.simd,
            "W_BITS": self.w_bits,
            "A_BITS": self.a_bits,
            "A_SIGNED": int(self.signed),
            "ZERO_POINT": self.zero_point,
            "EDGE": int(self.edge),
            "BIAS_BITS": BIAS_BITS,
            "ACC_BITS": ACC_BITS,
            "BIAS_FILE": BIAS_FILE,
        }

    def weight(self, random: np.random.Generator) -> IntArray:
        """(O, I / groups, KH, KW), those of the first and the last output as low and as high as can be."""
        ends = -(1 << (self.w_bits - 1)), (1 << (self.w_bits - 1)) - 1
        weight = random.integers(*ends, (self.out, self.inside // self.groups, self.kh, self.kw), endpoint=True)
        weight[0], weight[-1] = ends
        return weight

    def bias(self, random: np.random.Generator) -> IntArray:
        """(O,)."""
        return random.integers(-(1 << 18), 1 << 18, self.out)

    def images(self, random: np.random.Generator) -> IntArray:
        """(FRAMES, H, W, C), the second frame of rows as low and as high as can be."""
        lo, hi = self.s.limits
        images = random.integers(lo, hi, (FRAMES, self.height, self.width, self.inside), endpoint=True)
        images[1] = lo
        images[1, ::2] = hi
        return images

    def words(self, weight: IntArray) -> str:
        """The memory of the weights."""
        return conv_weights(weight, self.pe, self.simd, self.w_bits, self.depthwise)

    def bias_memory(self, bias: IntArray, weight: IntArray) -> dict[str, str]:
        """BIAS_FILE, the zero point's part in it."""
        return {BIAS_FILE: conv_bias(bias - self.zero_point * weight.sum((1, 2, 3)), self.pe, BIAS_BITS)}

    def expected(self, images: IntArray, weight: IntArray, bias: IntArray) -> IntArray:
        """Conv as the graph defines it; edge: of the image enlarged by its edge pixels, cut to the image's size."""
        node = Node("Conv", "conv", ("x",), "y", {"groups": self.groups}, {"weight": weight, "bias": bias})
        tensor = Tensor("x", self.inside, self.a_bits, self.signed, zero_point=self.zero_point)
        if not self.edge:
            return OPS["Conv"].execute(node, (tensor,), [images])
        rows, columns = self.kh // 2, self.kw // 2
        wide = np.pad(images, ((0, 0), (rows, rows), (columns, columns), (0, 0)), mode="edge")
        found = OPS["Conv"].execute(node, (tensor,), [wide])
        return found[:, rows : rows + self.height, columns : columns + self.width]
