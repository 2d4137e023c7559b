"""How a folding travels: as plain data into the worker's job, as FINN's folding configuration out of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from srq_hw.backends.rtl.folding import Folding, Lanes

#: node attributes that a folding file holds
FOLDING_KEYS = ("PE", "SIMD", "CorePE", "parallel_window", "ram_style", "mem_mode", "resType",
                "runtime_writeable_weights", "depth_trigger_uram", "depth_trigger_bram", "inFIFODepths",
                "outFIFODepths")  # fmt: skip


def lanes_to_job(folding: Folding) -> dict[str, Any]:
    """Lanes as plain data for the worker."""
    return {"wanted": folding.wanted, "nodes": {name: vars(lanes) for name, lanes in folding.nodes.items()}}


def lanes_from_job(data: Mapping[str, Any]) -> Folding:
    """The inverse of `lanes_to_job`."""
    return Folding(data["wanted"], {name: _lanes(row) for name, row in data["nodes"].items()})


def _lanes(row: Mapping[str, Any]) -> Lanes:
    core, inputs = tuple(row["core"]), tuple(row["inputs"])
    memories = tuple((kind, attribute, value) for kind, attribute, value in row["memories"])
    return Lanes(inputs, row["output"], row["cycles"], (core[0], core[1]), row["rows"], memories=memories)


def folding_config(model: Any) -> dict[str, Any]:
    """FINN's folding configuration of the model, as `folding_config_file` takes it."""
    from qonnx.custom_op.registry import getCustomOp

    config: dict[str, Any] = {"Defaults": {}}
    for node in model.graph.node:
        op = getCustomOp(node)
        allowed = op.get_nodeattr_types()
        config[node.name] = {key: _plain(op.get_nodeattr(key)) for key in FOLDING_KEYS if key in allowed}
    return config


def _plain(value: Any) -> Any:
    return [int(item) for item in value] if hasattr(value, "__len__") and not isinstance(value, str) else value
