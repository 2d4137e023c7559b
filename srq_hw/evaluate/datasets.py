"""Test sets: pairs of a high-resolution image and its bicubic low-resolution version."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from srq_hw.errors import InputError
from srq_hw.evaluate.images import list_images, read_rgb
from srq_hw.evaluate.resize import downscale


@dataclass(frozen=True)
class Pair:
    """One test image: hr is uint8 RGB (scale*h, scale*w, 3), lr is uint8 RGB (h, w, 3)."""

    name: str
    hr: NDArray[np.uint8]
    lr: NDArray[np.uint8]


def make_pair(name: str, image: NDArray[np.uint8], scale: int) -> Pair:
    """Crop a uint8 RGB image (H, W, 3) at the right and bottom to a multiple of `scale`, and shrink it by `scale`.

    Raises InputError if nothing is left.
    """
    height, width = (side // scale * scale for side in image.shape[:2])
    if height == 0 or width == 0:
        raise InputError(
            f"{name}: {image.shape[1]}x{image.shape[0]} pixels; at least {scale}x{scale} are needed at scale {scale}"
        )
    hr = np.ascontiguousarray(image[:height, :width])
    return Pair(name, hr, downscale(hr, scale))


def iter_pairs(folder: Path | str, scale: int, option: str | None = None) -> Iterator[Pair]:
    """The pairs of all images of a folder in order of file name; the name of a pair is the file's stem.

    option: as for list_images. Raises InputError as list_images, read_rgb and make_pair do.
    """
    for path in list_images(folder, option):
        yield make_pair(path.stem, read_rgb(path), scale)
