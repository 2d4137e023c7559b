"""Natural images that come inside the scikit-image package, so that a first build needs no data and no network.

PNG only: a JPEG decoder may differ by a grey level between machines. The two lists share no picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from srq_hw.errors import InputError
from srq_hw.evaluate.images import read_rgb

DEMO_TEST = ("astronaut", "coffee")
DEMO_CALIBRATION = ("chelsea", "motorcycle_left", "ihc", "camera")


@dataclass(frozen=True)
class DemoImage:
    """A picture at full resolution: uint8 RGB (H, W, 3)."""

    name: str
    path: Path
    rgb: NDArray[np.uint8]


def demo_images() -> list[DemoImage]:
    """The pictures a demonstration is scored on. Raises InputError if scikit-image lacks one of its files."""
    return [_load(name) for name in DEMO_TEST]


def demo_calibration_images() -> list[DemoImage]:
    """The pictures a demonstration is calibrated on. Raises InputError if scikit-image lacks one of its files."""
    return [_load(name) for name in DEMO_CALIBRATION]


def _load(name: str) -> DemoImage:
    package = find_spec("skimage")
    if package is None or package.origin is None:
        raise InputError(
            "scikit-image is not installed; the demonstration images come with it: pip install scikit-image"
        )
    path = Path(package.origin).parent / "data" / f"{name}.png"
    if not path.is_file():
        raise InputError(
            f"{path}: this demonstration image is missing; reinstall scikit-image or name images of your own"
        )
    return DemoImage(name, path, read_rgb(path))
