"""What the tests of the operations do inside FINN, in one process: ``python finn_job.py FOLDER`` writes result.json."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

from srq_hw.backends.finn.boot import boot

PART = "xczu7ev-ffvc1156-2-e"


def main(folder: Path) -> None:
    """Every job in turn."""
    boot(folder)
    from finn.custom_op.fpgadataflow import custom_op
    from finn.custom_op.fpgadataflow.rtl import custom_op as rtl_custom_op

    from srq_hw.backends.finn.ops import register

    register()
    register()  # once more changes nothing
    registered = sorted(name for name in (*custom_op, *rtl_custom_op) if name.startswith("Srq"))
    result = {
        "registered": registered,
        "cases": cases(folder),
        "network": network(),
        "replaced": replaced(),
        "refused": refused(),
    }
    (folder / "result.json").write_text(json.dumps(result))


def wrap(nodes: list[Any], inputs: dict[str, tuple], outputs: dict[str, tuple], inner: dict[str, tuple]) -> Any:
    """A model of FINN nodes; tensors as name -> (shape, FINN type)."""
    import qonnx.core.data_layout as layouts
    from onnx import TensorProto, helper
    from qonnx.core.datatype import DataType
    from qonnx.core.modelwrapper import ModelWrapper

    def values(tensors: dict[str, tuple]) -> list[Any]:
        return [helper.make_tensor_value_info(name, TensorProto.FLOAT, kind[0]) for name, kind in tensors.items()]

    graph = helper.make_graph(nodes, "g", values(inputs), values(outputs), value_info=values(inner))
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("finn.custom_op.fpgadataflow", 1)]
    model = ModelWrapper(helper.make_model(graph, opset_imports=opsets, ir_version=10))
    for name, (_, dtype) in {**inputs, **outputs, **inner}.items():
        model.set_tensor_datatype(name, DataType[dtype])
        model.set_tensor_layout(name, layouts.NHWC)
    return model


def one(case: Any) -> Any:
    """A model of the case's node alone, its outputs without a type: inference must find it."""
    frames, results = case.images(), case.expected()
    node = case.onnx_node()
    inputs = {name: ([1, *x.shape[1:]], t.dtype) for name, x, t in zip(node.input, frames, case.inputs, strict=True)}
    outputs = {name: ([1, *y.shape[1:]], "FLOAT32") for name, y in zip(node.output, results, strict=True)}
    return wrap([node], inputs, outputs, {})


def cases(folder: Path) -> dict[str, Any]:
    """Shapes, types, execution in three forms and code of every case."""
    from finn.transformation.fpgadataflow.prepare_ip import PrepareIP
    from finn.transformation.fpgadataflow.specialize_layers import SpecializeLayers
    from finn.util.data_packing import npy_to_rtlsim_input
    from finn.util.verification import despecialize_model
    from op_cases import all_cases
    from qonnx.core.onnx_exec import execute_onnx
    from qonnx.custom_op.registry import getCustomOp
    from qonnx.transformation.infer_datatypes import InferDataTypes
    from qonnx.transformation.infer_shapes import InferShapes

    found = {}
    for case in all_cases():
        model = one(case).transform(InferShapes()).transform(InferDataTypes())
        frames, results = case.images(), case.expected()
        feed = {f"x{index}": x[:1].astype(np.float32) for index, x in enumerate(frames)}
        special = model.transform(SpecializeLayers(PART))
        special.graph.node[0].name = case.name
        different = 0
        for form in (model, special, despecialize_model(special)):
            made = execute_onnx(form, feed)
            different += sum(int((made[f"y{index}"] != y[:1]).sum()) for index, y in enumerate(results))
        special = special.transform(PrepareIP(PART, 5.0))
        node = special.graph.node[0]
        op = getCustomOp(node)
        packed = npy_to_rtlsim_input(
            frames[0][:1].reshape(op.get_folded_input_shape()).astype(np.float32),
            op.get_input_datatype(), op.get_instream_width_padded(),
        )  # fmt: skip
        found[case.name] = {
            "op": node.op_type,
            "domain": node.domain,
            "different": different,
            "types": [model.get_tensor_datatype(name).name for name in node.output],
            "cycles": int(op.get_exp_cycles()),
            "beats": op.get_number_output_values(),
            "files": [str(name) for name in op.get_rtl_file_list(abspath=True)],
            "names": [str(name) for name in op.get_rtl_file_list()],
            "ipi": op.code_generation_ipi()[-1],
            "ports": op.get_verilog_top_module_intf_names(),
            "folder": op.get_nodeattr("code_gen_dir_ipgen"),
            "resources": op.node_res_estimation(PART),
            "packed": [hex(word) for word in packed],
        }
    return found


def network() -> dict[str, Any]:
    """A network of operations alone, with forks, through FINN's steps, and its execution behind them."""
    from finn.transformation.fpgadataflow.annotate_cycles import AnnotateCycles
    from finn.transformation.fpgadataflow.insert_dwc import InsertDWC
    from finn.transformation.fpgadataflow.insert_fifo import InsertFIFO
    from finn.transformation.fpgadataflow.specialize_layers import SpecializeLayers
    from finn.transformation.general import ApplyConfig
    from finn.util.verification import despecialize_model
    from op_cases import small_network
    from qonnx.core.onnx_exec import execute_onnx
    from qonnx.custom_op.registry import getCustomOp
    from qonnx.transformation.general import GiveUniqueNodeNames

    from srq_hw.backends.finn.ops.infer import SetSrqFolding
    from srq_hw.backends.finn.ops.nodes import make_duplicate, make_node
    from srq_hw.simulate.reference import run

    graph, size = small_network(), (6, 5)
    nodes, tensors, waiting = [], {}, {}

    def offer(tensor: str) -> None:
        t = graph.tensors[tensor]
        kind = ([1, size[0] * t.upscale, size[1] * t.upscale, t.channels], t.dtype)
        uses = len([name for node in graph.nodes for name in node.inputs if name == tensor])
        arms = [f"{tensor}_arm{index}" for index in range(uses)] if uses > 1 else [tensor]
        tensors.update(dict.fromkeys({tensor, *arms}, kind))
        if uses > 1:
            nodes.append(make_duplicate(graph, tensor, size, tensor, arms, f"{tensor}_fork"))
        waiting[tensor] = arms

    offer(graph.input)
    for node in graph.nodes:
        sources = [waiting[name].pop(0) for name in node.inputs]
        nodes.append(make_node(graph, node, size, sources, node.output, node.name))
        offer(node.output)
    ends = {name: tensors.pop(name) for name in (graph.input, graph.output)}
    model = wrap(nodes, {graph.input: ends[graph.input]}, {graph.output: ends[graph.output]}, tensors)
    model = model.transform(SpecializeLayers(PART)).transform(SetSrqFolding(200, PART)).transform(AnnotateCycles())
    cycles = [getCustomOp(node).get_nodeattr("cycles_estimate") for node in model.graph.node]
    conv = model.get_nodes_by_op_type("SrqConv_rtl")[0].name
    folding = {"Defaults": {}, conv: {"PE": 2, "SIMD": 1, "inFIFODepths": [16]}}
    model = model.transform(ApplyConfig(folding)).transform(InsertDWC()).transform(GiveUniqueNodeNames())
    model = model.transform(InsertFIFO(create_shallow_fifos=True)).transform(SpecializeLayers(PART))
    image = np.random.default_rng(4).integers(0, 256, (*size, 3))
    made = execute_onnx(despecialize_model(model), {graph.input: image[None].astype(np.float32)})[graph.output]
    ops = [node.op_type for node in model.graph.node]
    return {
        "ops": sorted(set(ops)),
        "converters": ops.count("StreamingDataWidthConverter_rtl"),
        "fifos": ops.count("StreamingFIFO_rtl"),
        "cycles": cycles,
        "different": int((made != run(graph, image)).sum()),
        "conv": [getCustomOp(model.get_nodes_by_op_type("SrqConv_rtl")[0]).get_nodeattr(key) for key in ("PE", "SIMD")],
    }


def replaced() -> dict[str, Any]:
    """FINN's own layers before and after ReplaceHlsLayers, executed by FINN."""
    from finn.transformation.fpgadataflow.specialize_layers import SpecializeLayers
    from foreign_layers import LAYERS
    from qonnx.core.onnx_exec import execute_onnx

    from srq_hw.backends.finn.ops import ReplaceHlsLayers
    from srq_hw.backends.finn.ops.nodes import parse_type
    from srq_hw.graph.ir import Tensor

    found = {}
    for name, make in LAYERS.items():
        model = make(wrap)
        rng = np.random.default_rng(len(name))
        feed = {}
        for value in model.graph.input:
            bits, signed = parse_type(model.get_tensor_datatype(value.name).name)
            lo, hi = Tensor("", 1, bits, signed).range
            shape = model.get_tensor_shape(value.name)
            feed[value.name] = rng.integers(lo, hi, shape, endpoint=True).astype(np.float32)
        before = execute_onnx(model, feed)
        new = model.transform(ReplaceHlsLayers())
        after = execute_onnx(new, feed)
        special = new.transform(SpecializeLayers(PART))
        found[name] = {
            "ops": [node.op_type for node in special.graph.node],
            "before": [node.op_type for node in model.transform(SpecializeLayers(PART)).graph.node],
            "different": sum(int((before[key] != after[key]).sum()) for key in before),
            "types": {value.name: new.get_tensor_datatype(value.name).name for value in new.graph.output},
        }
    return found


def refused() -> dict[str, str]:
    """What step_srq_all_rtl says of models that it cannot make all RTL, and of one that it can."""
    from types import SimpleNamespace

    from foreign_layers import LAYERS, vector_fork

    from srq_hw.backends.finn.ops import step_srq_all_rtl
    from srq_hw.errors import InputError

    cfg = SimpleNamespace(_resolve_fpga_part=lambda: PART)
    found = {}
    for name, make in {**LAYERS, "vector": vector_fork}.items():
        try:
            step_srq_all_rtl(make(wrap), cfg)
            found[name] = "accepted"
        except InputError as error:
            found[name] = f"InputError: {error}"
    return found


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main(Path(sys.argv[1]))
