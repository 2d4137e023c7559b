"""FINN's own figures of every node of a folded graph, and the memory that FINN leaves out (runs inside the worker)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from srq_hw.backends.finn.estimate import Device, NodeFigures, converter
from srq_hw.backends.finn.memory import rom_luts, threshold_blocks
from srq_hw.backends.finn.ops.nodes import is_srq
from srq_hw.backends.finn.unit_memory import table_counts


def figures(model: Any, device: Device) -> list[NodeFigures]:
    """One row per node, in graph order."""
    fifos = _join_fifos(model, device)
    return [node_figures(model, node, device, fifos.get(node.name, {})) for node in model.graph.node]


def node_figures(model: Any, node: Any, device: Device, fifo: dict[str, int]) -> NodeFigures:
    """The row of one node as it is folded now. fifo: what its early side waits in."""
    from qonnx.custom_op.registry import getCustomOp

    op = getCustomOp(node)
    attributes = {item.name for item in node.attribute}
    raw = {
        "LUT": op.lut_estimation(device.part),
        "FF": op.ff_estimation(device.part) if is_srq(node) else 0,
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
        raw={key: round(float(value)) for key, value in raw.items()},
        unit=_UNITS[node.op_type](model, node, op) if node.op_type in _UNITS else {},
        converters=_converters(model, node, op),
        memory=_memory(node.op_type, op),
        fifo=fifo,
    )


# --- parameters of FINN's units in `unit_costs` --------------------------------------------------------------------


def _matrix(model: Any, node: Any, op: Any) -> dict[str, int]:
    source, weights = op.get_input_datatype(0), op.get_input_datatype(1)
    least = float(np.min(model.get_initializer(node.input[1])))
    return {
        "pe": int(op.get_nodeattr("PE")),
        "simd": int(op.get_nodeattr("SIMD")),
        "mw": int(op.get_nodeattr("MW")),
        "mh": int(op.get_nodeattr("MH")),
        "weight_bits": weights.bitwidth(),
        "act_bits": source.bitwidth(),
        "acc_bits": op.get_accumulator_datatype().bitwidth(),
        "narrow": int(least > weights.min()),
        "signed": int(source.signed()),
    }


def _thresholds(model: Any, node: Any, op: Any) -> dict[str, int]:
    trigger = int(op.get_nodeattr("depth_trigger_bram"))
    pe, channels = int(op.get_nodeattr("PE")), int(op.get_nodeattr("NumChannels"))
    width = op.get_input_datatype(1).bitwidth()
    matrix = model.get_initializer(node.input[1]).astype(np.int64)
    matrix = np.broadcast_to(matrix, (channels, matrix.shape[1]))  # one row is that of all channels
    shape = {"pe": pe, "channels": channels, "acc_bits": width, "bits": op.get_output_datatype().bitwidth()}
    return shape | table_counts(matrix, pe, width) | ({"block_depth": trigger} if trigger else {})


def _padding(model: Any, node: Any, op: Any) -> dict[str, int]:
    """The padded frame stands for the sum of both sides, which need not be the same."""
    height, width = op.get_padded_odim()
    return {
        "height": height,
        "width": width,
        "pad": 0,
        "channels": int(op.get_nodeattr("NumChannels")),
        "simd": int(op.get_nodeattr("SIMD")),
        "bits": op.get_input_datatype(0).bitwidth(),
    }


def _window(model: Any, node: Any, op: Any) -> dict[str, int]:
    height, width = op.get_nodeattr("IFMDim")
    rows, columns = op.get_nodeattr("ConvKernelDim")
    return {
        "height": int(height),
        "width": int(width),
        "k": int(rows),
        "k_width": int(columns),
        "channels": int(op.get_nodeattr("IFMChannels")),
        "simd": int(op.get_nodeattr("SIMD")),
        "bits": op.get_input_datatype(0).bitwidth(),
        "block": int(op.get_nodeattr("ram_style") in ("block", "ultra")),
        "parallel": int(op.select_impl_style() == "parallel"),
    }


_UNITS: dict[str, Callable[[Any, Any, Any], dict[str, int]]] = {
    "MVAU_rtl": _matrix,
    "Thresholding_rtl": _thresholds,
    "FMPadding_rtl": _padding,
    "ConvolutionInputGenerator_rtl": _window,
}


# --- memories and what stands between nodes ------------------------------------------------------------------------


def _memory(op_type: str, op: Any) -> dict[str, int]:
    """What parameter memory takes where FINN has no figure for it, or not one of what its RTL does."""
    if op_type == "Thresholding_rtl" and op.get_nodeattr("depth_trigger_bram"):
        pe, stages = int(op.get_nodeattr("PE")), op.get_output_datatype().bitwidth()
        folds = int(op.get_nodeattr("NumChannels")) // pe
        width = op.get_input_datatype(1).bitwidth()
        trigger = int(op.get_nodeattr("depth_trigger_bram"))
        return {"BRAM_18K": threshold_blocks(folds, stages, width, pe, trigger), "URAM": 0}
    distributed = op_type == "MVAU_rtl" and op.get_nodeattr("ram_style") == "distributed"
    if distributed and op.get_nodeattr("mem_mode") == "internal_decoupled":
        return {"LUT": rom_luts(int(op.calc_wmem()), op.get_instream_width(1))}
    return {}


def _converters(model: Any, node: Any, op: Any) -> dict[str, int]:
    """LUTs and flip-flops of the converters to consumers that read the node's stream at another width."""
    from qonnx.custom_op.registry import getCustomOp

    found: dict[str, int] = {}
    for index, name in enumerate(node.output):
        for reader in model.find_consumers(name) or []:
            port = list(reader.input).index(name)
            made = converter(op.get_outstream_width(index), getCustomOp(reader).get_instream_width(port))
            for key, amount in made.items():
                found[key] = found.get(key, 0) + amount
    return found


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
        for name in node.output:
            rows[name] = _delayed(node, op, delay)
    return held


def _delayed(node: Any, op: Any, rows: int) -> int:
    """Rows of its own size that a node's output lags behind, where its input lags by `rows`.

    A unit that makes an image larger waits for a whole row of its input, which is `factor` rows of its output.
    """
    if node.op_type.startswith("ConvolutionInputGenerator"):
        return rows + int(op.get_nodeattr("ConvKernelDim")[0]) // 2
    if not is_srq(node):
        return rows
    for item in node.attribute:
        if item.name in ("weight", "taps"):  # (out, in, rows, columns) and (phases, rows)
            rows += item.t.dims[2 if item.name == "weight" else 1] // 2
    factor = int(op.get_normal_output_shape(0)[1]) // int(op.get_normal_input_shape(0)[1])
    return rows if factor == 1 else (rows + 1) * factor
