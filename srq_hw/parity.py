"""Equality of integer tensors: how many elements, how many differ, and where the first difference stands."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from srq_hw.errors import RunError


@dataclass(frozen=True)
class Mismatch:
    """The first difference: tensor, index (n, y, x, c), and both integers."""

    tensor: str
    index: tuple[int, ...]
    left: int
    right: int

    def __str__(self) -> str:
        return f"{self.tensor} at {self.index}: {self.left} against {self.right}"


@dataclass(frozen=True)
class Comparison:
    """Result of `compare`; equal means at least one element was compared and none differs."""

    tensors: int
    elements: int
    mismatches: int
    first: Mismatch | None

    @property
    def equal(self) -> bool:
        """The gate."""
        return self.elements > 0 and self.mismatches == 0


def compare(left: Mapping[str, npt.NDArray[np.integer]], right: Mapping[str, npt.NDArray[np.integer]]) -> Comparison:
    """Compare the tensors that both sides name, in the order of ``left`` (execution order gives the first wrong node).

    RunError where nothing is common or a shape differs: such a comparison proves nothing.
    """
    names = [name for name in left if name in right]
    if not names:
        raise RunError(
            f"parity: no tensor in common ({', '.join(list(left)[:4])} against {', '.join(list(right)[:4])})"
        )
    elements = mismatches = 0
    first: Mismatch | None = None
    for name in names:
        a, b = left[name], right[name]
        if a.shape != b.shape:
            raise RunError(f"parity: {name} has shape {a.shape} on one side and {b.shape} on the other")
        wrong = a != b
        count = int(np.count_nonzero(wrong))
        if count and first is None:
            index = tuple(int(i) for i in np.argwhere(wrong)[0])
            first = Mismatch(name, index, int(a[index]), int(b[index]))
        elements, mismatches = elements + a.size, mismatches + count
    return Comparison(len(names), elements, mismatches, first)
