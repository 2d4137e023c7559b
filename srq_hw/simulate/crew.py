"""A few threads that work through a list of strip-wise jobs together.

Each thread runs torch with one thread of its own: strips are independent, so no library has to split a call, and no
pool spins while another one works.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Work:
    """``strip(i)`` for every i below count, in any order and by any thread; the next work waits for all of them."""

    strip: Callable[[int], None]
    count: int


def work_through(works: Sequence[Work], threads: int) -> None:
    """Run all works in order. The first exception of any thread is raised here, after the others have stopped.

    While it runs, torch's thread count of the process is 1; it is put back at the end.
    """
    with _single_threaded_torch():
        if threads == 1:
            with torch.inference_mode():
                for work in works:
                    for index in range(work.count):
                        work.strip(index)
            return
        tickets = [_tickets() for _ in works]
        barrier = threading.Barrier(threads)
        errors: list[BaseException] = []

        def member() -> None:
            try:
                torch.set_num_threads(1)  # the OpenMP setting belongs to a thread
                with torch.inference_mode():
                    for work, ticket in zip(works, tickets, strict=True):
                        while (index := ticket()) < work.count:
                            work.strip(index)
                        barrier.wait()
            except threading.BrokenBarrierError:
                pass  # the thread that broke it says why
            except BaseException as error:
                errors.append(error)
                barrier.abort()

        helpers = [threading.Thread(target=member, daemon=True) for _ in range(threads - 1)]
        for helper in helpers:
            helper.start()
        member()
        for helper in helpers:
            helper.join()
    if errors:
        raise errors[0]


def _tickets() -> Callable[[], int]:
    """Hands out 0, 1, 2, ..., each number once whatever the threads do."""
    counter = itertools.count()
    lock = threading.Lock()

    def take() -> int:
        with lock:
            return next(counter)

    return take


@contextmanager
def _single_threaded_torch() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
