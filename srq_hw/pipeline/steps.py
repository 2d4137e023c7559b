"""The steps of a build in order: what each depends on, what it leaves, how it runs. `build_steps` is the list."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from srq_hw.exchange.direct import to_intgraph
from srq_hw.exchange.lower import lower
from srq_hw.exchange.qonnx_export import export_qonnx, save_model
from srq_hw.files import write_json
from srq_hw.graph.check import prove_accumulators
from srq_hw.graph.legality import legality
from srq_hw.oracles.qonnx import qonnx_oracle
from srq_hw.parity import Comparison, compare
from srq_hw.pipeline import hardware, pictures, verilog
from srq_hw.pipeline.engine import RESULTS, STATE, Step, sha256_file
from srq_hw.pipeline.session import Session, image_sha256
from srq_hw.proof import frozen_against_reference
from srq_hw.quantize.freeze import load_frozen
from srq_hw.quantize.store import FILES as QUANTIZED
from srq_hw.quantize.store import save_quantized
from srq_hw.simulate import reference
from srq_hw.simulate.fast import compile_graph

Progress = Callable[[int, int], None]


def build_steps(session: Session, progress: Progress) -> list[Step]:
    """All steps for this session; a QONNX file of somebody else skips what needs the float network."""
    own = [_calibrate(session, progress), _export(session)]
    foreign = [_import(session)]
    middle = [_lower(session), _check(session)]
    parity = [] if session.options.is_file else [_parity(session)]
    return [
        *(foreign if session.options.is_file else own),
        *middle,
        *parity,
        _simulators(session),
        _qonnx(session),
        *verilog.verilog_steps(session),
        pictures.quality_step(session, progress),
        *hardware.hardware_steps(session),
    ]


def _calibrate(session: Session, progress: Progress) -> Step:
    def material() -> Any:
        return {
            "network": session.network_sha256,
            "target": session.target.sha256,
            "weight_bits": session.plan.weight_bits,
            "act_bits": session.plan.act_bits,
            **session.calibration_material,
        }

    def run(scratch: Path) -> None:
        save_quantized(session.quantize(progress), scratch)

    return Step("calibrate", material, (), QUANTIZED, run)


def _export(session: Session) -> Step:
    def run(scratch: Path) -> None:
        save_model(export_qonnx(session.frozen, session.target, session.size), scratch / "model.qonnx")

    def material() -> Any:
        return {
            "network": session.network_sha256,
            "target": session.target.sha256,
            "bits": [session.plan.weight_bits, session.plan.act_bits],
            "size": session.size,
        }

    return Step("export", material, QUANTIZED, ("model.qonnx",), run)


def _import(session: Session) -> Step:
    def run(scratch: Path) -> None:
        shutil.copyfile(session.options.model or "", scratch / "model.qonnx")

    return Step("import", lambda: session.foreign_sha256, (), ("model.qonnx",), run)


def _lower(session: Session) -> Step:
    """Lower the file that was written, and for our own network compare with the graph built from memory."""

    def run(scratch: Path) -> None:
        source = session.options.model if session.options.is_file else "model.qonnx"
        graph = lower(session.model, session.target, source or "model.qonnx")
        graph.save(scratch / "graph.json")
        memory = None if session.options.is_file else to_intgraph(session.frozen).content_sha256
        result = {
            "content_sha256_lowered": graph.content_sha256,
            "content_sha256_in_memory": memory,
            "equal": None if memory is None else memory == graph.content_sha256,
            "nodes": len(graph.nodes),
        }
        write_json(scratch / RESULTS / "lower.json", result)

    def material() -> Any:
        return {"target": session.target.sha256, "network": session.source_sha256}

    needs = ("model.qonnx",) if session.options.is_file else ("model.qonnx", *QUANTIZED)
    return Step("lower", material, needs, ("graph.json", f"{RESULTS}/lower.json"), run)


def _result_step(
    name: str, material: Callable[[], Any], needs: tuple[str, ...], work: Callable[[], dict[str, Any]]
) -> Step:
    """A step that leaves only findings for the report."""

    def run(scratch: Path) -> None:
        write_json(scratch / RESULTS / f"{name}.json", work())

    return Step(name, material, needs, (f"{RESULTS}/{name}.json",), run)


def _check(session: Session) -> Step:
    def work() -> dict[str, Any]:
        proofs = prove_accumulators(session.graph, session.target)
        return {
            "proofs": [{**asdict(proof), "holds": proof.holds} for proof in proofs],
            "diagnostics": [str(item) for item in legality(session.graph, session.target)],
        }

    return _result_step("check", lambda: session.target.sha256, ("graph.json",), work)


def comparison_json(result: Comparison) -> dict[str, Any]:
    """A comparison as the report shows it."""
    return {
        "tensors": result.tensors,
        "elements": result.elements,
        "mismatches": result.mismatches,
        "equal": result.equal,
        "first_mismatch": None if result.first is None else asdict(result.first),
    }


def _parity(session: Session) -> Step:
    """The frozen Brevitas model in float64 against the reference simulator, every quantized tensor."""

    def work() -> dict[str, Any]:
        net = load_frozen(session.quant_net(), session.frozen)
        image = session.parity_image
        right = reference.trace(session.graph, image)
        found = frozen_against_reference(net, session.frozen, session.graph, image, right)
        return {"image": session.pairs[0].name, "size": list(image.shape[:2])} | comparison_json(found)

    def material() -> Any:
        return {"network": session.network_sha256, "target": session.target.sha256, "image": session.pairs_sha256}

    return _result_step("parity", material, ("graph.json", *QUANTIZED), work)


def _simulators(session: Session) -> Step:
    """The fast simulator against the reference, every tensor that both name."""

    def work() -> dict[str, Any]:
        image = session.parity_image
        started = time.perf_counter()
        right = reference.trace(session.graph, image)
        between = time.perf_counter()
        program = compile_graph(session.graph)
        left = program.trace(image)
        left = {name: left[name] for name in right if name in left}  # execution order
        program.run(image)
        warm = time.perf_counter()
        output = program.run(image)
        ended = time.perf_counter()
        found = comparison_json(compare({**left, session.graph.output: output}, right))
        return {
            "image": session.pairs[0].name,
            "size": list(image.shape[:2]),
            **found,
            "reference_seconds": round(between - started, 4),
            "fast_seconds": round(ended - warm, 4),
        }

    return _result_step("simulators", lambda: session.pairs_sha256, ("graph.json",), work)


def _qonnx(session: Session) -> Step:
    def work() -> dict[str, Any]:
        found = qonnx_oracle(session.model, session.graph, session.tile)
        passed = found.elements > 0 and found.mismatches == 0
        tie_text = f"; elements one step off at a float32 near tie: {found.ties}" if found.ties else ""
        return {
            "name": "qonnx",
            "status": "passed" if passed else "failed",
            "elements": found.elements,
            "mismatches": found.mismatches,
            "ties": found.ties,
            "detail": f"{found.tensors} quantized tensors, node by node in float32{tie_text}"
            + (f"; first difference in {found.first}" if found.first else ""),
        }

    def material() -> Any:
        return image_sha256(session.tile)

    return _result_step("oracle_qonnx", material, ("graph.json", "model.qonnx"), work)


def load_result(session: Session, name: str) -> dict[str, Any]:
    """Findings of a step that has run."""
    found: dict[str, Any] = json.loads((session.folder / RESULTS / f"{name}.json").read_text())
    return found


def deliverables(session: Session, steps: list[Step]) -> dict[str, str]:
    """Digest of every file of these steps that the user gets, by path; logs are left out."""
    found = {}
    for name in sorted(name for step in steps for name in step.makes if not name.startswith(f"{STATE}/")):
        place = session.folder / name
        for path in sorted(place.rglob("*")) if place.is_dir() else [place]:
            if path.is_file() and path.suffix != ".log":
                found[path.relative_to(session.folder).as_posix()] = sha256_file(path)
    return found
