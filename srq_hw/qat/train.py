"""The training loop: Adam on L1, cosine rates, the integer simulator's score after every epoch, exact resume."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from srq_hw.errors import RunError
from srq_hw.normalform.normal import NormalNet, evaluate
from srq_hw.qat.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from srq_hw.qat.data import Training, draw_batch
from srq_hw.qat.score import Score
from srq_hw.qat.student import KINDS, StepRates, Student
from srq_hw.qat.workers import Workers
from srq_hw.quantize.ptq import Quantized
from srq_hw.quantize.reconstruct import cosine

Progress = Callable[[int, int], None]
Validate = Callable[[Quantized], Score]


@dataclass(frozen=True)
class Schedule:
    """How long, on what, how fast.

    patch: side of a crop, low-resolution pixels; distill: weight of L1 to the float network, the rest is L1 to the
    original; average: decay of the weights' moving average per step (0: none); patience: epochs without a better score
    after which training stops (None: never).
    """

    epochs: int
    iterations: int
    batch: int
    patch: int
    rates: StepRates
    distill: float
    average: float
    seed: int
    patience: int | None


def train(
    student: Student,
    training: Training,
    schedule: Schedule,
    workers: Workers,
    validate: Validate,
    folder: Path,
    settings: dict[str, Any],
    progress: Progress | None = None,
) -> Checkpoint:
    """Train to the end of the schedule or until patience is over; the state after it, the best epoch's tensors in it.

    Epoch 0 of the log is the start. Continues folder/checkpoint.pt where there is one of the same settings, with the
    result that an uninterrupted run has. RunError where the loss leaves the numbers.
    """
    student.to(workers.device)  # before Adam: its state is where its parameters are
    adam = student.optimizer(schedule.rates)
    state = load_checkpoint(folder, settings)
    workers.wait()  # nobody writes the file before all have read it
    if state is None:
        learned = student.tensors()
        row = _row(0, None, 0.0, _score(student, learned, workers, validate))
        average = learned if schedule.average else {}
        state = Checkpoint(settings, 0, learned, average, learned, adam.state_dict(), [row])
        _save(folder, state, workers)
    else:
        student.load(state.learned)
        adam.load_state_dict(state.adam)
    teacher = to_device(student.plan.net, workers.device) if schedule.distill else None
    average = {name: tensor.to(workers.device, copy=True) for name, tensor in state.average.items()}
    while not workers.agree(_over(state, schedule)):
        started, epoch = time.perf_counter(), state.epoch
        student.begin_epoch(epoch)
        loss = 0.0
        for index in range(epoch * schedule.iterations, (epoch + 1) * schedule.iterations):
            _set_rates(adam, schedule, index)
            loss += _step(student, adam, training, teacher, schedule, workers, index)
            if average:
                _update_average(average, student.tensors(), schedule.average, index)
            if progress:
                progress(index + 1, schedule.epochs * schedule.iterations)
        workers.require_same(student.learned.values())
        mean = torch.tensor([loss / schedule.iterations], dtype=torch.float64, device=workers.device)
        workers.average([mean])
        learned = _on_cpu(student.tensors())
        kept = _on_cpu(average) or learned
        score = _score(student, kept, workers, validate)
        row = _row(epoch + 1, float(mean), time.perf_counter() - started, score)
        best = kept if _is_best(state, row) else state.best
        log = [*state.log, row]
        state = replace(state, epoch=epoch + 1, learned=learned, average=_on_cpu(average), best=best, log=log)
        state = replace(state, adam=adam.state_dict())
        _save(folder, state, workers)
    student.to("cpu")
    return state


def _step(
    student: Student,
    adam: torch.optim.Adam,
    training: Training,
    teacher: NormalNet | None,
    schedule: Schedule,
    workers: Workers,
    index: int,
) -> float:
    """One step of gradient descent; this process's loss."""
    low, high = draw_batch(training, schedule.batch, schedule.patch, schedule.seed, index, workers.part())
    low, high = low.to(workers.device), high.to(workers.device)
    loss = image_loss(student, teacher, low, high, schedule.distill)
    if student.rule.decay:
        loss = loss + student.decay()
    value = float(loss.detach())
    if not math.isfinite(value):
        raise RunError(f"QAT of {student.plan.net.name}: the loss is no number at step {index + 1}; lower --rate")
    adam.zero_grad()
    loss.backward()
    workers.average(tensor.grad for tensor in student.learned.values() if tensor.grad is not None)
    adam.step()
    if student.observing:
        workers.average(quantizer.seen for quantizer in student.quantizers.values())
        student.follow(schedule.batch)
    return value


def image_loss(student: Student, teacher: NormalNet | None, low: Tensor, high: Tensor, distill: float) -> Tensor:
    """L1 in grey levels: (1 - distill) to the original, distill to the float network's output."""
    output = student.net(low)
    loss = (1.0 - distill) * F.l1_loss(output, high)
    if teacher is not None:
        with torch.no_grad():
            wanted = evaluate(teacher, low).clamp(0.0, 255.0)
        loss = loss + distill * F.l1_loss(output, wanted)
    return loss


def to_device(net: NormalNet, device: torch.device) -> NormalNet:
    """The float network with float32 tensors on a device: conversions once instead of in every step."""

    def moved(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor.to(device, torch.float32)

    layers = tuple(
        replace(
            layer,
            weight=moved(layer.weight),
            bias=moved(layer.bias),
            slope=moved(layer.slope),
            scale=moved(layer.scale),
            shift=moved(layer.shift),
        )
        for layer in net.layers
    )
    return replace(net, layers=layers)


def _set_rates(adam: torch.optim.Adam, schedule: Schedule, index: int) -> None:
    """Rates along a cosine to 0."""
    fall = cosine(index / (schedule.epochs * schedule.iterations), 0.0)
    for group, kind in zip(adam.param_groups, KINDS, strict=True):
        group["lr"] = schedule.rates.of(kind) * fall


def _update_average(average: dict[str, Tensor], now: dict[str, Tensor], decay: float, index: int) -> None:
    """Moving average that forgets its start: the decay grows with the steps made."""
    keep = min(decay, (1 + index) / (10 + index))
    for name, tensor in average.items():
        tensor.mul_(keep).add_(now[name], alpha=1.0 - keep)


def _score(student: Student, learned: dict[str, Tensor], workers: Workers, validate: Validate) -> Score:
    """The first process scores; the others get nothing to decide by."""
    if not workers.first:
        return Score(math.nan, math.nan)
    student.to("cpu")
    score = validate(student.result(learned))
    student.to(workers.device)
    return score


def _row(epoch: int, loss: float | None, seconds: float, score: Score) -> dict[str, Any]:
    return {"epoch": epoch, "loss": loss, "seconds": round(seconds, 3), "psnr": score.psnr, "ssim": score.ssim}


def _is_best(state: Checkpoint, row: dict[str, Any]) -> bool:
    return bool(row["psnr"] > max(item["psnr"] for item in state.log))


def best_epoch(state: Checkpoint) -> int:
    """The first epoch with the best score."""
    return int(max(state.log, key=lambda row: (row["psnr"], -row["epoch"]))["epoch"])


def _over(state: Checkpoint, schedule: Schedule) -> bool:
    waited = state.epoch - best_epoch(state)
    return state.epoch >= schedule.epochs or (schedule.patience is not None and waited >= schedule.patience)


def _on_cpu(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}


def _save(folder: Path, state: Checkpoint, workers: Workers) -> None:
    if workers.first:
        save_checkpoint(folder, state)
