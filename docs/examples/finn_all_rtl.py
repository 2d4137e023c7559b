"""A FINN user's own build: a quantized network in QONNX to an all-RTL dataflow graph and its Verilog, without Vivado.

    python finn_all_rtl.py NETWORK.onnx OUT_FOLDER [BOARD [FPS]]

Steps whose names begin with step_srq_ come from srq_hw, all others are FINN's. The branches of the network that meet in
an addition or a concatenation share one quantizer, and one stands behind every convolution.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from srq_hw.backends.finn.boot import boot

parser = argparse.ArgumentParser()
parser.add_argument("network", type=Path)
parser.add_argument("out", type=Path)
parser.add_argument("board", nargs="?", default="ZCU104")
parser.add_argument("fps", nargs="?", type=int, default=30)
given = parser.parse_args()
out = given.out.resolve()
out.mkdir(parents=True, exist_ok=True)
boot(out)  # FINN without Vivado; leave this line out where FINN is set up with it

from finn.builder.build_dataflow import resolve_build_steps  # noqa: E402
from finn.builder.build_dataflow_config import DataflowBuildConfig, DataflowOutputType  # noqa: E402
from qonnx.core.modelwrapper import ModelWrapper  # noqa: E402

from srq_hw.backends.finn.ops import (  # noqa: E402
    step_srq_all_rtl,
    step_srq_folding,
    step_srq_integer_ends,
    step_srq_streamline,
)

STEPS = [
    "step_qonnx_to_finn",
    "step_tidy_up",
    step_srq_streamline,  # instead of step_streamline
    step_srq_integer_ends,
    "step_convert_to_hw",
    "step_minimize_bit_width_initial",
    step_srq_all_rtl,
    "step_create_dataflow_partition",
    "step_specialize_layers",
    "step_target_fps_parallelization",
    step_srq_folding,
    "step_apply_folding_config",
    "step_minimize_bit_width",
    "step_generate_estimate_reports",
    "step_hw_codegen",
]

config = DataflowBuildConfig(
    output_dir=str(out),
    board=given.board,
    target_fps=given.fps,
    mvau_wwidth_max=288,  # FINN's 36 bits of weights per PE keep 8-bit layers slow
    synth_clk_period_ns=5.0,
    standalone_thresholds=True,  # thresholds inside a matrix unit would be HLS
    requant_bitwidth_threshold=1 << 16,  # FINN's default replaces wide thresholds by floats
    generate_outputs=[DataflowOutputType.ESTIMATE_REPORTS],
    steps=STEPS,
)
model = ModelWrapper(str(given.network))
for step in resolve_build_steps(config):
    model = step(model, config)
    model.save(str(out / f"{step.__name__}.onnx"))
hls = [node.name for node in model.graph.node if node.op_type.endswith("_hls")]
print(f"{len(model.graph.node)} nodes, of them {len(hls)} HLS")  # noqa: T201
