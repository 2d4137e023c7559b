"""How every command speaks: tables, notes, failures, Ctrl-C."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

from srq_hw import interrupt
from srq_hw.errors import RunError

#: columns of a table that goes into a file or a pipe
PIPED_WIDTH = 200


def console() -> Console:
    """Console on standard output; into a file or pipe, lines are long rather than broken."""
    return Console(file=sys.stdout, width=None if sys.stdout.isatty() else PIPED_WIDTH)


def fail(message: str, status: int) -> int:
    """Say what went wrong on standard error; returns the status."""
    speaker = Console(stderr=True, soft_wrap=True, highlight=False)
    speaker.print("[bold red]srq-hw:[/]", end=" ")
    speaker.print(message, markup=False)
    return status


def warn(message: str) -> None:
    """A note on standard error."""
    speaker = Console(stderr=True, soft_wrap=True, highlight=False)
    speaker.print("[bold yellow]srq-hw: note:[/]", end=" ")
    speaker.print(message, markup=False)


@contextmanager
def interruptible() -> Iterator[None]:
    """Ctrl-C ends a long command with a sentence."""
    try:
        with interrupt.remembered():
            yield
    except KeyboardInterrupt:
        raise RunError("interrupted; the same command resumes where it stopped") from None


def see_own_modules(model: str | None) -> None:
    """Let pkg.module:factory name a module of the current folder, as `python -m` does."""
    if model is not None and ":" in model and "" not in sys.path:
        sys.path.insert(0, "")  # the empty entry is the current folder, wherever that is
