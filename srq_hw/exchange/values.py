"""What a tensor of a QONNX file means while it is lowered: constant, quantized integers, or accumulator."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from srq_hw.errors import InputError
from srq_hw.fixedpoint import ROUNDINGS, int_range, round_real
from srq_hw.graph.ir import Int, Node, Tensor
from srq_hw.quantize.requant import significant

Real = npt.NDArray[np.float64]

#: widest integer a Quant node may make
WIDEST = 32

#: rounding_mode of a Quant node -> our rule (qonnx also accepts HALF_EVEN for ROUND)
ROUNDING_MODES = {rule.qonnx: name for name, rule in ROUNDINGS.items() if rule.qonnx} | {"HALF_EVEN": "half_even"}


@dataclass(frozen=True, eq=False)
class Const:
    """A constant; quantized: its integers, step (broadcastable) and width where a Quant node made it."""

    array: Real
    integers: Int | None = None
    step: Real | None = None
    bits: int | None = None


@dataclass(frozen=True)
class ImageInput:
    """The graph input before its quantizer."""

    channels: int


@dataclass(frozen=True)
class Quantized:
    """Integers of IntGraph tensor ``tensor``; real value = (q - zero point) * scale."""

    tensor: str
    scale: float


@dataclass(frozen=True, eq=False)
class Accumulator:
    """Exact integers of ``tensor`` with real step lsb, (1,) or (C,); what must still happen before a quantizer.

    relu: clamp at 0; limit: upper limit of a clipped ReLU, real; slope: PReLU; half: a constant waiting for a FLOOR
    quantizer (half_up); shuffle: the pixel shuffle by this factor (PyTorch's order) that follows the quantizer: lsb and
    slope then count the channels in front of it.
    """

    tensor: str
    lsb: Real
    relu: bool = False
    slope: Real | None = None
    half: float | None = None
    limit: float | None = None
    shuffle: int = 1

    def spread(self, values: Real) -> Real:
        """Per-channel constants (1,) or (C,) on the channels in front of the shuffle."""
        return values if values.size == 1 else np.repeat(values, self.shuffle**2)

    @property
    def activated(self) -> bool:
        """True once an activation was applied: nothing linear may follow."""
        return self.relu or self.slope is not None


@dataclass(frozen=True)
class EdgePadded:
    """A quantized tensor with its edge pixels repeated ``radius`` times: half of a filter."""

    source: Quantized
    radius: int


@dataclass(frozen=True)
class FilterPhases:
    """The phases of a filter of `graph.taps` as channels; a DepthToSpace must follow."""

    source: Quantized
    kernel: str
    factor: int


Value = Const | ImageInput | Quantized | Accumulator | EdgePadded | FilterPhases


class Lowering:
    """The state of one lowering: values by QONNX tensor name, and the IntGraph built so far."""

    def __init__(self, model: onnx.ModelProto, source: str) -> None:
        self.source = source
        self.graph = model.graph
        self.values: dict[str, Value] = {
            item.name: Const(numpy_helper.to_array(item).astype(np.float64)) for item in model.graph.initializer
        }
        self.nodes: list[Node] = []
        self.tensors: dict[str, Tensor] = {}
        self.image_scale = 1.0
        self.image_name = ""

    # --- errors ---------------------------------------------------------------------------------------------------

    def error(self, node: onnx.NodeProto, why: str, remedy: str) -> InputError:
        """An InputError that names file, node, reason and remedy."""
        return InputError(f"{self.source}, node {node.name or node.output[0]} ({node.op_type}): {why}. {remedy}")

    # --- reading --------------------------------------------------------------------------------------------------

    def value(self, node: onnx.NodeProto, index: int) -> Value:
        """Value of an input."""
        name = node.input[index] if index < len(node.input) else ""
        if name not in self.values:
            raise self.error(node, f"reads {name!r}, which nothing makes", "Check the file with onnx.checker.")
        return self.values[name]

    def const(self, node: onnx.NodeProto, index: int, what: str) -> Const:
        """A constant input, or an error that says what it should be."""
        if index >= len(node.input) or not node.input[index]:
            raise self.error(node, f"{what} is missing (input {index})", "Check the file with onnx.checker.")
        value = self.value(node, index)
        if not isinstance(value, Const):
            raise self.error(node, f"{what} is computed, not a constant", "Fold constants before export.")
        return value

    def readers(self, tensor: str) -> list[onnx.NodeProto]:
        """Nodes that read a QONNX tensor."""
        return [node for node in self.graph.node if tensor in node.input]

    # --- building -------------------------------------------------------------------------------------------------

    def emit(self, node: Node, tensor: Tensor) -> str:
        """Append a node and its output."""
        self.nodes.append(node)
        self.tensors[node.output] = tensor
        return node.output

    def conv_behind(self, acc: Accumulator) -> int | None:
        """Index of the Conv that makes the accumulator, if it may still be changed (nothing else reads it)."""
        for index, node in enumerate(self.nodes):
            if node.output == acc.tensor and node.op == "Conv":
                return index if self._read_once(acc.tensor) else None
        return None

    def _read_once(self, tensor: str) -> bool:
        """Whether every value from the accumulator to here has one reader: no branch sees it unchanged."""
        names = [name for name, v in self.values.items() if isinstance(v, Accumulator) and v.tensor == tensor]
        branched = any(len(self.readers(name)) > 1 for name in names)
        return not branched and not any(tensor in other.inputs for other in self.nodes)

    def add_bias(self, acc: Accumulator, real: Real) -> bool:
        """Put a real per-channel constant into the convolution's bias; False where there is no such convolution."""
        index = self.conv_behind(acc)
        if index is None or acc.activated:
            return False
        node = self.nodes[index]
        bias = node.params["bias"] + significant(acc.spread(real) / acc.lsb)
        self.nodes[index] = replace(node, params={**node.params, "bias": bias})
        return True

    def flip_channels(self, acc: Accumulator, negative: npt.NDArray[np.bool_]) -> bool:
        """Negate weights and bias of some output channels (a negative factor behind a convolution)."""
        index = self.conv_behind(acc)
        if index is None or acc.activated:
            return False
        node = self.nodes[index]
        sign = np.where(np.broadcast_to(negative, node.params["bias"].shape), -1, 1)
        params = {"weight": node.params["weight"] * sign[:, None, None, None], "bias": node.params["bias"] * sign}
        self.nodes[index] = replace(node, params={**node.params, **params})
        return True


def quantized(state: Lowering, node: onnx.NodeProto, index: int) -> Quantized:
    """An input that must be quantized integers."""
    value = state.value(node, index)
    if isinstance(value, Quantized):
        return value
    reason = {
        Accumulator: "reads a convolution, a filter or a sum that is not quantized",
        ImageInput: "reads the image before any quantizer",
        Const: "works on a constant only",
        EdgePadded: "reads an edge padding, which only an upsampling filter may",
        FilterPhases: "reads the phases of an upsampling filter, which only DepthToSpace may",
    }[type(value)]
    raise state.error(node, reason, "Put a Quant node in front of it.")


def per_channel(state: Lowering, node: onnx.NodeProto, values: Real) -> Real:
    """A constant beside a feature map as (1,) or (C,). ONNX aligns axes from the right: (C, 1, 1), not (C,)."""
    if values.size > 1 and (values.ndim < 3 or values.shape[-3] != values.size):
        raise state.error(
            node, f"a constant of shape {values.shape} varies over the image", "One number or (C, 1, 1) is possible."
        )
    return values.reshape(-1)


def bit_width(state: Lowering, node: onnx.NodeProto, values: Real) -> int:
    """Bit width of a Quant node: one whole number."""
    flat = values.reshape(-1)
    if flat.size != 1 or flat[0] != np.rint(flat[0]) or not 1 <= flat[0] <= WIDEST:
        raise state.error(node, f"bit width {flat[:4].tolist()}", f"One whole number from 1 to {WIDEST} is possible.")
    return int(flat[0])


def attributes(node: onnx.NodeProto) -> dict[str, Any]:
    """Attributes as Python values, bytes as text."""
    found = {item.name: onnx.helper.get_attribute_value(item) for item in node.attribute}
    return {key: value.decode() if isinstance(value, bytes) else value for key, value in found.items()}


def quantize_const(state: Lowering, node: onnx.NodeProto, value: Const) -> Const:
    """Quant on a constant: integers, step and the real values they stand for."""
    settings = attributes(node)
    step, zero, bits = (state.const(node, i, w).array for i, w in ((1, "scale"), (2, "zero point"), (3, "bit width")))
    if zero.any():
        raise state.error(node, "constant with a zero point", "Quantize weights symmetrically.")
    if not (np.isfinite(step).all() and (step > 0).all()):
        raise state.error(node, "a scale that is not positive and finite", "Every scale must be above 0.")
    width = bit_width(state, node, bits)
    lo, hi = int_range(width, bool(settings.get("signed", 1)), bool(settings.get("narrow", 0)))
    integers = np.clip(round_real(value.array / step, rounding_of(state, node)), lo, hi).astype(np.int64)
    return Const(integers * step, integers, step, width)


def rounding_of(state: Lowering, node: onnx.NodeProto) -> str:
    """Our name of a Quant node's rounding_mode."""
    mode = str(attributes(node).get("rounding_mode", "ROUND")).upper()
    if mode not in ROUNDING_MODES:
        known = ", ".join(sorted(ROUNDING_MODES))
        raise state.error(node, f"rounding_mode {mode!r} is not supported", f"Use one of {known}.")
    return ROUNDING_MODES[mode]
