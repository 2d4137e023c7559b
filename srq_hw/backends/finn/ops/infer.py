"""For FINN users: FINN's layers that exist in HLS only become ours, and ours are folded. Runs in a FINN process."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
from finn.transformation.fpgadataflow.specialize_layers import _determine_impl_style
from finn.util.basic import get_dsp_block
from qonnx.core.datatype import DataType
from qonnx.custom_op.registry import getCustomOp
from qonnx.transformation.base import Transformation
from qonnx.transformation.general import GiveUniqueNodeNames
from qonnx.transformation.infer_datatypes import InferDataTypes

import srq_hw.backends.finn.ops.rtl  # noqa: F401  (registers the operations)
from srq_hw.backends.finn.ops.lanes import node_lanes, set_lanes
from srq_hw.backends.finn.ops.nodes import (
    DOMAIN,
    DUPLICATE,
    base_type,
    encode,
    encode_duplicate,
    image_size,
    is_srq,
    node_graph,
    parse_type,
)
from srq_hw.backends.finn.ops.streamline import step_srq_integer_ends, step_srq_streamline
from srq_hw.backends.rtl.folding import Goal, Lanes, divisors, fold
from srq_hw.backends.rtl.netlist import PORTS, Fabric
from srq_hw.errors import InputError
from srq_hw.fixedpoint import bits_for
from srq_hw.graph.ir import Attr, Int, Node, Tensor
from srq_hw.graph.ops import OPS

__all__ = [
    "ReplaceHlsLayers",
    "SetSrqFolding",
    "step_srq_all_rtl",
    "step_srq_folding",
    "step_srq_integer_ends",
    "step_srq_streamline",
]

#: what a rule makes of a node: the nodes in its place; nothing where it does not apply
Made = list[onnx.NodeProto]


class ReplaceHlsLayers(Transformation):
    """DuplicateStreams, StreamingConcat, StreamingSplit, ElementwiseAdd, UpsampleNearestNeighbour and a Shuffle that is
    a pixel shuffle, on integer images (1, H, W, C), become operations of this package. Other nodes stay as they are.

    Apply after FINN's `step_convert_to_hw` and before its `step_specialize_layers`.
    """

    def apply(self, model: Any) -> tuple[Any, bool]:
        """Replace every node that a rule takes; the model is changed in place."""
        graph = model.graph
        changed = False
        for node in list(graph.node):
            rule = _RULES.get(node.op_type) if node.domain == DOMAIN else None
            streams = [name for name in node.input if model.get_initializer(name) is None]
            if rule is None or not all(_is_image(model, name) for name in [*streams, *node.output]):
                continue
            made = rule(model, node, streams)
            if not made:
                continue
            place = list(graph.node).index(node)
            graph.node.remove(node)
            for index, new in enumerate(made):
                graph.node.insert(place + index, new)
            changed = True
        if changed:
            model = model.transform(GiveUniqueNodeNames()).transform(InferDataTypes())
        return model, False


class SetSrqFolding(Transformation):
    """PE and SIMD of the operations of this package: the fewest that take no more than `cycles` per frame.

    fpgapart decides what multipliers the lanes share. FINN's own SetFolding leaves these nodes alone.
    """

    def __init__(self, cycles: int, fpgapart: str) -> None:
        super().__init__()
        self.cycles, self.port = cycles, PORTS[get_dsp_block(fpgapart)]

    def apply(self, model: Any) -> tuple[Any, bool]:
        """Set every node's attributes."""
        for node in model.graph.node:
            if is_srq(node):
                set_lanes(node, self._lanes(node))
        return model, False

    def _lanes(self, node: onnx.NodeProto) -> Lanes:
        if base_type(node) == DUPLICATE:
            height, width = image_size(node)
            channels = getCustomOp(node).get_nodeattr("Channels")[0]
            found = [pe for pe in divisors(channels) if height * width * channels // pe <= self.cycles]
            pe = found[0] if found else channels
            return Lanes((pe,), pe, height * width * channels // pe)
        graph = node_graph(node)
        goal = Goal(image_size(node), self.cycles, Fabric(self.port))
        return fold(graph, goal).nodes[graph.nodes[0].name]


def step_srq_all_rtl(model: Any, cfg: Any) -> Any:
    """Build step between FINN's step_convert_to_hw and step_specialize_layers: replaces what FINN has in HLS only.

    InputError names the nodes that FINN would still specialise to HLS.
    """
    model = model.transform(ReplaceHlsLayers())
    part = cfg._resolve_fpga_part()
    left = []
    for node in model.graph.node:
        if node.domain != DOMAIN:
            continue
        if node.op_type == "Shuffle" or _determine_impl_style(node, part, model) == "hls":
            left.append(f"{node.name} ({node.op_type}: {_why(model, node)})")
    if left:
        raise InputError(
            f"FINN: {len(left)} nodes have no RTL on {part}: {', '.join(left)}. Allowed: integer images (1, H, W, C). "
            "Or apply srq_hw.backends.finn.ops.ReplaceHlsLayers alone and let FINN take HLS for the rest."
        )
    return model


def step_srq_folding(model: Any, cfg: Any) -> Any:
    """Build step behind FINN's step_target_fps_parallelization: the same rate for the operations of this package.

    A node of FINN's own that is slower than the rate decides: nothing is made faster than that.
    """
    cycles = cfg._resolve_cycles_per_frame()
    if cycles is None:
        return model
    others = [node for node in model.graph.node if node.domain.startswith(DOMAIN) and not is_srq(node)]
    slowest = max((int(getCustomOp(node).get_exp_cycles()) for node in others), default=0)
    model = model.transform(SetSrqFolding(max(int(cycles), slowest), cfg._resolve_fpga_part()))
    for node in model.graph.node:
        if is_srq(node):
            getCustomOp(node).set_nodeattr("cycles_estimate", node_lanes(node).cycles)
    return model


# --- rules --------------------------------------------------------------------------------------------------------


def _is_image(model: Any, name: str) -> bool:
    shape = model.get_tensor_shape(name)
    kind = model.get_tensor_datatype(name)
    whole = kind.is_integer() and kind.name not in ("BIPOLAR", "TERNARY")
    return shape is not None and len(shape) == 4 and shape[0] == 1 and whole


def _why(model: Any, node: onnx.NodeProto) -> str:
    for name in [*node.input, *node.output]:
        if model.get_initializer(name) is None and not _is_image(model, name):
            return f"{name} is {model.get_tensor_datatype(name).name} {model.get_tensor_shape(name)}"
    return "no operation of ours does the same"


def _tensor(model: Any, name: str, upscale: int = 1) -> Tensor:
    bits, signed = parse_type(model.get_tensor_datatype(name).name)
    return Tensor(name, model.get_tensor_shape(name)[-1], bits, signed, upscale)


def _made(
    model: Any,
    op: str,
    sources: list[str],
    out: Tensor,
    attrs: dict[str, Attr] | None = None,
    params: dict[str, Int] | None = None,
) -> Made:
    """One operation; its output's type is written into the model."""
    ins = [_tensor(model, name) for name in sources]
    node = Node(op, out.name, tuple(sources), out.name, attrs or {}, params or {})
    if OPS[op].problems(node, ins):
        return []
    _, height, width, _ = model.get_tensor_shape(sources[0])
    model.set_tensor_datatype(out.name, DataType[out.dtype])
    reach = [tensor.range for tensor in ins]
    return [encode(node, ins, out, reach, (height, width), sources, out.name, f"Srq_{out.name}")]


def _fork(model: Any, source: str, outputs: list[str]) -> onnx.NodeProto:
    tensor = _tensor(model, source)
    _, height, width, _ = model.get_tensor_shape(source)
    return encode_duplicate(tensor, tensor.range, (height, width), source, outputs, f"Srq_{source}_fork")


def _duplicate(model: Any, node: onnx.NodeProto, streams: list[str]) -> Made:
    return [_fork(model, node.input[0], list(node.output))] if len(node.output) > 1 else []


def _concat(model: Any, node: onnx.NodeProto, streams: list[str]) -> Made:
    if len(streams) < 2 or len({model.get_tensor_datatype(name) for name in streams}) != 1:
        return []
    first = _tensor(model, streams[0])
    channels = model.get_tensor_shape(node.output[0])[-1]
    return _made(model, "Concat", streams, Tensor(node.output[0], channels, first.bits, first.signed))


def _split(model: Any, node: onnx.NodeProto, streams: list[str]) -> Made:
    """A copy for each piece, and its channels out of it."""
    source = _tensor(model, streams[0])
    if len(node.output) < 2:
        return []
    shape = model.get_tensor_shape(source.name)
    copies = []
    for name in node.output:
        copies.append(f"{name}_whole")
        model.set_tensor_shape(copies[-1], shape)
        model.set_tensor_datatype(copies[-1], DataType[source.dtype])
    made = [_fork(model, source.name, copies)]
    start = 0
    for copy, name in zip(copies, node.output, strict=True):
        stop = start + model.get_tensor_shape(name)[-1]
        out = Tensor(name, stop - start, source.bits, source.signed)
        made += _made(model, "Slice", [copy], out, {"start": start, "stop": stop})
        start = stop
    return made


def _add(model: Any, node: onnx.NodeProto, streams: list[str]) -> Made:
    """Two streams, or a stream and one integer for each channel."""
    channels = model.get_tensor_shape(node.output[0])[-1]
    ins = [_tensor(model, name) for name in streams]
    lo, hi = (sum(tensor.range[end] for tensor in ins) for end in (0, 1))
    if len(streams) == 2:
        if model.get_tensor_shape(streams[0]) != model.get_tensor_shape(streams[1]) or streams[0] == streams[1]:
            return []
        return _made(model, "Add", streams, _summed(node.output[0], channels, lo, hi), {"multipliers": (1, 1)})
    constant = next(model.get_initializer(name) for name in node.input if name not in streams)
    offset = np.rint(constant).astype(np.int64)
    per_channel = offset.size == channels and offset.shape[-1] == channels
    if (offset != constant).any() or not (per_channel or offset.size == 1):
        return []
    offset = np.broadcast_to(offset.reshape(-1), (channels,)).copy()
    out = _summed(node.output[0], channels, lo + int(offset.min()), hi + int(offset.max()))
    return _made(model, "Offset", streams, out, params={"offset": offset})


def _summed(name: str, channels: int, lo: int, hi: int) -> Tensor:
    return Tensor(name, channels, bits_for(lo, hi, signed=True), True)


def _repeat(model: Any, node: onnx.NodeProto, streams: list[str]) -> Made:
    _, height, width, _ = model.get_tensor_shape(streams[0])
    _, high, wide, channels = model.get_tensor_shape(node.output[0])
    factor = high // height
    if factor < 2 or (high, wide) != (height * factor, width * factor):
        return []
    source = _tensor(model, streams[0])
    out = Tensor(node.output[0], channels, source.bits, source.signed, factor)
    return _made(model, "ResizeNearest", streams, out, {"factor": factor})


def _shuffle(model: Any, node: onnx.NodeProto, streams: list[str]) -> Made:
    """Recognised by what it does to a numbered image."""
    _, height, width, _ = shape = tuple(model.get_tensor_shape(streams[0]))
    _, high, _, channels = target = tuple(model.get_tensor_shape(node.output[0]))
    block = high // height
    if block < 2 or target != (1, height * block, width * block, shape[3] // block**2):
        return []
    op = getCustomOp(node)
    numbers = np.arange(int(np.prod(shape)), dtype=np.int64)
    moved = numbers.reshape(op.get_nodeattr("transpose_in_shape")).transpose(op.get_nodeattr("perm")).reshape(target)
    source = _tensor(model, streams[0])
    for mode in ("DCR", "CRD"):
        own = Node("DepthToSpace", "", ("in",), "out", {"block": block, "mode": mode})
        if (OPS["DepthToSpace"].execute(own, [source], [numbers.reshape(shape)]) == moved).all():
            out = Tensor(node.output[0], channels, source.bits, source.signed, block)
            return _made(model, "DepthToSpace", streams, out, {"block": block, "mode": mode})
    return []


_RULES: dict[str, Callable[[Any, onnx.NodeProto, list[str]], Made]] = {
    "DuplicateStreams": _duplicate,
    "StreamingConcat": _concat,
    "StreamingSplit": _split,
    "ElementwiseAdd": _add,
    "UpsampleNearestNeighbour": _repeat,
    "Shuffle": _shuffle,
}
