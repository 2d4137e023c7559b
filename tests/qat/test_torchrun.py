"""`torchrun --nproc-per-node 2 -m srq_hw qat ...` as a user has it: on the CPU, over the loopback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from srq_hw.evaluate.demo import demo_calibration_images
from srq_hw.evaluate.images import write_png
from srq_hw.networks.loading import load_network
from srq_hw.normalform.trace import normalize
from srq_hw.qat.checkpoint import FILE, LOG
from srq_hw.quantize.freeze import freeze
from srq_hw.quantize.store import FILES, load_quantized
from srq_hw.target import load_target
from tests.qat.tiny import tensors_equal

pytestmark = pytest.mark.slow

EPOCHS = 4
#: epochs, and steps of each
WHOLE, ONE_STEP = (EPOCHS, 3), (1, 1)
#: seconds that a command may take on a busy machine
PATIENCE = 240
TWO = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "srq_hw")
ONE = ("-m", "srq_hw")


@dataclass(frozen=True)
class Done:
    """A run's folder and what it printed."""

    folder: Path
    out: str

    @property
    def log(self) -> dict[str, Any]:
        """log.json without the seconds."""
        found: dict[str, Any] = json.loads((self.folder / LOG).read_text())
        return found | {"epochs": [without_seconds(row) for row in found["epochs"]]}

    @property
    def checkpoint(self) -> dict[str, Any]:
        found: dict[str, Any] = torch.load(self.folder / FILE, weights_only=True)
        return found

    def integers(self) -> dict[str, np.ndarray]:
        """Convolution -> its integer weights."""
        net, target = normalize(load_network()), load_target("int-generic")
        made = load_quantized(self.folder, net, target)
        return {name: conv.weight for name, conv in freeze(made.plan, made.calibration, target).convs.items()}


def without_seconds(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != "seconds"}


def command(launcher: tuple[str, ...], images: Path, out: Path, steps: tuple[int, int]) -> list[str]:
    """The embedded network, W4A4 from min-max. steps: epochs, and steps of each."""
    few = ("--epochs", steps[0], "--iterations", steps[1], "--batch", 4, "--patch", 16, "--average", 0)
    widths = ("--bits", 4, "--edges", 8, "--init", "minmax", "--device", "cpu", "--json")
    options = ("qat", "--data", images, "--out", out, *widths, *few)
    return [sys.executable, *launcher, *map(str, options)]


@contextmanager
def started(
    launcher: tuple[str, ...], images: Path, out: Path, root: Path, steps: tuple[int, int] = WHOLE
) -> Iterator[subprocess.Popen[str]]:
    """The command running; whatever is left of it and its processes is killed at the end."""
    alone = {name: value for name, value in os.environ.items() if name not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    process = subprocess.Popen(
        command(launcher, images, out, steps),
        env=alone | {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
        cwd=root,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            kill_all(process.pid)
        process.communicate()


def descendants(pid: int) -> list[int]:
    """Processes below one: torchrun gives each of its own a session, so a signal to the group does not reach them."""
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            text = stat.read_text()
        except OSError:
            continue  # gone meanwhile
        parents.setdefault(int(text.rpartition(")")[2].split()[1]), []).append(int(stat.parent.name))
    found: list[int] = []
    left = [pid]
    while left:
        children = parents.get(left.pop(), [])
        found += children
        left += children
    return found


def kill_all(pid: int) -> list[int]:
    """SIGKILL for the launcher, so that it cannot tidy up, and for all that it started; these are returned."""
    below = descendants(pid)
    for one in (pid, *below):
        try:
            os.kill(one, signal.SIGKILL)
        except ProcessLookupError:
            continue
    return below


def finish(launcher: tuple[str, ...], images: Path, out: Path, root: Path, steps: tuple[int, int] = WHOLE) -> Done:
    with started(launcher, images, out, root, steps) as process:
        printed, error = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, error
    return Done(out, printed)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six crops of the demonstration's calibration pictures; the first is scored on."""
    folder = tmp_path_factory.mktemp("images")
    for picture in demo_calibration_images()[:2]:
        for part in range(3):
            write_png(folder / f"{picture.name}{part}.png", picture.rgb[64 * part :][:96, 100:196])
    return folder


@pytest.fixture(scope="module")
def whole(images: Path, tmp_path_factory: pytest.TempPathFactory, repo_root: Path) -> Done:
    """An uninterrupted run of two processes."""
    return finish(TWO, images, tmp_path_factory.mktemp("two"), repo_root)


def test_one_process_writes_and_the_integers_agree(whole: Done) -> None:
    """One JSON document is printed, it is qat.json; nothing is left beside the files; parity of every integer."""
    found = json.loads(whole.out)
    assert found == json.loads((whole.folder / "qat.json").read_text())
    assert found["parity"]["equal"] and found["parity"]["mismatches"] == 0 and found["parity"]["elements"] > 100_000
    assert found["epochs"] == EPOCHS and found["best"]["epoch"] > 0, "nothing was learned: the test says nothing"
    assert {path.name for path in whole.folder.iterdir()} == {*FILES, FILE, LOG, "qat.json", "start", ".srq"}
    assert {path.name for path in (whole.folder / "start").iterdir()} == set(FILES)


def test_two_processes_are_one_but_for_the_order_of_sums(
    whole: Done, images: Path, tmp_path: Path, repo_root: Path
) -> None:
    """Start, settings and epoch 0 are the same bytes and numbers; one step differs by float32's rounding.

    Only one step: Adam's first ones have the size of the rate whatever the gradient's, so a gradient that is 0 but for
    rounding may step either way, and what 4 bits make of that grows from step to step, on one machine more than on
    another.
    """
    runs = [(launcher, tmp_path / name) for launcher, name in ((ONE, "one"), (TWO, "two"))]
    alone, both = (finish(launcher, images, folder, repo_root, ONE_STEP) for launcher, folder in runs)
    for other in (both, whole):
        for name in FILES:
            assert (alone.folder / "start" / name).read_bytes() == (other.folder / "start" / name).read_bytes()
        assert alone.log["epochs"][0] == other.log["epochs"][0]
    assert alone.log["settings"] == both.log["settings"]
    left, right = alone.checkpoint["learned"], both.checkpoint["learned"]
    assert left.keys() == right.keys()
    apart = torch.cat([(left[name] - right[name]).abs().flatten() for name in left])
    assert float((apart < 1e-5).float().mean()) > 0.99 and float(apart.max()) < 3 * 0.01
    (_, one), (_, two) = alone.log["epochs"], both.log["epochs"]
    assert two["loss"] == pytest.approx(one["loss"], rel=1e-5)  # of the whole batch, not of a process's part
    ours, theirs = alone.integers(), both.integers()
    differences = np.concatenate([(ours[name] - theirs[name]).ravel() for name in ours])
    assert np.abs(differences).max() <= 1 and np.count_nonzero(differences) <= 0.005 * len(differences)


def test_killed_after_an_epoch_it_goes_on_to_the_same_bytes(
    whole: Done, images: Path, tmp_path: Path, repo_root: Path
) -> None:
    """SIGKILL for the launcher and both processes once the first epoch's checkpoint is there; then the same command."""
    with started(TWO, images, tmp_path, repo_root) as process:
        until = time.monotonic() + PATIENCE
        while epochs_done(tmp_path) < 1:
            assert process.poll() is None and time.monotonic() < until, process.communicate()[1]
            time.sleep(0.005)
        below = kill_all(process.pid)
        assert process.wait(timeout=30) == -signal.SIGKILL and len(below) >= 2
    left = Done(tmp_path, "")
    assert 1 <= left.checkpoint["epoch"] < EPOCHS, "it was killed too late: the test says nothing"
    assert not (tmp_path / "qat.json").exists()
    resumed = finish(TWO, images, tmp_path, repo_root)
    for name in FILES:
        assert (resumed.folder / name).read_bytes() == (whole.folder / name).read_bytes(), name
    assert resumed.log == whole.log
    mine, theirs = resumed.checkpoint, whole.checkpoint
    assert all(tensors_equal(mine[name], theirs[name]) for name in ("learned", "average", "best"))
    for index, state in theirs["adam"]["state"].items():
        assert all(torch.equal(mine["adam"]["state"][index][key], value) for key, value in state.items())
    ours, wanted = (json.loads(item.out) for item in (resumed, whole))
    assert without_seconds(ours) == without_seconds(wanted)


def epochs_done(folder: Path) -> int:
    """Rows of log.json behind the start's; it is written after the checkpoint, and renamed into place."""
    path = folder / LOG
    return len(json.loads(path.read_text())["epochs"]) - 1 if path.exists() else 0
