"""The operations in FINN's abstraction layer: shapes, types, cycles, estimates, and execution by the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from finn.custom_op.fpgadataflow import register_custom_op
from finn.custom_op.fpgadataflow.hwcustomop import HWCustomOp
from finn.util.basic import get_dsp_block
from qonnx.core.datatype import DataType

from srq_hw.backends.finn.ops.lanes import node_lanes
from srq_hw.backends.finn.ops.nodes import (
    DUPLICATE,
    OP_TYPES,
    WITH_CORE,
    WITH_ROWS,
    WITH_SIMD,
    base_type,
    input_reach,
    input_tensors,
    node_graph,
    operation,
    parse_type,
)
from srq_hw.backends.finn.ops.wrapper import hardware
from srq_hw.backends.rtl.costs import Cost, cost
from srq_hw.backends.rtl.folding import conv_shape
from srq_hw.backends.rtl.netlist import PORTS
from srq_hw.errors import InputError, RunError
from srq_hw.graph.check import SAME_TYPE_OPS, ends
from srq_hw.graph.ir import Int
from srq_hw.graph.ops import OPS

#: attribute types of FINN by the types of the table of operations
_KINDS = {int: ("i", True, 0), str: ("s", True, ""), tuple: ("ints", True, [])}
_NO_TENSOR = np.zeros(0, np.int64)


class SrqOp(HWCustomOp):
    """One IntGraph node, NHWC with batch 1, in folded shape (1, H, W, C / lanes, lanes)."""

    def get_nodeattr_types(self) -> dict[str, Any]:
        """Those of the IntGraph operation beside shapes, types and lanes."""
        types: dict[str, Any] = {
            "ImgDim": ("ints", True, []),  # (H, W) of the inputs
            "Channels": ("ints", True, []),  # of every input
            "inputDataTypes": ("strings", True, []),
            "inputZeroPoints": ("ints", False, []),  # 0 where absent
            "inputRanges": ("ints", False, []),  # lo, hi of every input: what arrives; all of its type where absent
            "PE": ("i", False, 1),  # lanes of the output, and of the inputs where there is no SIMD
        }
        if base_type(self.onnx_node) != DUPLICATE:
            op = operation(self.onnx_node)
            types |= {"outputDataType": ("s", True, ""), "outputZeroPoint": ("i", False, 0)}
            types |= {"SIMD": ("i", False, 1)} if op in WITH_SIMD else {}
            types |= {"CorePE": ("i", False, 1)} if op in WITH_CORE else {}
            types |= {"ram_style": ("s", False, "auto", {"auto", "ultra"})} if op in WITH_ROWS else {}
            types |= {key: _KINDS[kind] for key, kind in OPS[op].attrs.items()}
            types |= {key: ("t", required, _NO_TENSOR) for key, required in OPS[op].params.items()}
        depths = {"inFIFODepths": self.onnx_node.input, "outFIFODepths": self.onnx_node.output}
        fifos = {key: ("ints", False, [2] * len(streams)) for key, streams in depths.items()}
        return types | super().get_nodeattr_types() | fifos

    # --- shapes, types, widths ------------------------------------------------------------------------------------

    def get_normal_input_shape(self, ind: int = 0) -> tuple[int, ...]:
        """(1, H, W, C) of an input."""
        height, width = self.get_nodeattr("ImgDim")
        return 1, height, width, self.get_nodeattr("Channels")[ind]

    def get_normal_output_shape(self, ind: int = 0) -> tuple[int, ...]:
        """(1, H, W, C) of an output; all outputs of a fork are the same."""
        if base_type(self.onnx_node) == DUPLICATE:
            return self.get_normal_input_shape()
        _, height, width, _ = self.get_normal_input_shape()
        out = node_graph(self.onnx_node).tensors["out0"]
        return 1, height * out.upscale, width * out.upscale, out.channels

    def get_folded_input_shape(self, ind: int = 0) -> tuple[int, ...]:
        """(1, H, W, C / lanes, lanes) of an input."""
        *image, channels = self.get_normal_input_shape(ind)
        lanes = node_lanes(self.onnx_node).inputs[ind]
        return *image, channels // lanes, lanes

    def get_folded_output_shape(self, ind: int = 0) -> tuple[int, ...]:
        """(1, H, W, C / lanes, lanes) of an output."""
        *image, channels = self.get_normal_output_shape(ind)
        lanes = node_lanes(self.onnx_node).output
        return *image, channels // lanes, lanes

    def get_input_datatype(self, ind: int = 0) -> Any:
        """FINN type of an input."""
        return DataType[self.get_nodeattr("inputDataTypes")[ind]]

    def get_output_datatype(self, ind: int = 0) -> Any:
        """FINN type of an output."""
        fork = base_type(self.onnx_node) == DUPLICATE
        return self.get_input_datatype() if fork else DataType[self.get_nodeattr("outputDataType")]

    def get_instream_width(self, ind: int = 0) -> int:
        """Bits of a beat of an input."""
        return node_lanes(self.onnx_node).inputs[ind] * int(self.get_input_datatype(ind).bitwidth())

    def get_outstream_width(self, ind: int = 0) -> int:
        """Bits of a beat of an output."""
        return node_lanes(self.onnx_node).output * int(self.get_output_datatype(ind).bitwidth())

    def get_number_output_values(self) -> Any:
        """Beats of the output; of every output by its port where there are several, as FINN's own forks do."""
        beats = int(np.prod(self.get_folded_output_shape()[:-1]))
        count = len(self.onnx_node.output)
        return beats if count == 1 else {f"out{index}": beats for index in range(count)}

    def make_shape_compatible_op(self, model: Any) -> Any:
        """A constant of the output's shape for every output."""
        made = super().make_shape_compatible_op(model)
        made.output[:] = self.onnx_node.output
        return made

    def infer_node_datatype(self, model: Any) -> None:
        """Take the types of the inputs as they are now; the output's is proven and stays, or follows an op that moves.

        InputError where an input is no integer, inputs of a concatenation differ, or the result no longer fits.
        """
        node = self.onnx_node
        found = [model.get_tensor_datatype(name).name for name in node.input]
        for dtype in found:
            parse_type(dtype)
        if found != self.get_nodeattr("inputDataTypes"):
            self.set_nodeattr("inputDataTypes", found)
        if base_type(node) != DUPLICATE:
            self._settle_output(found)
        for name in node.output:
            model.set_tensor_datatype(name, self.get_output_datatype())

    def _settle_output(self, found: list[str]) -> None:
        node = self.onnx_node
        op = operation(node)
        if op in SAME_TYPE_OPS:
            self.set_nodeattr("outputDataType", found[0])
        if op == "Requant":
            return
        graph = node_graph(node)
        own, ins, out = graph.nodes[0], input_tensors(node), graph.tensors["out0"]
        lo, hi = ends(OPS[op].bounds(own, ins, [input_reach(node)[tensor.name] for tensor in ins]))
        if lo < out.range[0] or hi > out.range[1]:
            raise InputError(
                f"FINN node {node.name} ({node.op_type}): inputs of type {', '.join(found)} make {lo} to {hi}; "
                f"allowed: {out.dtype}, {out.range[0]} to {out.range[1]}. Set outputDataType to a wider type."
            )

    def verify_node(self) -> list[str]:
        """InputError where the node or its lanes are wrong."""
        node_lanes(self.onnx_node)
        return [f"{self.onnx_node.name}: all attributes fit"]

    # --- cycles and resources -------------------------------------------------------------------------------------

    def get_exp_cycles(self) -> int:
        """Cycles per frame at full speed."""
        return node_lanes(self.onnx_node).cycles

    def _cost(self, fpgapart: str) -> Cost:
        made = hardware(self.onnx_node, PORTS[get_dsp_block(fpgapart)])
        return sum((cost(instance) for instance in made.instances), Cost())

    def lut_estimation(self, fpgapart: str) -> int:
        """LUTs by the RTL library's model (`rtl.costs`)."""
        return self._cost(fpgapart).lut

    def ff_estimation(self, fpgapart: str) -> int:
        """Flip-flops by the same; FINN has no figure of this kind."""
        return self._cost(fpgapart).ff

    def dsp_estimation(self, fpgapart: str) -> int:
        """DSP slices, as synthesised."""
        return self._cost(fpgapart).dsp

    def bram_estimation(self, fpgapart: str) -> int:
        """Block RAMs of 18 Kbit."""
        return self._cost(fpgapart).bram18

    def uram_estimation(self, fpgapart: str) -> int:
        """UltraRAMs."""
        return self._cost(fpgapart).uram

    def get_op_and_param_counts(self) -> dict[str, int]:
        """Products and parameters of a convolution, under FINN's keys."""
        if base_type(self.onnx_node) != OP_TYPES["Conv"]:
            return {}
        graph = node_graph(self.onnx_node)
        node = graph.nodes[0]
        shape = conv_shape(graph, node, tuple(self.get_nodeattr("ImgDim")))
        weights = int(node.params["weight"].size)
        narrow, wide = sorted((shape.act_bits, shape.weight_bits))
        return {
            f"op_mac_{narrow}bx{wide}b": weights * shape.pixels,
            f"param_weight_{shape.weight_bits}b": weights,
        }

    # --- execution ------------------------------------------------------------------------------------------------

    def execute_node(self, context: dict[str, Any], graph: Any) -> None:
        """The reference simulator's function of the operation, on exact integers.

        RunError where an input is no integer or outside of its type. The output is float32, or float64 where a value
        is not exact in float32.
        """
        node = self.onnx_node
        xs = [self._integers(index, context[name]) for index, name in enumerate(node.input)]
        if base_type(node) == DUPLICATE:
            for name in node.output:
                context[name] = context[node.input[0]].copy()
            return
        own = node_graph(node)
        result = OPS[operation(node)].execute(own.nodes[0], input_tensors(node), xs)
        stored: npt.NDArray[Any] = result.astype(np.float32)
        context[node.output[0]] = stored if (stored == result).all() else result.astype(np.float64)

    def _integers(self, index: int, array: npt.NDArray[Any]) -> Int:
        dtype = self.get_input_datatype(index)
        integers = np.asarray(array).astype(np.int64)
        where = f"FINN node {self.onnx_node.name} ({self.onnx_node.op_type}), input {index}"
        if (integers != array).any():
            raise RunError(f"{where}: holds fractions; wanted integers")
        if integers.min() < dtype.min() or integers.max() > dtype.max():
            raise RunError(f"{where}: holds {integers.min()} to {integers.max()}; its type is {dtype.name}")
        return integers.reshape(self.get_normal_input_shape(index))


def _register() -> dict[str, type]:
    made = {}
    for op, op_type in {**OP_TYPES, "fork": DUPLICATE}.items():
        doc = f"IntGraph {op}: {OPS[op].doc}." if op in OPS else "One stream several times."
        made[op_type] = register_custom_op(type(op_type, (SrqOp,), {"__doc__": doc, "__module__": __name__}))
    return made


#: op_type -> class
CLASSES = _register()
