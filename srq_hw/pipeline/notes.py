"""What may spoil the figures of a session without being an error: its calibration images, and what the target lacks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from srq_hw.evaluate.datasets import make_pair
from srq_hw.evaluate.demo import demo_calibration_images
from srq_hw.evaluate.material import image_notes, in_both, shared_warnings
from srq_hw.pipeline.session import Session, image_sha256
from srq_hw.quantize.fallbacks import fallback_notes

Image = npt.NDArray[np.uint8]


def session_notes(session: Session) -> list[str]:
    """What is unusual about recipe and calibration images. Empty where nothing is calibrated (a file, --quantized)."""
    options = session.options
    if options.is_file or options.quantized is not None:
        return []
    recipe, notes = session.recipe, fallback_notes(session.recipe.name, session.recipe, session.target)
    if options.calib_images is not None:
        sizes = [(image.shape[0], image.shape[1]) for image in session.calibration_pictures]
        notes += image_notes(options.calib_images.name, sizes, recipe.patches.size, recipe.patches.count)
    return notes


def session_warnings(session: Session, tests: Iterable[tuple[str, Image]], scale: int) -> list[str]:
    """Test images (name, uint8 RGB of the original) that also calibrate: the same pixels, or those made smaller.

    Empty where nothing is calibrated.
    """
    options = session.options
    if options.is_file or options.quantized is not None:
        return []
    pictures = session.calibration_pictures
    known = {image_sha256(image) for image in pictures}
    if options.calib_images is None:  # they were shrunk for the network; a test set may hold the originals
        known |= {image_sha256(item.rgb) for item in demo_calibration_images()}
    shapes = {image.shape[:2] for image in pictures}

    def digests() -> Iterator[tuple[str, list[str]]]:
        for name, image in tests:
            found = [image_sha256(image)]
            if (image.shape[0] // scale, image.shape[1] // scale) in shapes:
                found.append(image_sha256(make_pair(name, image, scale).lr))
            yield name, found

    return shared_warnings(in_both(known, digests()))


def build_notes(session: Session) -> list[str]:
    """All of a build, which scores on the built-in test images."""
    if session.options.calib_images is None:
        return session_notes(session)
    tests = [(item.name, item.rgb) for item in session.test_images]
    scale = 1 if session.options.is_file else session.network.scale
    return [*session_warnings(session, tests, scale), *session_notes(session)]
