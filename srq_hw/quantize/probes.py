"""How much the output image feels a tensor: gradients of random signs of the image (Hutchinson's estimate)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor


def probes(
    output: Tensor, seen: Mapping[str, Tensor], names: Sequence[str], generator: torch.Generator, count: int
) -> Iterator[dict[str, Tensor]]:
    """``count`` times the gradients of the named tensors for random signs of the output; the mean of their squares
    estimates what noise in a tensor adds to the squared error of the whole image."""
    for _ in range(count):
        signs = torch.randint(0, 2, output.shape, generator=generator) * 2.0 - 1.0
        found = torch.autograd.grad(output, [seen[name] for name in names], signs, retain_graph=True)
        yield dict(zip(names, found, strict=True))
