"""Ctrl-C where a C library drops it: told at the next sign of progress, at the latest at the end."""

from __future__ import annotations

import ctypes
import signal
import sys
from collections.abc import Iterator

import pytest

from srq_hw import interrupt
from srq_hw.cli.console import interruptible
from srq_hw.errors import RunError
from srq_hw.progress import BuildProgress, bar, stages


@pytest.fixture(autouse=True)
def default_handler() -> Iterator[None]:
    """As a program in a terminal has it, whatever started the tests."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    signal.signal(signal.SIGINT, before)


def press_and_lose() -> None:
    """Ctrl-C in a callback that C calls: ctypes drops the exception."""
    callback = ctypes.CFUNCTYPE(None)(lambda: signal.raise_signal(signal.SIGINT))
    callback()


def test_the_next_sign_of_progress_raises_what_was_lost(capfd: pytest.CaptureFixture[str]):
    with pytest.raises(RunError, match="interrupted"), interruptible(), bar("work") as advance:
        advance(1, 3)
        press_and_lose()
        advance(2, 3)
        pytest.fail("went on")
    with pytest.raises(RunError, match="interrupted"), interruptible(), stages("work") as tell:
        press_and_lose()
        tell("part", 1, 2)
        pytest.fail("went on")
    with pytest.raises(RunError, match="interrupted"), interruptible(), BuildProgress() as watcher:
        press_and_lose()
        watcher.step_started("check", 1, 2)
        pytest.fail("went on")
    assert capfd.readouterr() == ("", "")


def test_the_end_raises_it_at_the_latest_and_forgets_it():
    with pytest.raises(RunError, match="interrupted"), interruptible():
        press_and_lose()
    with interruptible(), bar("work") as advance:
        advance(1, 1)


def test_what_fails_because_of_it_is_an_interrupt():
    with pytest.raises(RunError, match="interrupted"), interruptible():
        press_and_lose()
        raise ValueError("a worker was gone")


def test_errors_and_other_lost_exceptions_stay_what_they_are(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ValueError, match="own"), interruptible():
        raise ValueError("own")
    told: list[type[BaseException]] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda what: told.append(what.exc_type))
    callback = ctypes.CFUNCTYPE(None)(lambda: [][0])
    with interruptible():
        callback()
    assert told == [IndexError]


def test_an_ignored_signal_stays_ignored():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with interruptible():
        signal.raise_signal(signal.SIGINT)
        interrupt.check()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    signal.signal(signal.SIGINT, signal.default_int_handler)
