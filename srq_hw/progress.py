"""Progress bars on standard error: on a terminal only, silent elsewhere. Who tells of progress learns of a Ctrl-C."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from srq_hw import interrupt
from srq_hw.pipeline.engine import StepRecord

Advance = Callable[[int, int], None]


def _bars() -> Progress:
    shown = sys.stderr.isatty()
    return Progress(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True, quiet=not shown),  # a disabled bar would still end with an empty line
        disable=not shown,
        transient=True,
    )


@contextmanager
def bar(title: str) -> Iterator[Advance]:
    """One bar; call what it yields with (done, total)."""
    with _bars() as progress:
        task = progress.add_task(title, total=None)

        def advance(done: int, total: int) -> None:
            interrupt.check()
            progress.update(task, completed=done, total=total)

        yield advance


@contextmanager
def stages(title: str) -> Iterator[Callable[[str, int, int], None]]:
    """One bar for work of several stages; call what it yields with (stage, done, total)."""
    with _bars() as progress:
        task = progress.add_task(title, total=None)

        def advance(what: str, done: int, total: int) -> None:
            interrupt.check()
            progress.update(task, description=f"{title}: {what}", completed=done, total=total)

        yield advance


class BuildProgress:
    """A bar over the steps and one for what the running step has done of its own; a line for every finished step."""

    def __init__(self) -> None:
        self.progress = _bars()
        self.all = self.progress.add_task("build", total=None)
        self.one = self.progress.add_task("", total=None, visible=False)

    def __enter__(self) -> BuildProgress:
        self.progress.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.__exit__(kind, error, trace)

    def step_started(self, name: str, number: int, total: int) -> None:
        """Show which step runs."""
        interrupt.check()
        self.progress.update(self.all, description=f"build: {name}", completed=number - 1, total=total)
        self.progress.update(self.one, description=name, completed=0, total=None, visible=False)

    def advanced(self, done: int, total: int) -> None:
        """A part of the running step is done."""
        interrupt.check()
        self.progress.update(self.one, completed=done, total=total, visible=True)

    def step_ended(self, record: StepRecord) -> None:
        """One line per step."""
        if not self.progress.disable:
            how = "[dim]unchanged[/]" if record.cached else f"{record.seconds:.1f} s"
            self.progress.console.print(f"  [green]✓[/] {record.name} {how}")
