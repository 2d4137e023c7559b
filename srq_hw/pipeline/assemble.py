"""From the findings of the steps to the dict of report.json (its layout: report/report.schema.json)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from srq_hw.doctor import versions
from srq_hw.evaluate.demo import demo_calibration_images
from srq_hw.evaluate.images import list_images
from srq_hw.fixedpoint import bits_for
from srq_hw.graph.ir import IntGraph
from srq_hw.pipeline.engine import Step, StepRecord, sha256_json
from srq_hw.pipeline.session import Session, macs_per_pixel
from srq_hw.pipeline.steps import deliverables, load_result
from srq_hw.quantize.requant import multiplier_bits
from srq_hw.report.schema import SCHEMA_VERSION

WEIGHT_BINS = 64
#: steps that leave findings for the report
RESULT_STEPS = (
    *("lower", "check", "parity", "simulators", "quality", "oracle_qonnx", "oracle_finn"),
    *("oracle_finn_rtl", "rtl", "oracle_rtl", "synth"),
)


def assemble(session: Session, steps: list[Step], records: list[StepRecord]) -> dict[str, Any]:
    """The whole report, from the findings of these steps only: the folder may hold those of another build."""
    names = {step.name for step in steps}
    found = {name: load_result(session, name) for name in RESULT_STEPS if name in names}
    quality, simulators = found["quality"], found["simulators"]
    report = {
        "schema": SCHEMA_VERSION,
        "tool": {name.replace("-", "_"): version for name, version in versions().items()},
        "target": session.target.name,
        "target_sha256": session.target.sha256,
        "network": _network(session),
        "quantization": _quantization(session),
        "steps": [vars(record) for record in records],
        "graph": found["lower"] | found["check"],
        "parity": found.get("parity"),
        "simulators": {k: v for k, v in simulators.items() if k not in ("tensors", "first_mismatch")},
        "quality": quality["sets"],
        "oracles": _oracles(found),
        "estimate": _estimate(session),
        "finn_simulation": found["oracle_finn_rtl"]["simulation"],
        "rtl": _rtl(found),
        "images": [_image(row) for row in quality["images"]],
        "files": deliverables(session, steps),
    }
    report["gates"] = _gates(report)
    report["ok"] = all(gate["status"] != "failed" for gate in report["gates"])
    return report


def _network(session: Session) -> dict[str, Any]:
    graph = session.graph
    own = None if session.options.is_file else session.network
    return {
        "name": own.name if own else graph.name,
        "source": _source(session),
        "weights_sha256": own.weights_sha256 if own else None,
        "scale": graph.upscale,
        "parameters": sum(n.params["weight"].size + n.params["bias"].size for n in graph.nodes if n.op == "Conv"),
        "macs_per_pixel": macs_per_pixel(graph),
        "input_size": list(session.size),
    }


def _source(session: Session) -> str:
    """Where the weights come from; a file by its name alone, for a report holds no path of this machine."""
    options = session.options
    if options.is_file:
        return f"QONNX file {Path(options.model or '').name}"
    return options.weights.name if options.weights is not None else session.network.source


def _requant_text(session: Session) -> str:
    rule = session.target.integer.requant
    return f"{rule.kind}, {multiplier_bits(session.target)}-bit multiplier, {rule.rounding}"


def _quantization(session: Session) -> dict[str, Any]:
    graph = session.graph
    weights = [_weight(node.name, node.params["weight"]) for node in graph.nodes if node.op == "Conv"]
    own = not session.options.is_file
    head = {
        "weight_bits": session.plan.weight_bits if own else max(row["bits"] for row in weights),
        "act_bits": session.plan.act_bits if own else _widest_activation(graph),
        "recipe": session.recipe.name if own else "of the file",
        "recipe_sha256": sha256_json(session.recipe.model_dump()) if own else None,
        "seed": session.recipe.patches.seed if own else None,
        "calibration_images": _calibration_names(session) if own else [],
        "patches": session.recipe.patches.count if own else 0,
        "rounding": session.target.integer.requant.rounding,
        "requant": _requant_text(session),
    }
    if own:  # real values of the weights, one integer being the mean step of the layer's channels
        steps = {name: float(np.mean(conv.weight_scale)) for name, conv in session.frozen.convs.items()}
        weights = [
            _in_real(row, steps[row["name"]], session.quantized.plan.weight_bits_of(row["name"])) for row in weights
        ]
    return head | {"layers": _layers(session) if own else [], "weights": weights}


def _calibration_names(session: Session) -> list[str]:
    if session.options.calib_images is not None:
        return [path.name for path in list_images(session.options.calib_images, "--calib-images")]
    return [item.name for item in demo_calibration_images()]


def _widest_activation(graph: IntGraph) -> int:
    return max((graph.tensors[node.output].bits for node in graph.nodes if node.op == "Requant"), default=8)


def _layers(session: Session) -> list[dict[str, Any]]:
    """Clipping range of every quantizer: what is kept against what was seen."""
    rows = []
    for name, point in session.quantized.plan.points.items():
        scale = session.frozen.quants[name].scale
        lo, hi = point.range
        seen = session.quantized.calibration.ranges.get(name)
        rows.append(
            {
                "name": name,
                "producer": point.producer,
                "bits": point.bits,
                "signed": point.signed,
                "group": point.group,
                "scale": scale,
                "fixed": point.fixed,
                "lower": lo * scale,
                "upper": hi * scale,
                "data_min": seen.data_min if seen else None,
                "data_max": seen.data_max if seen else None,
                "histogram": list(seen.histogram) if seen else [],
            }
        )
    return rows


def _weight(name: str, weight: npt.NDArray[np.int64]) -> dict[str, Any]:
    lo, hi = int(weight.min()), int(weight.max())
    counts = np.histogram(weight, WEIGHT_BINS, (lo - 0.5, hi + 0.5))[0]
    return {
        "name": name,
        "bits": bits_for(lo, hi, True),
        "shape": list(weight.shape),
        "lower": lo,
        "upper": hi,
        "data_min": lo,
        "data_max": hi,
        "histogram": counts.tolist(),
    }


def _in_real(row: dict[str, Any], step: float, bits: int) -> dict[str, Any]:
    top = (1 << (bits - 1)) - 1
    limits = {"lower": -top * step, "upper": top * step, "data_min": row["data_min"] * step}
    return row | limits | {"data_max": row["data_max"] * step, "bits": bits}


def _oracles(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows in the order in which the data goes."""
    simulated = [found[step]["oracle"] for step in ("oracle_finn_rtl", "oracle_rtl")]
    return [found["oracle_qonnx"], found["oracle_finn"], *simulated]


def _estimate(session: Session) -> dict[str, Any] | None:
    result = session.finn
    if result.estimate is None:
        return None
    e = result.estimate
    corrections = [
        f"{c.resource} of {c.count} {c.nodes}: FINN says {c.finn}, here {c.ours}; {c.why}" for c in e.corrections
    ]
    return {
        "cycles_per_frame": e.cycles_per_frame,
        "bottleneck": result.bottleneck,
        "fps": e.fps,
        "clock_mhz": e.clock_mhz,
        "fps_requested": result.fps_requested,
        "fps_met": result.fps_met,
        "lut": e.lut,
        "ff": e.ff,
        "dsp": e.dsp,
        "bram36": e.bram36,
        "uram": e.uram,
        "utilization": e.utilization,
        "utilization_max": session.target.resources.utilization_max if session.target.resources else None,
        "fits": e.fits,
        "short_of": e.short,
        "corrections": [*corrections, *result.notes],
        "not_counted": list(e.not_counted),
        "tradeoff": list(result.tradeoff),
        "libraries": list(result.libraries),
        "nodes": [_node(row) for row in e.nodes],
    }


def _node(row: dict[str, Any]) -> dict[str, Any]:
    """A node's row with our figures under the report's names; FINN's raw ones stay beside them."""
    ours = row["ours"]
    figures = {"lut": ours["LUT"], "dsp": ours["DSP"], "bram36": ours["BRAM_18K"] / 2, "uram": ours["URAM"]}
    return {key: value for key, value in row.items() if key != "ours"} | figures


def _rtl(found: dict[str, Any]) -> dict[str, Any] | None:
    """The Verilog design, how its simulation went, and what synthesis counted; None where there is no design."""
    design: dict[str, Any] | None = found["rtl"]
    return design and design | {"simulation": found["oracle_rtl"]["simulation"], "synthesis": found.get("synth")}


def _image(row: dict[str, Any]) -> dict[str, Any]:
    keys = ("psnr_float", "psnr_integer", "psnr_bicubic", "ssim_float", "ssim_integer", "ssim_bicubic")
    files = {kind: path for kind, path in row["files"].items() if kind != "quantized"}
    return {"name": row["name"], "size": row["size"], "files": files, **{key: row.get(key) for key in keys}}


def _gates(report: dict[str, Any]) -> list[dict[str, Any]]:
    """The equality chain and the target's rules, one line each; what did not run says so."""
    gates = []

    def gate(name: str, held: bool | None, detail: str) -> None:
        status = "not run" if held is None else "passed" if held else "failed"
        gates.append({"name": name, "status": status, "detail": detail})

    graph, parity, simulators = report["graph"], report["parity"], report["simulators"]
    same = graph.get("equal")
    gate(
        "lowered file = graph in memory",
        same,
        graph["content_sha256_lowered"][:16] if same is not None else "foreign file",
    )
    diagnostics = graph.get("diagnostics", [])
    gate("legal on the target", not diagnostics, "; ".join(diagnostics[:3]) or f"{graph['nodes']} nodes")
    proofs = graph.get("proofs", [])
    widest = max((proof["bits"] for proof in proofs), default=0)
    proven = bool(proofs) and all(proof["holds"] for proof in proofs)
    gate("accumulators proven", proven, f"{len(proofs)} accumulators, widest {widest} bits")
    gate(
        "frozen Brevitas (float64) = reference",
        parity and parity["equal"],
        _counts(parity, "foreign file: no Brevitas model"),
    )
    gate("fast simulator = reference", simulators and simulators["equal"], _counts(simulators, "not run"))
    for row in report["oracles"]:
        held = None if row["status"] == "not run" else row["status"] == "passed"
        gate(f"{row['name']} = reference", held, row["detail"])
    return gates


def _counts(found: dict[str, Any] | None, otherwise: str) -> str:
    if not found:
        return otherwise
    text = f"{found['mismatches']} of {found['elements']} integers differ"
    first = found.get("first_mismatch")
    if first:
        where = ", ".join(str(i) for i in first["index"])
        text += f"; first {first['tensor']}[{where}]: {first['left']} against {first['right']}"
    return text
