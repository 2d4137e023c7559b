"""`srq-hw qat` from end to end: quantize after training or read what is quantized, train on, prove the integers, write
what a build takes up."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from srq_hw.errors import InputError
from srq_hw.evaluate.colour import network_view
from srq_hw.evaluate.datasets import Pair, iter_pairs
from srq_hw.evaluate.material import image_notes
from srq_hw.files import write_json
from srq_hw.networks.loading import FloatNetwork, load_network
from srq_hw.normalform.normal import NormalNet
from srq_hw.normalform.trace import normalize
from srq_hw.pipeline.engine import locked, sha256_json
from srq_hw.pipeline.session import centre, image_sha256, normal_sha256
from srq_hw.qat.checkpoint import FILE, Checkpoint
from srq_hw.qat.data import Training, read_pairs, training_of
from srq_hw.qat.options import QatOptions, check_options, recipe_of
from srq_hw.qat.score import Score, float_score, integer_score, require_parity
from srq_hw.qat.start import START, Stored, read_stored
from srq_hw.qat.student import Student
from srq_hw.qat.train import best_epoch, train
from srq_hw.qat.workers import Workers, join_workers
from srq_hw.quantize.accumulator import fit_accumulators
from srq_hw.quantize.calibrate import sample_patches
from srq_hw.quantize.fallbacks import fallback_notes
from srq_hw.quantize.held import Bound
from srq_hw.quantize.ptq import Quantized, quantize
from srq_hw.quantize.recipe import Recipe
from srq_hw.quantize.store import load_quantized, save_quantized
from srq_hw.quantize.weight_search import input_power
from srq_hw.target import Target, load_target

Progress = Callable[[int, int], None]
Image = npt.NDArray[np.uint8]

#: without --val, every so-many-th image of --data is scored on and not trained on
HELD_OUT = 16
#: side of the crop on which all integers are compared, low-resolution pixels
PARITY_SIDE = 48


@dataclass(frozen=True)
class _Job:
    """Everything read, nothing done yet. Training starts from what is stored, else from what the recipe makes."""

    network: FloatNetwork
    normal: NormalNet
    target: Target
    recipe: Recipe | None
    stored: Stored | None
    training: Training
    scored: list[Pair]
    left_out: int


def run_qat(
    options: QatOptions, progress: Progress | None = None, warn: Callable[[str], None] = lambda text: None
) -> dict[str, Any] | None:
    """Train; the findings as plain data, or None in all processes but the first.

    Leaves in --out: calibration.json and weights.safetensors of the best epoch (`quantize.store`), start/ with the same
    of where training began, log.json, checkpoint.pt. A run that was stopped goes on where it was. warn: told of what
    is unusual about the images and what the target lacks of the recipe.
    InputError for wrong options or files, RunError where an integer differs or the loss leaves the numbers.
    """
    check_options(options)
    with join_workers(options.device, options.batch) as workers:
        job = _read(options)
        if not workers.first:
            return _run(options, job, workers, progress)
        for text in _notes(options, job):
            warn(text)
        _prepare(options.out)
        with locked(options.out):
            return _run(options, job, workers, progress)


def _read(options: QatOptions) -> _Job:
    network = load_network(options.network, options.weights)
    target, recipe = load_target(options.target), recipe_of(options)
    normal = normalize(network)
    stored = read_stored(options, normal, target)
    pairs = read_pairs(options.data, network.scale)
    if options.val is None:
        if len(pairs) < 2:
            raise InputError("--data: one image; give --val too, or a folder with more images")
        scored, rest = pairs[::HELD_OUT], [pair for index, pair in enumerate(pairs) if index % HELD_OUT]
    else:
        scored, rest = list(iter_pairs(options.val, network.scale, "--val")), pairs
    seen = {image_sha256(pair.hr) for pair in scored}
    kept = [pair for pair in rest if image_sha256(pair.hr) not in seen]
    left_out = len(rest) - len(kept)
    training = training_of(kept, network.scale, network.channels, options.patch, left_out)
    return _Job(network, normal, target, recipe, stored, training, scored, left_out)


def _notes(options: QatOptions, job: _Job) -> list[str]:
    """Of the post-training quantization that training starts from; a stored start has none."""
    if job.recipe is None:
        return []
    patches, sizes = job.recipe.patches, [(image.shape[0], image.shape[1]) for image in job.training.low]
    name = ", ".join(folder.name for folder in options.data)
    return [
        *fallback_notes(job.recipe.name, job.recipe, job.target),
        *image_notes(name, sizes, patches.size, patches.count),
    ]


def _prepare(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"--out {out}: cannot be written ({error.strerror}); choose another folder") from error


def _run(options: QatOptions, job: _Job, workers: Workers, progress: Progress | None) -> dict[str, Any] | None:
    if workers.first:
        _start(options, job, progress)
    workers.wait()
    start = load_quantized(options.out / START, job.normal, job.target)
    bits = job.recipe.accumulator_bits if job.recipe else None
    patches = sample_patches(job.training.low, job.recipe) if job.recipe else []
    bound = Bound(bits, input_power(start.plan.net, patches)) if bits else None
    student = Student(start, job.target, options.quantizer, bound)

    def within(quantized: Quantized) -> Quantized:
        """Nothing is changed where the last integers are proven to fit the recipe's accumulators."""
        if not bits:
            return quantized
        return Quantized(*fit_accumulators(quantized.plan, quantized.calibration, job.target, bits, patches))

    def validate(quantized: Quantized) -> Score:
        return integer_score(within(quantized), job.target, job.scored)

    state = train(
        student, job.training, options.schedule(), workers, validate, options.out, _settings(options, job), progress
    )
    if not workers.first:
        return None
    return _finish(options, job, within(student.result(state.best)), state)


def _start(options: QatOptions, job: _Job, progress: Progress | None) -> None:
    """What is stored, or post-training quantization, into --out/start, unless a run to go on with is there."""
    folder = options.out / START
    if not options.resume:
        (options.out / FILE).unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
    if (options.out / FILE).exists():
        return  # its settings are compared before it is used
    if job.stored:
        job.stored.copy(folder)
        return
    assert job.recipe is not None
    images = list(job.training.low)
    quantized = quantize(job.normal, job.target, job.recipe, images, options.weight_bits, options.act_bits, progress)
    folder.mkdir(exist_ok=True)
    save_quantized(quantized, folder)


def _finish(options: QatOptions, job: _Job, quantized: Quantized, state: Checkpoint) -> dict[str, Any]:
    side = min(PARITY_SIDE, *job.scored[0].lr.shape[:2])
    crop = network_view(centre(job.scored[0].lr, side, side), job.network.channels)
    comparisons = require_parity(quantized, job.target, crop)
    save_quantized(quantized, options.out)
    best = best_epoch(state)
    reference, start, final = float_score(job.network, job.scored), state.log[0], state.log[best]
    found = {
        "network": job.network.name,
        "target": job.target.name,
        "weight_bits": quantized.plan.weight_bits,
        "act_bits": quantized.plan.act_bits,
        "quantizer": options.quantizer,
        "init": job.recipe.name if job.recipe else None,
        "start_from": {"folder": str(job.stored.folder), "sha256": job.stored.sha256} if job.stored else None,
        "scored_on": options.val.name if options.val else f"every {HELD_OUT}th image of --data, not trained on",
        "images": len(job.scored),
        "left_out": job.left_out,
        "float": asdict(reference),
        "start": {"psnr": start["psnr"], "ssim": start["ssim"]},
        "best": {"epoch": best, "psnr": final["psnr"], "ssim": final["ssim"]},
        "epochs": state.epoch,
        "seconds": round(sum(row["seconds"] for row in state.log), 1),
        "parity": {
            "elements": sum(item.elements for item in comparisons),
            "mismatches": sum(item.mismatches for item in comparisons),
            "equal": all(item.equal for item in comparisons),
        },
        "notes": _notes(options, job),
    }
    write_json(options.out / "qat.json", found)
    return found


def _settings(options: QatOptions, job: _Job) -> dict[str, Any]:
    """What defines the run: a checkpoint of other settings is not continued."""
    return {
        "network": normal_sha256(job.normal),
        "target": job.target.sha256,
        **_origin(options, job),
        "--quantizer": options.quantizer,
        "--epochs": options.epochs,
        "--iterations": options.iterations,
        "--batch": options.batch,
        "--patch": options.patch,
        "--rate": options.rate,
        "--distill": options.distill,
        "--average": options.average,
        "--patience": options.patience,
        "--seed": options.seed,
        "--data": sha256_json([image_sha256(image) for image in job.training.high]),
        "--val": sha256_json([image_sha256(pair.hr) for pair in job.scored]),
    }


def _origin(options: QatOptions, job: _Job) -> dict[str, Any]:
    """Where training starts; a stored network has its widths in it."""
    if job.stored:
        return {"--start": job.stored.sha256}
    assert job.recipe is not None
    recipe = sha256_json(job.recipe.model_dump())
    return {"--init": recipe, "weight bits": options.weight_bits, "activation bits": options.act_bits}
