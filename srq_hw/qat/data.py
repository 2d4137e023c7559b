"""Training pairs in memory and the batches drawn from them: which pixels a step sees is a function of seed and step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from srq_hw.errors import InputError
from srq_hw.evaluate.colour import network_view
from srq_hw.evaluate.datasets import Pair, make_pair
from srq_hw.evaluate.images import list_images, read_rgb

Image = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Training:
    """Low- and high-resolution images as the network sees them, uint8 (h, w, C) and (scale*h, scale*w, C)."""

    low: tuple[Image, ...]
    high: tuple[Image, ...]
    scale: int


def read_pairs(folders: Sequence[Path], scale: int) -> list[Pair]:
    """All images of the folders with their bicubic low-resolution versions. InputError as for `list_images`."""
    paths = [path for folder in folders for path in list_images(folder, "--data")]
    return [make_pair(path.stem, read_rgb(path), scale) for path in paths]


def training_of(pairs: Sequence[Pair], scale: int, channels: int, patch: int, left_out: int = 0) -> Training:
    """What batches are drawn from; images smaller than a patch are left out. InputError where none is large enough.

    left_out: images that were taken out before, being scored on.
    """
    large = [pair for pair in pairs if min(pair.lr.shape[:2]) >= patch]
    if not pairs and left_out:
        many = f"all {left_out} images are" if left_out > 1 else "its only image is"
        raise InputError(
            f"--data: {many} scored on as well (the same pixels, of --val or of the part of --data that is held out), "
            "and what is scored on is not trained on, so nothing is left to train on; give other images with --data or "
            "--val"
        )
    if not large:
        rest = f" ({left_out} more are scored on and not trained on)" if left_out else ""
        raise InputError(
            f"--data: none of {len(pairs)} images{rest} has {patch * scale}x{patch * scale} pixels or more, what "
            f"--patch {patch} needs at scale {scale}; use a smaller --patch or larger images"
        )
    low = tuple(network_view(pair.lr, channels) for pair in large)
    return Training(low, tuple(network_view(pair.hr, channels) for pair in large), scale)


def draw_batch(
    training: Training, count: int, side: int, seed: int, step: int, part: slice = slice(None)
) -> tuple[Tensor, Tensor]:
    """The `part` of batch number `step`: float32 grey levels (n, C, side, side) and (n, C, scale*side, scale*side).

    Random squares, larger images more often (by pixels), flipped and turned at random (8 ways).
    """
    rng = np.random.default_rng([seed, step])
    sizes = np.array([image.shape[0] * image.shape[1] for image in training.low], np.float64)
    chosen = rng.choice(len(sizes), count, p=sizes / sizes.sum())
    lows, highs = [], []
    scale = training.scale
    for index in chosen:
        low, high = training.low[index], training.high[index]
        top = int(rng.integers(low.shape[0] - side + 1))
        left = int(rng.integers(low.shape[1] - side + 1))
        way = int(rng.integers(8))
        small = low[top : top + side, left : left + side]
        large = high[top * scale : (top + side) * scale, left * scale : (left + side) * scale]
        lows.append(_turn(small, way))
        highs.append(_turn(large, way))
    return _tensor(lows[part]), _tensor(highs[part])


def _turn(image: Image, way: int) -> Image:
    """One of the 8 ways to lay a square."""
    turned = np.rot90(image, way % 4)
    return turned[::-1] if way >= 4 else turned


def _tensor(images: Sequence[Image]) -> Tensor:
    stacked = torch.from_numpy(np.stack(images).astype(np.float32)).permute(0, 3, 1, 2)
    return stacked.contiguous(memory_format=torch.channels_last)
