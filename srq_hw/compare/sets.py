"""Folders of images: what a test set and a calibration set hold, by content, and which images stand in both."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from srq_hw.errors import InputError
from srq_hw.evaluate.colour import network_view
from srq_hw.evaluate.datasets import Pair, make_pair
from srq_hw.evaluate.images import list_images, read_rgb
from srq_hw.evaluate.material import image_notes
from srq_hw.evaluate.material import in_both as shared
from srq_hw.evaluate.metrics import SSIM_WINDOW, least_side
from srq_hw.pipeline.engine import sha256_json
from srq_hw.pipeline.session import image_sha256
from srq_hw.yamlfile import did_you_mean

Image = NDArray[np.uint8]

#: sets of at most so many pixels stay in a worker's memory, with their low-resolution versions
KEPT_PIXELS = 40_000_000


@dataclass(frozen=True)
class ImageSet:
    """A folder of images. digests: of each file's pixels as uint8 RGB (not of the file's bytes)."""

    name: str
    files: tuple[Path, ...]
    digests: tuple[str, ...]
    sizes: tuple[tuple[int, int], ...]  # (height, width)

    @property
    def pixels(self) -> int:
        """Of all images."""
        return sum(height * width for height, width in self.sizes)

    @property
    def smallest(self) -> tuple[int, int]:
        """(height, width) of the image with the shortest side."""
        return min(self.sizes, key=min)

    @property
    def sha256(self) -> str:
        """Of names and pixels."""
        return sha256_json([[path.stem, digest] for path, digest in zip(self.files, self.digests, strict=True)])


def read_set(name: str, folder: Path, limit: int | None = None, option: str | None = None) -> ImageSet:
    """Look through a folder (its first ``limit`` images). InputError for an empty one and for one of no image.

    option: what the user named it with, for the message.
    """
    files = tuple(list_images(folder, option)[:limit])
    digests, sizes = [], []
    for path in files:
        image = read_rgb(path)
        digests.append(image_sha256(image))
        sizes.append((image.shape[0], image.shape[1]))
    return ImageSet(name, files, tuple(digests), tuple(sizes))


def find_sets(entries: Sequence[str], data: Path, limit: int | None, scales: Sequence[int]) -> tuple[ImageSet, ...]:
    """The sets a user named: folders below ``data``, or paths. InputError where one cannot be scored."""
    found = [read_set(Path(entry).name, _folder(entry, data), limit, "--sets") for entry in entries]
    for item in found:
        if [other.name for other in found].count(item.name) > 1:
            raise InputError(f"--sets: two folders are called {item.name}; rename one, the table tells them by name")
        _require_size(item, max(scales))
    return tuple(found)


def _folder(entry: str, data: Path) -> Path:
    for path in (data / entry, Path(entry)):
        if path.is_dir():
            return path
    known = sorted(path.name for path in data.iterdir() if path.is_dir()) if data.is_dir() else []
    where = f"{data} holds {', '.join(known)}" if known else f"--data {data} holds no folder"
    raise InputError(f"--sets {entry}: no such folder{did_you_mean(entry, known)}; {where}")


def _require_size(images: ImageSet, scale: int) -> None:
    """The same limit as `srq-hw evaluate` has: SSIM's window must fit behind the border that is cut off."""
    least = least_side(scale)
    if min(images.smallest) < least:
        height, width = images.smallest
        raise InputError(
            f"--sets {images.name}: its smallest image has {width}x{height} pixels; at least {least}x{least} are "
            f"needed to score x{scale} ({scale} pixels are cut off each side, and SSIM looks at "
            f"{SSIM_WINDOW}x{SSIM_WINDOW}); take it out of the folder"
        )


def pairs(images: ImageSet, scale: int) -> Iterator[Pair]:
    """High- and low-resolution versions in order of file name; InputError where a file is not what it was."""
    if images.pixels <= KEPT_PIXELS:
        yield from _kept(images, scale)
    else:
        yield from _read(images, scale)


def one_pair(images: ImageSet, index: int, scale: int) -> Pair:
    """The pair of one image."""
    path = images.files[index]
    image = read_rgb(path)
    if image_sha256(image) != images.digests[index]:
        raise InputError(f"{path}: its pixels changed while the comparison ran; run the same command again")
    return make_pair(path.stem, image, scale)


def _read(images: ImageSet, scale: int) -> Iterator[Pair]:
    for index in range(len(images.files)):
        yield one_pair(images, index, scale)


@lru_cache(maxsize=4)
def _kept(images: ImageSet, scale: int) -> tuple[Pair, ...]:
    return tuple(_read(images, scale))


# --- calibration --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class CalibrationSet:
    """Images to calibrate with; low: they are low resolution already, else each network's factor shrinks them."""

    images: ImageSet
    low: bool

    @property
    def sha256(self) -> str:
        """Of the pixels that calibration sees, whatever the network's factor."""
        return sha256_json([self.images.sha256, self.low])


def calibration_set(folder: Path, low: bool) -> CalibrationSet:
    """A calibration folder; InputError for an empty one."""
    return CalibrationSet(read_set(folder.name, folder, option="--calib-images"), low)


@lru_cache(maxsize=2)
def calibration_views(calibration: CalibrationSet, scale: int, channels: int) -> tuple[Image, ...]:
    """Low-resolution images as a network sees them, uint8 (h, w, channels)."""
    found = []
    for pair in _read(calibration.images, 1 if calibration.low else scale):
        found.append(network_view(pair.lr, channels))
    return tuple(found)


def in_both(calibration: CalibrationSet, tests: Sequence[ImageSet], scales: Sequence[int]) -> list[str]:
    """set/image of the test images that also calibrate: the same pixels, whatever the files are called; of
    low-resolution calibration images also where they are a test image made smaller."""

    def digests() -> Iterator[tuple[str, list[str]]]:
        for images in tests:
            for index, path in enumerate(images.files):
                smaller = [one_pair(images, index, scale) for scale in scales] if calibration.low else []
                yield f"{images.name}/{path.stem}", [images.digests[index], *(image_sha256(p.lr) for p in smaller)]

    return shared(set(calibration.images.digests), digests())


def calibration_notes(calibration: CalibrationSet, scale: int, size: int, count: int) -> list[str]:
    """What is unusual about the calibration images of a recipe (count patches of size x size), in sentences."""
    factor = 1 if calibration.low else scale
    sizes = [(height // factor, width // factor) for height, width in calibration.images.sizes]
    about = "" if calibration.low else f" at x{scale}"
    return image_notes(calibration.images.name, sizes, size, count, about)
