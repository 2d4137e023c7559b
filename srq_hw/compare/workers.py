"""Tasks in worker processes: spawned, one torch thread each, gone when the comparison is; a task's error is its own.

Nothing heavy is imported here, so that a worker sets its number of threads before any library reads it.
"""

from __future__ import annotations

import os
import signal
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import active_children, connection, get_context, parent_process
from typing import Any

from srq_hw.errors import RunError, SrqError

THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS")


@dataclass(frozen=True)
class Task:
    """A call of a module-level function with arguments that can be sent to another process. key names it."""

    key: str
    function: Callable[..., None]
    arguments: tuple[Any, ...]


@dataclass(frozen=True)
class Outcome:
    """How a task ended. error: one sentence, None where it is done; trace: of an error nobody foresaw, else empty."""

    key: str
    error: str | None = None
    trace: str = ""


#: told of every task that ended; returns the tasks that can only now begin, which go before all others
Ended = Callable[[Outcome], Iterable[Task]]


def run_tasks(tasks: Iterable[Task], jobs: int, ended: Ended) -> None:
    """Run all tasks and those that follow from them. KeyboardInterrupt ends the workers at once and passes through.

    jobs 1: in this process, with as many threads as the libraries like. RunError where a worker is killed.
    """
    waiting = deque(tasks)
    if jobs == 1:
        while waiting:
            waiting.extendleft(reversed(list(ended(perform(waiting.popleft())))))
        return
    before = set(active_children())
    pool = ProcessPoolExecutor(jobs, get_context("spawn"), initializer=start_worker)
    try:
        _share(pool, waiting, jobs, ended)
        pool.shutdown()
    except BrokenProcessPool:
        raise RunError(
            f"a worker process was ended from outside (out of memory?); use fewer than --jobs {jobs}, the same command "
            "resumes where it stopped"
        ) from None
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for child in set(active_children()) - before:
            child.terminate()
        raise


def _share(pool: ProcessPoolExecutor, waiting: deque[Task], jobs: int, ended: Ended) -> None:
    """Never more tasks in the pool than workers, so that what follows from a finished one comes next."""
    running: set[Future[Outcome]] = set()
    while waiting or running:
        while waiting and len(running) < jobs:
            running.add(pool.submit(perform, waiting.popleft()))
        done, running = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            waiting.extendleft(reversed(list(ended(future.result()))))


def start_worker() -> None:
    """First thing in a worker: one thread, Ctrl-C is the parent's business, and no life without the parent."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))
    threading.Thread(target=_die_with_parent, daemon=True).start()


def _die_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        connection.wait([parent.sentinel])
        os._exit(1)


def perform(task: Task) -> Outcome:
    """Run one task; whatever it raises becomes a sentence, so that the other tasks go on."""
    try:
        task.function(*task.arguments)
    except SrqError as error:
        return Outcome(task.key, str(error))
    except MemoryError:
        return Outcome(task.key, "not enough memory; use fewer --jobs or smaller images")
    except OSError as error:
        return Outcome(task.key, f"{error.filename or 'a file'}: {error.strerror or error}")
    except Exception as error:  # a fault of srq-hw or of a user's module: reported as such, with its trace
        reason = str(error).partition("\n")[0]
        return Outcome(task.key, f"unexpected {type(error).__name__}: {reason}", traceback.format_exc())
    return Outcome(task.key)
