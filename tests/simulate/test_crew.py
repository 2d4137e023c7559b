"""The crew: every strip once, works in order, the first error comes out."""

from __future__ import annotations

import threading
import time

import pytest
import torch

from srq_hw.simulate.crew import Work, work_through


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_every_strip_once_and_works_in_order(threads: int) -> None:
    done: list[tuple[int, int]] = []

    def strip_of(work: int):
        def strip(index: int) -> None:
            time.sleep(0.001 * (index % 3))
            done.append((work, index))

        return strip

    counts = (7, 1, 0, 12)
    work_through([Work(strip_of(number), count) for number, count in enumerate(counts)], threads)
    assert sorted(done) == [(number, index) for number, count in enumerate(counts) for index in range(count)]
    assert [work for work, _ in done] == sorted(work for work, _ in done)


@pytest.mark.parametrize("threads", [1, 3])
def test_an_error_stops_everyone(threads: int) -> None:
    later: list[int] = []

    def fail(index: int) -> None:
        if index == 2:
            raise ValueError("strip 2")

    before, running = torch.get_num_threads(), threading.active_count()
    with pytest.raises(ValueError, match="strip 2"):
        work_through([Work(fail, 4), Work(later.append, 4)], threads)
    assert not later
    assert torch.get_num_threads() == before
    assert threading.active_count() == running


def test_strips_run_torch_on_one_thread() -> None:
    found: list[int] = []
    work_through([Work(lambda index: found.append(torch.get_num_threads()), 6)], 2)
    assert found == [1] * 6
