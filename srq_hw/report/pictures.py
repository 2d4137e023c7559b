"""Images for the report's page: data URIs, scaled down, with a zoomed crop and the amplified difference.

An overview is a JPEG, a crop is a PNG (its pixels are what is judged). uint8 RGB (H, W, 3) throughout.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from srq_hw.errors import InputError, RunError
from srq_hw.evaluate.images import read_rgb

RGB = NDArray[np.uint8]

OVERVIEW_SIDE = 360  # longest side of an overview, pixels
CROP_SIDE = 72  # side of the zoomed crop, pixels of the output image
MAX_GAIN = 64  # the difference is never amplified more than this
BYTES_MAX = 4_500_000  # all pictures of one page together, as data URIs

#: report key -> heading; the order of the page
KINDS = {"bicubic": "Bicubic", "float": "Float network", "integer": "Integer pipeline", "hr": "Reference (HR)"}


@dataclass(frozen=True)
class View:
    """One picture of a row: data URIs of the overview and of the crop; psnr in dB and ssim, None where unknown."""

    heading: str
    overview: str
    crop: str
    psnr: float | None
    ssim: float | None


@dataclass(frozen=True)
class Picture:
    """One upscaled image with its views. box: left, top, width, height of the crop in percent of the overview.

    largest, mean: of |float - integer| in grey levels; None where the model has no float network.
    """

    name: str
    size: tuple[int, int]
    views: tuple[View, ...]
    box: tuple[float, float, float, float]
    largest: int | None
    mean: float | None

    @property
    def bytes(self) -> int:
        """What its data URIs take on the page."""
        return sum(len(view.overview) + len(view.crop) for view in self.views)


def pictures(report: Mapping[str, Any], out_dir: Path) -> tuple[list[Picture], list[str]]:
    """Views of the report's images, and the names of those left out because the page would grow too large.

    Raises RunError where a file the report names is missing, unreadable, outside `out_dir` or of another size.
    """
    shown: list[Picture] = []
    left_out: list[str] = []
    for row in report["images"]:
        if left_out:
            left_out.append(row["name"])
            continue
        picture = _picture(row, out_dir)
        if shown and sum(item.bytes for item in shown) + picture.bytes > BYTES_MAX:
            left_out.append(row["name"])
        else:
            shown.append(picture)
    return shown, left_out


def _picture(row: Mapping[str, Any], out_dir: Path) -> Picture:
    files = row["files"]
    arrays = {kind: _read(out_dir, files[kind], row["name"]) for kind in KINDS if kind in files}
    integer = arrays["integer"]
    for kind, array in arrays.items():
        if array.shape != integer.shape:
            raise RunError(
                f"report: image {row['name']}: {files[kind]} is {array.shape[1]}x{array.shape[0]}, "
                f"{files['integer']} is {integer.shape[1]}x{integer.shape[0]}; build again into an empty folder"
            )
    top, left, height, width = crop_window(arrays.get("float", integer))
    window = np.s_[top : top + height, left : left + width]
    views = [
        View(KINDS[kind], _jpeg(_reduced(array)), _png(array[window]), row.get(f"psnr_{kind}"), row.get(f"ssim_{kind}"))
        for kind, array in arrays.items()
    ]
    largest = mean = None
    if "float" in arrays:
        difference = np.abs(arrays["float"].astype(np.int16) - integer.astype(np.int16))
        largest, mean = int(difference.max()), float(difference.mean())
        gain = _gain(difference)
        loud = np.minimum(difference * gain, 255).astype(np.uint8)
        views.append(
            View(f"|float − integer| × {gain}", _jpeg(_largest_of_blocks(loud)), _png(loud[window]), None, None)
        )
    full_height, full_width = integer.shape[:2]
    box = (left / full_width, top / full_height, width / full_width, height / full_height)
    percent = [round(100 * part, 2) for part in box]
    return Picture(
        name=row["name"],
        size=(full_height, full_width),
        views=tuple(views),
        box=(percent[0], percent[1], percent[2], percent[3]),
        largest=largest,
        mean=mean,
    )


def _gain(difference: NDArray[np.int16]) -> int:
    """The amplification that makes all but the largest thousandth of the differences fit 255; at most MAX_GAIN."""
    usual = float(np.quantile(difference, 0.999))
    return MAX_GAIN if usual < 1 else max(1, min(MAX_GAIN, int(255 / usual)))


def _read(out_dir: Path, name: str, image: str) -> RGB:
    path = out_dir / name
    if not path.resolve().is_relative_to(out_dir.resolve()):
        raise RunError(f"report: image {image}: {name} lies outside {out_dir}; give a path inside the output folder")
    try:
        return read_rgb(path)
    except InputError as error:
        raise RunError(f"report: image {image}: {error}; build again") from error


def crop_window(image: RGB) -> tuple[int, int, int, int]:
    """(top, left, height, width) of the CROP_SIDE square with the most detail: the largest sum of luma steps.

    Squares are tried every half side; the first of equals wins. Smaller images give their whole selves.
    """
    height, width = min(CROP_SIDE, image.shape[0]), min(CROP_SIDE, image.shape[1])
    luma = image.astype(np.int64).sum(2)
    detail = np.zeros(luma.shape, np.int64)
    detail[:, 1:] += np.abs(np.diff(luma, axis=1))
    detail[1:] += np.abs(np.diff(luma, axis=0))
    total = np.zeros((luma.shape[0] + 1, luma.shape[1] + 1), np.int64)
    total[1:, 1:] = detail.cumsum(0).cumsum(1)
    rows = np.arange(0, image.shape[0] - height + 1, max(height // 2, 1))
    columns = np.arange(0, image.shape[1] - width + 1, max(width // 2, 1))
    inside = total[rows + height][:, columns + width] - total[rows][:, columns + width]
    inside -= total[rows + height][:, columns] - total[rows][:, columns]
    top, left = np.unravel_index(int(inside.argmax()), inside.shape)
    return int(rows[top]), int(columns[left]), height, width


def _reduced(array: RGB) -> RGB:
    """At most OVERVIEW_SIDE pixels on the longest side."""
    image = Image.fromarray(array)
    image.thumbnail((OVERVIEW_SIDE, OVERVIEW_SIDE), Image.Resampling.LANCZOS)
    return np.asarray(image)


def _largest_of_blocks(array: RGB) -> RGB:
    """Scaled down by an integer factor, keeping the largest value of each block: a lone wrong pixel stays visible."""
    factor = -(-max(array.shape[:2]) // OVERVIEW_SIDE)
    if factor == 1:
        return array
    padded = np.pad(array, [(0, -array.shape[0] % factor), (0, -array.shape[1] % factor), (0, 0)])
    rows, columns = padded.shape[0] // factor, padded.shape[1] // factor
    blocks: RGB = padded.reshape(rows, factor, columns, factor, 3).max((1, 3))
    return blocks


def _jpeg(array: RGB) -> str:
    return _data_uri(array, "JPEG", "image/jpeg", quality=88, subsampling=0)


def _png(array: RGB) -> str:
    return _data_uri(array, "PNG", "image/png", optimize=True)


def _data_uri(array: RGB, kind: str, mime: str, **options: Any) -> str:
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(array)).save(stream, kind, **options)
    return f"data:{mime};base64,{base64.b64encode(stream.getvalue()).decode('ascii')}"
