"""First build step of a continued build: FINN knows the operations, the golden vectors pass. Runs in a FINN process."""

from __future__ import annotations

from copy import copy, deepcopy
from pathlib import Path
from typing import Any

from finn.builder.build_dataflow_config import VerificationStepType
from finn.builder.build_dataflow_steps import verify_step
from finn.transformation.fpgadataflow.set_exec_mode import SetExecMode
from onnx import helper
from qonnx.core.modelwrapper import ModelWrapper
from qonnx.custom_op.registry import getCustomOp
from qonnx.util.basic import qonnx_make_model

import srq_hw.backends.finn.ops.rtl  # noqa: F401  (registers the operations)
from srq_hw.backends.finn.ops.nodes import DOMAIN, is_srq
from srq_hw.errors import InputError, RunError

#: what FINN's verification calls the folded graph executed in Python, which RTL nodes do under this name
PYTHON = VerificationStepType.FOLDED_HLS_CPPSIM.value
#: where FINN's verification looks for the graph around the dataflow graph
PARENT = "dataflow_parent.onnx"


def step_srq_resume(model: Any, cfg: Any) -> Any:
    """Build step in front of FINN's step_hw_codegen, for a folded graph whose sources are generated.

    Being named in a configuration is what makes FINN import this package, so that it knows the operations. The step
    checks that every node can be built here, writes the graph that FINN's later verification starts from, and, where
    the configuration lists folded_hls_cppsim, lets FINN's verification run the folded graph in Python.
    InputError: a node that FINN does not know, or whose sources are not there. RunError: the outputs differ.
    """
    for node in model.graph.node:
        _check(node)
    parent(model).save(str(cfg.get_intermediate_models_directory() / PARENT))
    if VerificationStepType(PYTHON) in cfg._resolve_verification_steps():
        alone = copy(cfg)
        alone.verify_nodewise_report = False  # it compares with an execution in Python, which this is
        verify_step(deepcopy(model).transform(SetExecMode("cppsim")), alone, PYTHON, need_parent=True)
        wrong = sorted(cfg.get_verification_output_directory().glob(f"verify_{PYTHON}_*FAIL*"))
        if wrong:
            raise RunError(f"FINN's execution of the folded graph is not {cfg.verify_expected_output_npy}: {wrong[0]}")
    return model


def _check(node: Any) -> None:
    try:
        op = getCustomOp(node)
    except (KeyError, ModuleNotFoundError) as error:
        raise InputError(f"FINN node {node.name}: operation {node.op_type} is not known here ({error})") from error
    if not is_srq(node):
        return
    op.verify_node()
    if op.get_nodeattr("code_gen_dir_ipgen"):
        missing = [name for name in op.get_rtl_file_list(abspath=True) if not Path(name).is_file()]
        if missing:
            raise InputError(f"FINN node {node.name} ({node.op_type}): no file {missing[0]}")


def parent(model: Any) -> Any:
    """A model of one StreamingDataflowPartition with the graph's input and output, as FINN's verification wants it."""
    graph = model.graph
    names = [graph.input[0].name], [graph.output[0].name]
    node = helper.make_node("StreamingDataflowPartition", *names, name="StreamingDataflowPartition_0", domain=DOMAIN)
    node.attribute.append(helper.make_attribute("model", ""))
    made = ModelWrapper(qonnx_make_model(helper.make_graph([node], "parent", graph.input, graph.output)))
    for (name,) in names:
        made.set_tensor_datatype(name, model.get_tensor_datatype(name))
    return made
