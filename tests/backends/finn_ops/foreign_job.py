"""``python foreign_job.py FOLDER EXAMPLE``: a Brevitas network to QONNX, the documented example on it, both run."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import numpy as np

SIZE = (6, 7)


def main(folder: Path, example: Path) -> None:
    """Writes result.json."""
    from foreign_net import export

    network, out = folder / "network.onnx", folder / "out"
    export(network, SIZE)
    sys.argv = [str(example), str(network), str(out), "ZCU104", "150000"]
    runpy.run_path(str(example), run_name="__main__")

    from finn.util.verification import despecialize_model
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.core.onnx_exec import execute_onnx
    from qonnx.custom_op.registry import getCustomOp

    from srq_hw.backends.finn.ops import SetSrqFolding
    from srq_hw.backends.finn.ops.nodes import is_srq

    float_net, built = ModelWrapper(str(network)), ModelWrapper(str(out / "step_hw_codegen.onnx"))
    steps = [node for node in float_net.graph.node if node.op_type in ("Quant", "IntQuant")]
    activations = [node for node in steps if float_net.get_initializer(node.input[0]) is None]
    scales = [float(float_net.get_initializer(node.input[1])) for node in (activations[0], activations[-1])]
    image = np.random.default_rng(1).integers(-128, 128, (1, 3, *SIZE))
    inputs = {float_net.graph.input[0].name: (image * scales[0]).astype(np.float32)}
    wanted = execute_onnx(float_net, inputs)[float_net.graph.output[0].name] / scales[1]
    feed = {built.graph.input[0].name: image.transpose(0, 2, 3, 1).astype(np.float32)}
    found = execute_onnx(despecialize_model(built), feed)[built.graph.output[0].name].transpose(0, 3, 1, 2)
    source = ModelWrapper(str(out / "step_srq_integer_ends.onnx"))
    estimate = json.loads((out / "report" / "estimate_layer_cycles.json").read_text())
    own = [node for node in built.graph.node if node.op_type.startswith("Srq")]
    faster = built.transform(SetSrqFolding(700, "xczu7ev-ffvc1156-2-e"))
    result = {
        "faster": {node.name: int(getCustomOp(node).get_exp_cycles()) for node in faster.graph.node if is_srq(node)},
        "ops": [node.op_type for node in built.graph.node],
        "elements": int(wanted.size),
        "different": int((found != wanted).sum()),
        "levels": len(np.unique(found)),
        "host": [source.get_metadata_prop("srq_host_input"), source.get_metadata_prop("srq_host_output")],
        "input": [
            built.get_tensor_datatype(built.graph.input[0].name).name,
            built.get_tensor_shape(built.graph.input[0].name),
        ],
        "scales": scales,
        "cycles": estimate,
        "missing": [
            str(name)
            for node in own
            for name in getCustomOp(node).get_rtl_file_list(abspath=True)
            if not Path(name).is_file()
        ],
    }
    (folder / "result.json").write_text(json.dumps(result))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main(Path(sys.argv[1]), Path(sys.argv[2]))
