"""A cell of the table: network, set, setting, peer, variant. Finished cells are kept on disk under their hash."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from scripts.peers.catalogue import FOLDER, Peer, Setting
from scripts.peers.environments import ensure
from scripts.peers.material import Material, TestSet, score, write_inputs
from srq_hw.errors import InputError, RunError
from srq_hw.files import write_text

#: raise it when scoring changes, so that kept cells are measured again
_PROTOCOL = 1


@dataclass(frozen=True)
class Cell:
    """A measured cell. psnr: dB on Y, mean over the set's images; None with an error sentence where it failed.

    layers: operator type -> [quantized, all]. float_difference: grey levels between the peer's float run and srq-hw's.
    """

    key: str
    network: str
    images: str
    setting: str
    peer: str
    variant: str
    psnr: float | None = None
    per_image: dict[str, float] = field(default_factory=dict)
    error: str | None = None
    quantize_seconds: float | None = None
    run_seconds: float | None = None
    layers: dict[str, list[int]] = field(default_factory=dict)
    note: str = ""
    float_difference: float | None = None
    versions: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Bench:
    """Where things lie and how workers run. retry: measure failed cells again."""

    out: Path
    environments: Path
    weights: Path
    threads: int
    timeout: float
    retry: bool


def measure(
    bench: Bench, peer: Peer, setting: Setting, variant: str, material: Material, sets: Sequence[TestSet]
) -> list[Cell]:
    """The cells of one way to quantize one network, one per set: kept ones from disk, the rest by one worker."""
    blanks = [
        Cell(
            _key(bench, peer, setting, variant, material, images),
            material.net.name,
            images.name,
            setting.label,
            peer.name,
            variant,
        )
        for images in sets
    ]
    kept = {blank.key: cell for blank in blanks if (cell := _read(bench, blank.key)) is not None}
    todo = [(blank, images) for blank, images in zip(blanks, sets, strict=True) if blank.key not in kept]
    if todo:
        for cell in _run(bench, peer, setting, variant, material, todo):
            _write(bench, cell)
            kept[cell.key] = cell
    return [kept[blank.key] for blank in blanks]


def _run(
    bench: Bench,
    peer: Peer,
    setting: Setting,
    variant: str,
    material: Material,
    todo: Sequence[tuple[Cell, TestSet]],
) -> list[Cell]:
    folder = (bench.out / "work" / todo[0][0].key).absolute()  # workers run elsewhere
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "scratch").mkdir(parents=True)
    try:
        python = ensure(peer.environment, peer.requirements, bench.environments).absolute()
        job = _job(bench, peer, setting, variant, material, folder)
        for _, images in todo:
            files = {kind: folder / f"{images.name}.{kind}.npz" for kind in ("inputs", "outputs")}
            write_inputs(material.net, images, files["inputs"])
            job["sets"][images.name] = {kind: str(path) for kind, path in files.items()}
        report, error = _work(bench, python, peer.worker, job, folder)
        return [_finish(blank, images, material, job, report, error) for blank, images in todo]
    except (InputError, RunError, OSError) as found:
        return [_with(blank, {"error": str(found)}) for blank, _ in todo]
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _job(bench: Bench, peer: Peer, setting: Setting, variant: str, material: Material, folder: Path) -> dict[str, Any]:
    artefact = bench.weights / peer.artefact if peer.artefact else None
    if artefact is not None and not artefact.is_file():
        raise InputError(f"{artefact}: peer {peer.name} runs this file; it is not there")
    return {
        "model": str(material.model.resolve()),
        "calibration": str(material.calibration.resolve()),
        "report": str((folder / "report.json").resolve()),
        "scratch": str((folder / "scratch").resolve()),
        "artefact": str(artefact.resolve()) if artefact else None,
        "variant": variant,
        "bits": setting.bits,
        "keep": list(material.keep) if setting.bits < 8 else [],
        "grey_level": material.grey_level,
        "threads": bench.threads,
        "sets": {},
    }


def _work(
    bench: Bench, python: Path, worker: Path, job: dict[str, Any], folder: Path
) -> tuple[dict[str, Any], str | None]:
    """Run the worker; its report and, where it failed, one sentence on why."""
    (folder / "job.json").write_text(json.dumps(job))
    threads = str(bench.threads)
    environment = {
        **{key: value for key, value in os.environ.items() if not key.startswith("PYTHON")},
        **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), threads),
        "PYTHONWARNINGS": "ignore",
        "PYTHONPATH": str(FOLDER.parents[1]),  # workers import scripts.peers.exchange, nothing else of this project
    }
    log, error = folder / "log.txt", None
    with log.open("w") as sink:
        try:
            done = subprocess.run(
                [str(python), str(worker), str((folder / "job.json").resolve())],
                stdout=sink,
                stderr=subprocess.STDOUT,
                env=environment,
                cwd=folder / "scratch",
                timeout=bench.timeout,
            )
            status: int | None = done.returncode
        except subprocess.TimeoutExpired:
            status, error = None, f"stopped after {bench.timeout:.0f} s (--timeout)"
    path = Path(job["report"])
    report: dict[str, Any] = json.loads(path.read_text()) if path.is_file() else {}
    if status:
        lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
        last = lines[-1][:300] if lines else "no message"
        ended = f"signal {-status}" if status < 0 else f"exit status {status}"
        error = report.get("error") or f"{ended}: {last}"
    return report, error


def _finish(
    blank: Cell, images: TestSet, material: Material, job: dict[str, Any], report: dict[str, Any], error: str | None
) -> Cell:
    names = ("versions", "layers", "note", "float_difference", "quantize_seconds")
    facts: dict[str, Any] = {name: report[name] for name in names if name in report}
    done = report.get("sets", {}).get(images.name)
    if done is None:
        return _with(blank, {**facts, "error": error or "the worker ended without a result for this set"})
    with np.load(job["sets"][images.name]["outputs"]) as arrays:
        outputs = {name: arrays[name] for name in arrays.files}
    try:
        per_image = score(material, images, outputs)
    except RunError as found:
        return _with(blank, {**facts, "error": str(found)})
    mean = fmean(per_image.values())
    return _with(blank, {**facts, "psnr": mean, "per_image": per_image, "run_seconds": done["run_seconds"]})


def _with(blank: Cell, facts: Mapping[str, Any]) -> Cell:
    return Cell(**{**asdict(blank), **facts})


def _key(bench: Bench, peer: Peer, setting: Setting, variant: str, material: Material, images: TestSet) -> str:
    """Hash of everything that the result depends on: code and packages of the peer, network, patches, images."""
    code = [peer.worker, *(FOLDER / name for name in ("exchange.py", *peer.helpers)), peer.requirements]
    if peer.artefact and (bench.weights / peer.artefact).is_file():
        code.append(bench.weights / peer.artefact)
    facts = {
        "protocol": _PROTOCOL,
        "files": [hashlib.sha256(path.read_bytes()).hexdigest() for path in code],
        "peer": [peer.name, variant, asdict(setting)],
        "network": [material.net.name, material.sha256, material.net.scale, material.grey_level, material.keep],
        "images": [images.name, images.sha256],
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:24]


def _read(bench: Bench, key: str) -> Cell | None:
    path = bench.out / "cells" / f"{key}.json"
    if not path.is_file():
        return None
    cell = Cell(**json.loads(path.read_text()))
    return None if cell.error and bench.retry else cell


def _write(bench: Bench, cell: Cell) -> None:
    path = bench.out / "cells" / f"{cell.key}.json"
    write_text(path, json.dumps(asdict(cell), indent=1))
