"""FINN's own figures of every node of a folded graph, and the memory that FINN leaves out (runs inside the worker)."""

from __future__ import annotations

from typing import Any

import numpy as np

from srq_hw.backends.finn.estimate import Device, NodeFigures, converter_luts
from srq_hw.backends.finn.memory import rom_luts, threshold_memory


def figures(model: Any, device: Device) -> list[NodeFigures]:
    """One row per node, in graph order."""
    fifos = _join_fifos(model, device)
    return [node_figures(model, node, device, fifos.get(node.name, {})) for node in model.graph.node]


def node_figures(model: Any, node: Any, device: Device, fifo: dict[str, int] | None = None) -> NodeFigures:
    """The row of one node as it is folded now. fifo: what its early side waits in."""
    from qonnx.custom_op.registry import getCustomOp

    op = getCustomOp(node)
    attributes = {item.name for item in node.attribute}
    matrix = node.op_type.startswith("MVAU")
    weights = model.get_initializer(node.input[1]) if matrix else None
    weight_bits = op.get_input_datatype(1).bitwidth() if matrix else 0
    raw = {
        "LUT": op.lut_estimation(device.part),
        "DSP": op.dsp_estimation(device.part),
        "BRAM_18K": op.bram_estimation(device.part),
        "URAM": op.uram_estimation(device.part),
    }
    return NodeFigures(
        name=node.name,
        op=node.op_type,
        cycles=int(op.get_exp_cycles()),
        pe=int(op.get_nodeattr("PE")) if "PE" in attributes else 1,
        simd=int(op.get_nodeattr("SIMD")) if "SIMD" in attributes else 1,
        input_bits=op.get_input_datatype(0).bitwidth(),
        weight_bits=weight_bits,
        narrow_weights=weights is not None and float(np.min(weights)) > -(2.0 ** (weight_bits - 1)),
        buffer_bits=_shuffle_buffer(node.op_type, op),
        converters=_converters(model, node, op),
        raw={key: round(float(value)) for key, value in raw.items()},
        memory=_memory(node.op_type, op),
        fifo=fifo or {},
    )


def _memory(op_type: str, op: Any) -> dict[str, int]:
    """What parameter memory takes where FINN has no figure for it, or not one of what its RTL does."""
    if op_type == "Thresholding_rtl" and op.get_nodeattr("depth_trigger_bram"):
        pe, stages = int(op.get_nodeattr("PE")), op.get_output_datatype().bitwidth()
        folds = int(op.get_nodeattr("NumChannels")) // pe
        width = op.get_input_datatype(1).bitwidth()
        return threshold_memory(folds, stages, width, pe, int(op.get_nodeattr("depth_trigger_bram")))
    distributed = op_type == "MVAU_rtl" and op.get_nodeattr("ram_style") == "distributed"
    if distributed and op.get_nodeattr("mem_mode") == "internal_decoupled":
        return {"LUT": rom_luts(int(op.calc_wmem()), op.get_instream_width(1))}
    return {}


def _converters(model: Any, node: Any, op: Any) -> int:
    """LUTs of the converters to consumers that read the node's stream at another width."""
    from qonnx.custom_op.registry import getCustomOp

    luts = 0
    for index, name in enumerate(node.output):
        for reader in model.find_consumers(name) or []:
            port = list(reader.input).index(name)
            luts += converter_luts(op.get_outstream_width(index), getCustomOp(reader).get_instream_width(port))
    return luts


def _shuffle_buffer(op_type: str, op: Any) -> int:
    """Bits a shuffle holds: everything inside the outermost axis that moves, rounded up to a power of two of words."""
    shape = [int(size) for size in op.get_nodeattr("transpose_in_shape")] if "Shuffle" in op_type else []
    bits = op.get_input_datatype(0).bitwidth() if shape else 0
    if op_type.startswith("InnerShuffle"):
        return 2 * shape[-2] * shape[-1] * bits
    if op_type.startswith("OuterShuffle"):
        permutation = list(op.get_nodeattr("perm"))
        first = next(axis for axis, source in enumerate(permutation) if axis != source)
        simd = int(op.get_nodeattr("SIMD"))
        words = int(np.prod(shape[first:])) // simd
        return int(1 << (words - 1).bit_length()) * simd * bits
    return 0


def _join_fifos(model: Any, device: Device) -> dict[str, dict[str, int]]:
    """LUT, BRAM_18K and URAM of the FIFOs that the early side of a join waits in, per joining node.

    A window generator looks half a kernel of rows ahead, so each k x k convolution delays its branch by k // 2 rows;
    the other branch has to hold as many rows of its feature map. FINN's FIFO insertion leaves the choice of the memory
    to fifo.sv; Vivado builds block RAM where that asks for UltraRAM and the device has none.
    """
    from finn.util.basic import is_versal
    from finn.util.resource_models import _fifo_cost, _resolve
    from qonnx.custom_op.registry import getCustomOp

    rows: dict[str, int] = {}  # tensor -> delay in rows of its own size
    held: dict[str, dict[str, int]] = {}
    for node in model.graph.node:
        op = getCustomOp(node)
        streams = [(port, name) for port, name in enumerate(node.input) if model.get_initializer(name) is None]
        delay = max((rows.get(name, 0) for _, name in streams), default=0)
        for port, name in streams if len(streams) > 1 else []:
            bits = (delay - rows.get(name, 0)) * int(np.prod(op.get_normal_input_shape(port)[2:]))
            bits *= op.get_input_datatype(port).bitwidth()
            if bits:
                words, width = -(-bits // op.get_instream_width(port)), op.get_instream_width_padded(port)
                style = _resolve(words, width, "auto")
                style = "block" if style == "ultra" and not device.uram else style
                cost = _fifo_cost(words, width, style, is_versal(device.part))
                used = held.setdefault(node.name, {"LUT": 0, "BRAM_18K": 0, "URAM": 0})
                for key, amount in (("LUT", cost.lut), ("BRAM_18K", cost.bram), ("URAM", cost.uram)):
                    used[key] += int(amount)
        if node.op_type.startswith("ConvolutionInputGenerator"):
            delay += int(op.get_nodeattr("ConvKernelDim")[0]) // 2
        if "OuterShuffle" in node.op_type and len(op.get_nodeattr("out_shape")) == 4:
            block = int(op.get_nodeattr("out_shape")[1]) // int(op.get_nodeattr("transpose_in_shape")[0])
            delay = delay * max(1, block) + 1
        for name in node.output:
            rows[name] = delay
    return held
