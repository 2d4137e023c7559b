"""Ctrl-C that cannot get lost.

Python raises KeyboardInterrupt wherever the main thread happens to be. In a callback that a library in C calls, the
library drops it and the program goes on. So a Ctrl-C is remembered until the command ends, and long work asks for it
where it tells its progress.
"""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType


@dataclass
class _Pressed:
    """Whether Ctrl-C came since `remembered` began."""

    yes: bool = False


_PRESSED = _Pressed()


@contextmanager
def remembered() -> Iterator[None]:
    """Remember every Ctrl-C from here on; at the end one that got lost is raised.

    Changes nothing outside the main thread, or where SIGINT is ignored or handled by somebody else.
    """
    ours = threading.current_thread() is threading.main_thread()
    if not ours or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    unraisable = sys.unraisablehook

    def press(number: int, frame: FrameType | None) -> None:
        _PRESSED.yes = True
        signal.default_int_handler(number, frame)

    def lost(what: sys.UnraisableHookArgs) -> None:
        if what.exc_type is not KeyboardInterrupt:  # of that one `check` will tell
            unraisable(what)

    _PRESSED.yes = False
    signal.signal(signal.SIGINT, press)
    sys.unraisablehook = lost
    try:
        yield
        check()
    except Exception:
        check()  # what fails when the user stops it is no failure
        raise
    finally:
        sys.unraisablehook = unraisable
        signal.signal(signal.SIGINT, signal.default_int_handler)
        _PRESSED.yes = False


def check() -> None:
    """KeyboardInterrupt where Ctrl-C came and the work went on all the same."""
    if _PRESSED.yes:
        raise KeyboardInterrupt
