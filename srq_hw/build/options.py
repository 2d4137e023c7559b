"""What the user asked for, checked before any work starts."""

from __future__ import annotations

import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from srq_hw.build.engine import STATE
from srq_hw.errors import InputError

SIZE_LIMITS = (8, 4096)
DEFAULT_SIZE = (64, 64)
DEFAULT_RECIPE = "percentile"
QONNX_SUFFIXES = (".qonnx", ".onnx")


@dataclass(frozen=True)
class BuildOptions:
    """Options of one build; see `srq-hw build --help`. model: None (embedded default), a name, pkg.module:factory or a file."""

    target: str
    out: Path
    model: str | None = None
    weights: Path | None = None
    weight_bits: int | None = None
    act_bits: int | None = None
    recipe: str = DEFAULT_RECIPE
    calib_images: Path | None = None
    input_size: tuple[int, int] = DEFAULT_SIZE
    fps: float | None = None
    stop_after: str | None = None

    @property
    def is_file(self) -> bool:
        """True where the model is a QONNX file."""
        return self.model is not None and Path(self.model).suffix.lower() in QONNX_SUFFIXES


def parse_size(text: str) -> tuple[int, int]:
    """ "64x96" to (height, width)."""
    match = re.fullmatch(r"\s*(\d{1,6})\s*[xX]\s*(\d{1,6})\s*", text)
    low, high = SIZE_LIMITS
    if not match or not all(low <= int(side) <= high for side in match.groups()):
        raise InputError(f"--input-size {text!r}: wanted HxW, each side {low} to {high}, for example 64x64")
    return int(match.group(1)), int(match.group(2))


def check_fps(fps: float | None) -> None:
    """InputError for a frame rate that is not above 0."""
    if fps is not None and not 0 < fps <= 1e6:
        raise InputError(f"--fps {fps:g}: wanted a rate above 0 and up to 1000000 frames per second")


def prepare_folder(out: Path) -> None:
    """Create the build folder and prove that files can be written there."""
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out}: is a file; give a folder")
    try:
        (out / STATE).mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=out / STATE):
            pass
    except OSError as error:
        raise InputError(
            f"--out {out}: cannot be written ({os.strerror(error.errno or 0)}); choose another folder"
        ) from error
