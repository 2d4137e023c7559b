"""`srq-hw search-bits`: the user's options to a search."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from srq_hw.errors import InputError
from srq_hw.evaluate.colour import network_view
from srq_hw.evaluate.demo import demo_images
from srq_hw.evaluate.images import list_images, read_rgb
from srq_hw.evaluate.resize import downscale
from srq_hw.mixed.costs import Frame
from srq_hw.mixed.output import write_result
from srq_hw.mixed.search import Result, SearchOptions, Watch, search_bits
from srq_hw.mixed.solve import parse_budget
from srq_hw.pipeline.options import DEFAULT_SIZE, BuildOptions
from srq_hw.pipeline.session import Session, centre, image_sha256

Image = npt.NDArray[np.uint8]
#: side of the piece of a test image that is scored, low-resolution pixels; at most so many images
TEST_SIDE, TEST_IMAGES = 96, 16


@dataclass(frozen=True)
class BitsOptions:
    """What the user asked for; build: network, weights, target, recipe, calibration images, size and rate."""

    build: BuildOptions
    budget: str
    widths: str = "2-8"
    rounds: int = 3
    patches: int = 8
    test_images: Path | None = None
    front: bool = True


def parse_widths(text: str) -> tuple[int, int]:
    """ "2-8" to (2, 8)."""
    match = re.fullmatch(r"\s*(\d{1,2})\s*-\s*(\d{1,2})\s*", text)
    low, high = (int(part) for part in match.groups()) if match else (0, 0)
    if not 2 <= low < high <= 16:
        raise InputError(f"--widths {text!r}: wanted NARROWEST-WIDEST within 2 to 16, for example 2-8")
    return low, high


def run_search(options: BitsOptions, watch: Watch | None = None) -> tuple[dict[str, Any], Result]:
    """Search, write the files into the output folder; (search.json's data, the result). InputError for bad options."""
    build = options.build
    if build.is_file:
        raise InputError(f"{build.model}: is quantized already; give the float network whose widths are to be chosen")
    budget, widths = parse_budget(options.budget), parse_widths(options.widths)
    session = Session(build)
    height, width = build.input_size or DEFAULT_SIZE
    frame = Frame(height, width, build.fps or SearchOptions(budget).frame.fps)
    tests = _tests(session, options.test_images)
    result = search_bits(
        session.normal,
        session.target,
        session.recipe,
        session.calibration_images,
        tests,
        SearchOptions(budget, widths, options.patches, options.rounds, frame, options.front),
        watch,
    )
    about = {
        "network": session.network.name,
        "target": session.target.name,
        "recipe": session.recipe.name,
        "budget": budget.text,
        "frame": {"height": height, "width": width, "fps": frame.fps} if budget.kind in ("dsp", "bram") else None,
        "test_images": len(tests),
    }
    return write_result(result, build.out, about), result


def _tests(session: Session, folder: Path | None) -> list[Image]:
    """Pieces from the middle of the test images, low resolution, as the network sees them.

    InputError where one of them also calibrates: its score would flatter.
    """
    if folder is None:
        pictures = [downscale(item.rgb, session.network.scale) for item in demo_images()]
    else:
        pictures = [read_rgb(path) for path in list_images(folder, "--test-images")[:TEST_IMAGES]]
    found = [_middle(network_view(picture, session.network.channels)) for picture in pictures]
    known = {image_sha256(_middle(image)) for image in session.calibration_images}
    for image, picture in zip(found, pictures, strict=True):
        if image_sha256(image) in known:
            height, width = picture.shape[:2]
            raise InputError(
                f"--test-images {folder}: an image of {width}x{height} pixels is also a calibration image; give others"
            )
    return found


def _middle(image: Image) -> Image:
    return centre(image, min(TEST_SIDE, image.shape[0]), min(TEST_SIDE, image.shape[1]))
