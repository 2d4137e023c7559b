"""What the user asked for, checked before any work starts."""

from __future__ import annotations

import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path

from srq_hw.errors import InputError
from srq_hw.exchange.names import QONNX_SUFFIXES
from srq_hw.pipeline.engine import STATE

SIZE_LIMITS = (8, 4096)
DEFAULT_SIZE = (64, 64)
DEFAULT_RECIPE = "percentile"


@dataclass(frozen=True)
class BuildOptions:
    """Options of one build; see `srq-hw build --help`.

    model: None (embedded default), a name, pkg.module:factory or a file. None elsewhere is what the user left out: then
    bits are the target's, recipe DEFAULT_RECIPE, input_size DEFAULT_SIZE, and rtl_sim is True where Verilator is found.
    """

    target: str
    out: Path
    model: str | None = None
    weights: Path | None = None
    weight_bits: int | None = None
    act_bits: int | None = None
    recipe: str | None = None
    calib_images: Path | None = None
    input_size: tuple[int, int] | None = None
    fps: float | None = None
    stop_after: str | None = None
    quantized: Path | None = None
    edges: int | None = None
    tail: int | None = None
    sums: int | None = None
    fixed_weights: bool = False
    rtl_sim: bool | None = None
    synth: bool = False
    library: str = "finn"
    finn_sim: bool = False

    @property
    def is_file(self) -> bool:
        """True where the model is a QONNX file."""
        return self.model is not None and Path(self.model).suffix.lower() in QONNX_SUFFIXES


def parse_size(text: str, option: str = "--input-size") -> tuple[int, int]:
    """ "64x96" to (height, width)."""
    match = re.fullmatch(r"\s*(\d{1,6})\s*[xX]\s*(\d{1,6})\s*", text)
    low, high = SIZE_LIMITS
    if not match or not all(low <= int(side) <= high for side in match.groups()):
        raise InputError(f"{option} {text!r}: wanted HxW, each side {low} to {high}, for example 64x64")
    return int(match.group(1)), int(match.group(2))


def check_file_options(options: BuildOptions, size: tuple[int, int] | None) -> None:
    """A QONNX file decides these itself: InputError for an option that would be ignored, or a size out of range.

    size: (height, width) the file is made for; None where it leaves them open.
    """
    given = {
        "--weights": options.weights,
        "--bits, --weight-bits": options.weight_bits,
        "--bits, --act-bits": options.act_bits,
        "--calib": options.recipe,
        "--calib-images": options.calib_images,
        "--quantized": options.quantized,
        "--edges": options.edges,
        "--tail": options.tail,
        "--sums": options.sums,
    }
    for name, value in given.items():
        if value is not None:
            raise InputError(
                f"{name} {value}: {options.model} is quantized already and brings its own; leave it out, or build from "
                "the float network"
            )
    if size is None:
        return
    low, high = SIZE_LIMITS
    if options.input_size is not None and options.input_size != size:
        raise InputError(
            f"--input-size {options.input_size[0]}x{options.input_size[1]}: {options.model} is made for "
            f"{size[0]}x{size[1]} (HxW); leave the option out"
        )
    if not all(low <= side <= high for side in size):
        raise InputError(
            f"{options.model}: made for {size[0]}x{size[1]} images (HxW); each side must be {low} to {high}"
        )


def check_fps(fps: float | None) -> None:
    """InputError for a frame rate that is not above 0."""
    if fps is not None and not 0 < fps <= 1e6:
        raise InputError(f"--fps {fps:g}: wanted a rate above 0 and up to 1000000 frames per second")


def prepare_folder(out: Path, state: str = STATE) -> None:
    """Create the folder of --out with one for its state, and prove that files can be written there."""
    if out.exists() and not out.is_dir():
        raise InputError(f"--out {out}: is a file; give a folder")
    try:
        (out / state).mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=out / state):
            pass
    except OSError as error:
        raise InputError(
            f"--out {out}: cannot be written ({os.strerror(error.errno or 0)}); choose another folder"
        ) from error
