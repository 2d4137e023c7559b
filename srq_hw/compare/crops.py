"""Side-by-side crops with PSNR and SSIM under each (Tu et al., supplement, figures 2 and 3), chosen by rule."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from srq_hw.evaluate.metrics import luma

RGB = NDArray[np.uint8]

#: side of a crop in pixels of the high-resolution image, and how many screen pixels show one of them
CROP_SIDE = 64
ZOOM = 3
#: windows are tried at every so many pixels
STRIDE = 4
COLUMNS = 5
GAP, LABEL, MARGIN = 10, 36, 14
OVERVIEW_WIDTH = 520
INK, SOFT, PAPER, FRAME = (22, 25, 29), (89, 97, 108), (255, 255, 255), (213, 94, 0)


@dataclass(frozen=True, eq=False)
class Version:
    """One picture of the comparison: uint8 RGB (H, W, 3), its name and what stands under it."""

    name: str
    picture: RGB
    caption: str


def window(base: RGB, versions: Sequence[RGB], side: int = CROP_SIDE) -> tuple[int, int, int, int]:
    """(top, left, height, width) of the square in which the versions differ most: the largest sum over its pixels of
    the span between the brightest and the darkest luma among ``base`` (the float network's picture) and the versions.

    Squares are tried every STRIDE pixels; the first of equals wins. A smaller image gives its whole self.
    """
    lumas = np.stack([luma(item) for item in (base, *versions)])
    span = np.rint((lumas.max(0) - lumas.min(0)) * 256).astype(np.int64)
    height, width = (min(side, length) for length in span.shape)
    total = np.zeros((span.shape[0] + 1, span.shape[1] + 1), np.int64)
    total[1:, 1:] = span.cumsum(0).cumsum(1)
    rows = np.arange(0, span.shape[0] - height + 1, STRIDE)
    columns = np.arange(0, span.shape[1] - width + 1, STRIDE)
    inside = total[rows + height][:, columns + width] - total[rows][:, columns + width]
    inside = inside - total[rows + height][:, columns] + total[rows][:, columns]
    top, left = np.unravel_index(int(inside.argmax()), inside.shape)
    return int(rows[top]), int(columns[left]), height, width


def sheet(title: str, versions: Sequence[Version], box: tuple[int, int, int, int]) -> RGB:
    """The whole figure: the first version (the original) at the left with the box in it, then a crop of each."""
    top, left, height, width = box
    columns = min(COLUMNS, len(versions))
    lines = -(-len(versions) // columns)
    cell = (height * ZOOM + LABEL, width * ZOOM)
    grid = (lines * cell[0] + (lines - 1) * GAP, columns * cell[1] + (columns - 1) * GAP)
    overview = _overview(versions[0].picture, box, grid[0])
    heading = 30
    size = (MARGIN * 2 + overview.width + GAP * 2 + grid[1], MARGIN * 2 + heading + grid[0])
    paper = Image.new("RGB", (max(size[0], 760), size[1]), PAPER)
    draw = ImageDraw.Draw(paper)
    draw.text((MARGIN, MARGIN), title, fill=INK, font=_font(15))
    paper.paste(overview, (MARGIN, MARGIN + heading))
    for index, version in enumerate(versions):
        row, column = divmod(index, columns)
        x = MARGIN + overview.width + GAP * 2 + column * (cell[1] + GAP)
        y = MARGIN + heading + row * (cell[0] + GAP)
        crop = version.picture[top : top + height, left : left + width]
        paper.paste(Image.fromarray(np.ascontiguousarray(crop.repeat(ZOOM, 0).repeat(ZOOM, 1))), (x, y))
        centre = x + cell[1] // 2
        below = y + height * ZOOM + 3
        draw.text((centre, below), version.name, fill=INK, font=_font(13), anchor="ma")
        draw.text((centre, below + 17), version.caption, fill=SOFT, font=_font(12), anchor="ma")
    return np.asarray(paper)


def _overview(picture: RGB, box: tuple[int, int, int, int], height: int) -> Image.Image:
    """The picture at the height of the grid, or as wide as OVERVIEW_WIDTH, with the box in it."""
    factor = min(height / picture.shape[0], OVERVIEW_WIDTH / picture.shape[1])
    size = (max(1, round(picture.shape[1] * factor)), max(1, round(picture.shape[0] * factor)))
    small = Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS)
    top, left, tall, wide = (round(side * factor) for side in box)
    ImageDraw.Draw(small).rectangle((left, top, left + wide, top + tall), outline=FRAME, width=2)
    return small


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
