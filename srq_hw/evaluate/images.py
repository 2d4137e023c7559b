"""Reading and writing 8-bit RGB images; a file that is anything else is refused with the reason."""

from __future__ import annotations

import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from srq_hw.errors import InputError
from srq_hw.files import beside

UInt8Image = NDArray[np.uint8]

MIN_SIDE = 8
MAX_PIXELS = 100_000_000
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp")

_FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA")
# What Pillow's decoders raise on damaged bytes, found by feeding them such.
_DECODER_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    TypeError,
    LookupError,
    EOFError,
    OverflowError,
    struct.error,
    zlib.error,
)
_TIFF_BITS_PER_SAMPLE = 258
_PNG_BIT_DEPTH_OFFSET = 24


def read_rgb(path: Path | str) -> UInt8Image:
    """Read an image file as uint8 RGB (H, W, 3), pixels as stored (an EXIF orientation is not applied).

    Greyscale is replicated to three channels, a palette is looked up, an alpha channel that is opaque everywhere is
    dropped. Raises InputError for a missing file, something that is not a PNG, JPEG, BMP, TIFF or WebP image, more than
    one frame, other than 8 bits per channel, another colour space, any transparency, a side under 8 pixels, or more
    than 100 megapixels.
    """
    path = Path(path)
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "does not exist"
        raise InputError(f"{path}: {what}; give the path of one image file")
    try:
        with warnings.catch_warnings():
            # Pillow warns from 89 megapixels on (the limit here is 100 and is checked below) and of odd TIFF tags.
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                _check(path, image)
                return _to_rgb(path, image)
    except UnidentifiedImageError:
        raise InputError(f"{path}: not an image; allowed are {', '.join(_FORMATS)} files") from None
    except Image.DecompressionBombError as error:
        raise InputError(f"{path}: {error}; allowed are {MAX_PIXELS} pixels, cut the image into tiles") from None
    except _DECODER_ERRORS as error:
        raise InputError(f"{path}: the image is damaged or cut short ({error}); write it anew as PNG") from None


def write_png(path: Path | str, image: UInt8Image) -> None:
    """Write a uint8 image (H, W) or (H, W, 3) as PNG: beside the target first, then renamed over it.

    Raises InputError if the folder does not exist or cannot be written.
    """
    path = Path(path)
    if image.dtype != np.uint8 or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)):
        raise ValueError(f"write_png wants a uint8 image (H, W) or (H, W, 3), got {image.dtype} {image.shape}")
    if not path.parent.is_dir():
        raise InputError(f"{path}: the folder {path.parent} does not exist; create it first")
    try:
        with beside(path) as place:
            Image.fromarray(image).save(place, format="PNG")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror or error}); choose another place") from error


def list_images(folder: Path | str, option: str | None = None) -> list[Path]:
    """The image files (by suffix, any case) directly in `folder`, sorted by name.

    option: what the user named the folder with, for the message. Raises InputError if the folder does not exist or
    holds no image.
    """
    folder = Path(folder)
    where = f"{option} {folder}" if option else str(folder)
    if not folder.is_dir():
        raise InputError(f"{where}: not a folder; give a folder of images")
    found = sorted(p for p in folder.iterdir() if p.is_file() and p.suffix.lower() in SUFFIXES)
    if not found:
        raise InputError(
            f"{where}: holds no image (folders in it are not looked into); put images there or give another folder, "
            f"allowed are files ending in {', '.join(SUFFIXES)}"
        )
    return found


def _check(path: Path, image: Image.Image) -> None:
    width, height = image.size
    if image.format not in _FORMATS:
        raise InputError(f"{path}: a {image.format} file; allowed are {', '.join(_FORMATS)}, convert it to PNG")
    if min(width, height) < MIN_SIDE:
        raise InputError(
            f"{path}: {width}x{height} pixels; at least {MIN_SIDE}x{MIN_SIDE} are needed, use a larger image"
        )
    if width * height > MAX_PIXELS:
        raise InputError(f"{path}: {width}x{height} pixels; at most {MAX_PIXELS} are allowed, cut the image into tiles")
    frames = getattr(image, "n_frames", 1)
    if frames != 1:
        raise InputError(f"{path}: {frames} frames; one is allowed, save the wanted frame as PNG")
    bits = _bits_per_channel(path, image)
    if bits > 8:
        raise InputError(f"{path}: {bits} bits per channel; at most 8 are allowed, convert it to 8-bit RGB")
    if image.mode not in _MODES:
        raise InputError(f"{path}: colour mode {image.mode}; allowed are RGB, greyscale and palette, convert it to RGB")


def _bits_per_channel(path: Path, image: Image.Image) -> int:
    """Bits the file stores; Pillow itself silently drops the low byte of 16-bit RGB."""
    if image.format == "PNG":
        with path.open("rb") as file:
            return file.read(_PNG_BIT_DEPTH_OFFSET + 1)[_PNG_BIT_DEPTH_OFFSET]
    if image.format == "TIFF":
        bits = image.tag_v2.get(_TIFF_BITS_PER_SAMPLE, 1)  # type: ignore[attr-defined]
        return max(bits) if isinstance(bits, tuple) else int(bits)
    return 8


def _to_rgb(path: Path, image: Image.Image) -> UInt8Image:
    if "A" in image.mode or "transparency" in image.info:
        rgba = np.asarray(image.convert("RGBA"))
        see_through = int(np.count_nonzero(rgba[..., 3] != 255))
        if see_through:
            raise InputError(
                f"{path}: {see_through} transparent pixels; a network sees RGB only, flatten it onto a background"
            )
        return np.ascontiguousarray(rgba[..., :3])
    return np.array(image.convert("RGB"))
