"""What every peer's worker does alike: read a job, quantize, run the images, write results. Needs numpy only.

A worker is started as `python run_<peer>.py JOB.json` inside the peer's own environment, without srq-hw. Tensors are
float32 (1, C, H, W) in the network's own units. The report is rewritten after every set, so that a worker that is
killed keeps what it had finished.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Tensor = NDArray[np.float32]
Run = Callable[[Tensor], Tensor]

#: grey levels by which a peer's own float run of the network may differ from srq-hw's
FLOAT_TOLERANCE = 0.05


@dataclass(frozen=True)
class Job:
    """One network to quantize in one way.

    model: float ONNX file, one input, height and width free. patches: calibration inputs. expected: the float
    network's output on the first of them. variant, bits: the way. keep: names of the convolutions that stay at 8
    bits where bits is less. grey_level: one grey level in the network's units. artefact: a quantized file to run
    instead of quantizing, or None. scratch: an empty folder.
    """

    model: Path
    patches: tuple[Tensor, ...]
    expected: Tensor
    variant: str
    bits: int
    keep: tuple[str, ...]
    grey_level: float
    threads: int
    artefact: Path | None
    scratch: Path


@dataclass(frozen=True)
class Quantized:
    """What a peer made of a job: its float and its quantized network as functions, and which layers it quantized.

    layers: operator type -> (how many have every input quantized, how many there are).
    """

    run: Run
    run_float: Run | None
    layers: Mapping[str, tuple[int, int]]
    note: str = ""


def main(quantize: Callable[[Job], Quantized], packages: Sequence[str]) -> None:
    """Do the job named on the command line; packages: distributions whose versions go into the report."""
    raw = json.loads(Path(sys.argv[1]).read_text())
    path = Path(raw["report"])
    report: dict[str, Any] = {"versions": {name: version(name) for name in packages}, "sets": {}}
    try:
        _work(quantize, raw, report, path)
    except Exception as error:  # whatever the peer raises becomes the row's error sentence
        report["error"] = sentence(error)
        _write(path, report)
        raise


def sentence(error: BaseException) -> str:
    """An exception as one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no message'}"[:300]


def _work(quantize: Callable[[Job], Quantized], raw: dict[str, Any], report: dict[str, Any], path: Path) -> None:
    job = _job(raw)
    started = time.perf_counter()
    made = quantize(job)
    report["quantize_seconds"] = round(time.perf_counter() - started, 2)
    report["layers"] = {name: list(counts) for name, counts in made.layers.items()}
    report["note"] = made.note
    report["float_difference"] = _float_difference(made, job)
    for name, files in raw["sets"].items():
        started = time.perf_counter()
        with np.load(files["inputs"]) as inputs:
            outputs = {key: np.asarray(made.run(inputs[key]), np.float32) for key in inputs.files}
        beside = Path(files["outputs"]).with_suffix(".part.npz")
        np.savez(beside, **outputs)  # type: ignore[arg-type]
        os.replace(beside, files["outputs"])
        report["sets"][name] = {"run_seconds": round(time.perf_counter() - started, 2)}
        _write(path, report)


def _job(raw: dict[str, Any]) -> Job:
    with np.load(raw["calibration"]) as arrays:
        patches = tuple(arrays[key] for key in sorted(arrays.files) if key != "expected")
        expected = arrays["expected"]
    return Job(
        Path(raw["model"]),
        patches,
        expected,
        raw["variant"],
        raw["bits"],
        tuple(raw["keep"]),
        raw["grey_level"],
        raw["threads"],
        Path(raw["artefact"]) if raw["artefact"] else None,
        Path(raw["scratch"]),
    )


def _float_difference(made: Quantized, job: Job) -> float | None:
    """Largest difference in grey levels between the peer's float run and srq-hw's on the first patch."""
    if made.run_float is None:
        return None
    found = np.asarray(made.run_float(job.patches[0]), np.float64)
    if found.shape != job.expected.shape:
        raise RuntimeError(f"the float network gives {found.shape} here and {job.expected.shape} in srq-hw")
    worst = float(np.abs(found - job.expected).max()) / job.grey_level
    if not worst <= FLOAT_TOLERANCE:
        raise RuntimeError(f"the float network differs by {worst:.3g} grey levels from srq-hw's before quantization")
    return worst


def _write(path: Path, report: dict[str, Any]) -> None:
    beside = path.with_suffix(".part.json")
    beside.write_text(json.dumps(report))
    os.replace(beside, path)
