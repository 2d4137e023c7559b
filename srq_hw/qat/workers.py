"""Several training processes that share a batch, as `torchrun` starts them: gradients are averaged after every step.

Each process works on its part of one and the same batch, so the average is the gradient of a single process on the
whole batch but for the order of float sums.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor

from srq_hw.errors import InputError, RunError

#: the first process may quantize and score while the others wait
PATIENCE = timedelta(hours=3)


@dataclass(frozen=True)
class Workers:
    """This process among all. device: where it trains."""

    rank: int
    count: int
    device: torch.device

    @property
    def first(self) -> bool:
        """Whether this process scores and writes."""
        return self.rank == 0

    def part(self) -> slice:
        """Which images of a batch are this process's."""
        return slice(self.rank, None, self.count)

    def average(self, tensors: Iterable[Tensor]) -> None:
        """Every tensor becomes its mean over the processes, in place; all processes give the same shapes."""
        given = list(tensors)
        if self.count == 1 or not given:
            return
        flat = torch.cat([tensor.reshape(-1) for tensor in given])
        dist.all_reduce(flat)
        flat /= self.count
        start = 0
        for tensor in given:
            tensor.copy_(flat[start : start + tensor.numel()].view_as(tensor))
            start += tensor.numel()

    def agree(self, value: bool) -> bool:
        """What the first process says."""
        if self.count == 1:
            return value
        told = torch.tensor([float(value)], device=self.device)
        dist.broadcast(told, 0)
        return bool(told.item())

    def require_same(self, tensors: Iterable[Tensor]) -> None:
        """RunError where the processes hold different values."""
        if self.count == 1:
            return
        mine = torch.cat([tensor.reshape(-1).double() for tensor in tensors])
        lowest, highest = mine.clone(), mine.clone()
        dist.all_reduce(lowest, dist.ReduceOp.MIN)
        dist.all_reduce(highest, dist.ReduceOp.MAX)
        if not torch.equal(lowest, highest):
            raise RunError("QAT: the processes no longer hold the same weights; use the same versions in all of them")

    def wait(self) -> None:
        """Until all processes are here."""
        if self.count > 1:
            dist.barrier()


@contextmanager
def join_workers(device: str, batch: int) -> Iterator[Workers]:
    """The processes that `torchrun` started (its RANK, WORLD_SIZE and rendezvous variables), or this one alone.

    device: "cpu", "cuda" or "auto". InputError where the device is missing or the batch cannot be shared evenly.
    """
    count, rank = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("RANK", "0"))
    if device == "cuda" and not torch.cuda.is_available():
        raise InputError("--device cuda: torch sees no such device; use --device cpu")
    if batch % count:
        raise InputError(f"--batch {batch}: {count} processes share it; allowed are multiples of {count}")
    cuda = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    where = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if cuda else torch.device("cpu")
    if count == 1:
        yield Workers(0, 1, where)
        return
    if cuda:
        torch.cuda.set_device(where)
    dist.init_process_group("nccl" if cuda else "gloo", timeout=PATIENCE)
    try:
        yield Workers(rank, count, where)
    finally:
        dist.destroy_process_group()
