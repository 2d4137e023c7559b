"""The trainer: it learns, it resumes exactly, its processes agree, and its files are data."""

from __future__ import annotations

import math
import os
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from srq_hw.errors import InputError, RunError
from srq_hw.normalform.normal import evaluate
from srq_hw.qat.checkpoint import FILE, Checkpoint, load_checkpoint
from srq_hw.qat.data import draw_batch
from srq_hw.qat.train import Schedule, best_epoch, image_loss, to_device, train
from srq_hw.qat.workers import Workers, join_workers
from tests.qat.tiny import SCHEDULE, fresh, start, student, tensors_equal, training, validate

ALONE = Workers(0, 1, torch.device("cpu"))
SETTINGS = {"run": "test"}


def run(folder: Path, rule: str = "lsq", schedule: Schedule = SCHEDULE, stop_at: int | None = None) -> Checkpoint:
    """Train in a folder; stop_at: the step at which the user presses Ctrl-C."""

    def progress(done: int, total: int) -> None:
        if done == stop_at:
            raise KeyboardInterrupt

    return train(student(rule), training(), schedule, ALONE, validate, fresh(folder), SETTINGS, progress)


@pytest.mark.parametrize("rule", ["lsq", "pact", "pams", "linq"])
def test_training_beats_its_start(tmp_path: Path, rule: str) -> None:
    """The integer output comes nearer to the float network's, with every quantizer."""
    state = run(tmp_path, rule, replace(SCHEDULE, epochs=2, iterations=25, distill=1.0))
    first, last = state.log[0], state.log[-1]
    assert last["psnr"] > first["psnr"] + 0.5, state.log
    assert best_epoch(state) > 0 and not tensors_equal(state.best, student(rule).tensors())


@pytest.mark.parametrize(("rule", "average", "stop_at"), [("lsq", 0.9, 31), ("lsq", 0.0, 5), ("pams", 0.0, 24)])
def test_resume_is_exact(tmp_path: Path, rule: str, average: float, stop_at: int) -> None:
    """Stopped in the first epoch, at the end of the second, in the third: the uninterrupted run's numbers."""
    schedule = replace(SCHEDULE, average=average)
    whole = run(tmp_path / "whole", rule, schedule)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", rule, schedule, stop_at)
    left = load_checkpoint(tmp_path / "cut", SETTINGS)
    assert left is not None and left.epoch == (stop_at - 1) // SCHEDULE.iterations
    resumed = run(tmp_path / "cut", rule, schedule)
    for name in ("learned", "average", "best"):
        assert tensors_equal(getattr(whole, name), getattr(resumed, name)), name
    assert bool(whole.average) == (average > 0)

    def plain(state: Checkpoint) -> list[dict[str, object]]:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in state.log]

    assert plain(whole) == plain(resumed) and len(whole.log) == SCHEDULE.epochs + 1


def test_a_checkpoint_is_data(tmp_path: Path) -> None:
    """Loadable with weights_only, in one piece, refused for another run, refused when damaged."""
    run(tmp_path, schedule=replace(SCHEDULE, epochs=1))
    assert torch.load(tmp_path / FILE, weights_only=True)["epoch"] == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == [FILE, "log.json"]
    with pytest.raises(InputError, match=r"belongs to another run \(run 'test' there, 'other' here\)"):
        load_checkpoint(tmp_path, {"run": "other"})
    content = (tmp_path / FILE).read_bytes()
    for damaged in (b"", content[: len(content) // 2], b"no checkpoint", b"\x80\x02."):
        (tmp_path / FILE).write_bytes(damaged)
        with pytest.raises(InputError, match="not a checkpoint of srq-hw qat"):
            load_checkpoint(tmp_path, SETTINGS)


def test_patience_ends_a_run(tmp_path: Path) -> None:
    """A rate that destroys: no epoch beats the start, so training ends after `patience` epochs and keeps the start."""
    rates = replace(SCHEDULE.rates, weights=1.0, weight_steps=1.0, activations=1.0)
    state = run(tmp_path, schedule=replace(SCHEDULE, epochs=9, iterations=3, patience=2, average=0.5, rates=rates))
    assert (state.epoch, best_epoch(state)) == (2, 0)
    assert tensors_equal(state.best, student().tensors())


def test_a_loss_that_is_no_number(tmp_path: Path) -> None:
    rates = replace(SCHEDULE.rates, weight_steps=1e6)
    with pytest.raises(RunError, match=r"the loss is no number at step \d+; lower --rate"):
        run(tmp_path, schedule=replace(SCHEDULE, rates=rates))


def test_the_loss_is_the_mix_asked_for() -> None:
    one = student()
    low, high = draw_batch(training(), 4, 12, 0, 0)
    teacher = to_device(one.plan.net, torch.device("cpu"))
    with torch.no_grad():
        output, wanted = one.net(low), evaluate(start().plan.net, low).clamp(0, 255)
        parts = [float((output - goal).abs().mean()) for goal in (high, wanted)]
        for distill in (0.0, 0.3, 1.0):
            found = float(image_loss(one, teacher if distill else None, low, high, distill))
            assert math.isclose(found, (1 - distill) * parts[0] + distill * parts[1], rel_tol=1e-5)


def test_batches_are_a_function_of_seed_and_step() -> None:
    """High resolution belongs to low, the parts of two processes are the whole, other steps see other pixels."""
    low, high = draw_batch(training(), 4, 12, 0, 7)
    assert low.shape == (4, 3, 12, 12) and high.shape == (4, 3, 24, 24)
    again = draw_batch(training(), 4, 12, 0, 7)
    assert torch.equal(low, again[0]) and torch.equal(high, again[1])
    for rank in (0, 1):
        part = draw_batch(training(), 4, 12, 0, 7, slice(rank, None, 2))
        assert torch.equal(part[0], low[rank::2]) and torch.equal(part[1], high[rank::2])
    assert not torch.equal(low, draw_batch(training(), 4, 12, 0, 8)[0])
    assert not torch.equal(low, draw_batch(training(), 4, 12, 1, 7)[0])
    # the float network made high from low: crop and turn must have hit the same place in both
    small = torch.nn.functional.avg_pool2d(high, 2)
    correlation = torch.corrcoef(torch.stack([small.flatten(), low.flatten()]))[0, 1]
    others = torch.corrcoef(torch.stack([small.flip(2).flatten(), low.flatten()]))[0, 1]
    assert abs(correlation) > abs(others)


RULES_SHARED = ("lsq", "pams")
PROGRAM = """
import sys
from pathlib import Path
import torch
from srq_hw.qat.workers import join_workers
from tests.qat.test_train import RULES_SHARED, SCHEDULE, one_step

torch.set_num_threads(1)
with join_workers("cpu", SCHEDULE.batch) as workers:
    found = {rule: one_step(rule, workers, Path(sys.argv[1])) for rule in RULES_SHARED}
torch.save(found, Path(sys.argv[1]) / f"{workers.rank}.pt")
"""


def one_step(rule: str, workers: Workers, folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    """Gradients of the first step, and what it made of the weights."""
    one = student(rule)
    schedule = replace(SCHEDULE, epochs=1, iterations=1)
    train(one, training(), schedule, workers, validate, fresh(folder / rule), {})
    gradients = {name: tensor.grad for name, tensor in one.learned.items() if tensor.grad is not None}
    return {"gradients": gradients, "learned": one.tensors()}


def test_two_processes_average_to_the_gradient_of_one(tmp_path: Path, repo_root: Path) -> None:
    """Two gloo processes on the loopback: bitwise the same in both, and one process's but for the order of sums."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    shared = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "GLOO_SOCKET_IFNAME": "lo"}
    command = [sys.executable, "-c", PROGRAM, str(fresh(tmp_path / "two"))]
    started = [
        subprocess.Popen(
            command, env=os.environ | shared | {"RANK": rank}, cwd=repo_root, stderr=subprocess.PIPE, text=True
        )
        for rank in "01"
    ]
    for process in started:
        _, error = process.communicate(timeout=240)
        assert process.returncode == 0, error
    both = [torch.load(tmp_path / "two" / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    for rule in RULES_SHARED:
        alone = one_step(rule, ALONE, tmp_path / "alone")
        for kind in ("gradients", "learned"):
            assert tensors_equal(both[0][rule][kind], both[1][rule][kind]), kind
            assert both[0][rule][kind].keys() == alone[kind].keys()
        assert any(float(tensor.abs().max()) > 0.01 for tensor in alone["gradients"].values())
        for name, tensor in alone["gradients"].items():
            torch.testing.assert_close(both[0][rule]["gradients"][name], tensor, rtol=1e-4, atol=1e-5, msg=name)


def test_a_batch_that_cannot_be_shared(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "3")
    with (
        pytest.raises(InputError, match=r"--batch 16: 3 processes share it; allowed are multiples of 3"),
        join_workers("cpu", 16),
    ):
        pass
