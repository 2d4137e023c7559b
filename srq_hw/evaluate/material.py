"""What is unusual about calibration images, in sentences: scored on as well, too few, too small. For all commands.

None of it is an error: the figures are right, but say less than the user may think.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

#: test images that a warning names one by one
NAMED_IMAGES = 5
#: images that ranges are usually taken from: the recipes that come with srq-hw draw so many patches
USUAL_IMAGES = 32


def in_both(calibration: Collection[str], tests: Iterable[tuple[str, Collection[str]]]) -> list[str]:
    """Names of the test images that also calibrate.

    calibration: digests of pixels; tests: name and digests of each image, of which one is enough.
    """
    return [name for name, digests in tests if any(digest in calibration for digest in digests)]


def shared_warnings(names: Sequence[str]) -> list[str]:
    """The warning about the test images that also calibrate; none where there are none."""
    if not names:
        return []
    named = ", ".join(names[:NAMED_IMAGES])
    more = f" and {len(names) - NAMED_IMAGES} more" if len(names) > NAMED_IMAGES else ""
    what = f"{len(names)} test images are also calibration images"
    if len(names) == 1:
        what = "1 test image is also a calibration image"
    return [f"{what} ({named}{more}): figures on them say nothing about new images; use another --calib-images"]


def different_patches(sizes: Sequence[tuple[int, int]], side: int, count: int) -> int:
    """How many of ``count`` squares of ``side``, drawn from images of these sizes in turn, can differ at most."""
    found = 0
    for index, (height, width) in enumerate(sizes):
        drawn = len(range(index, count, len(sizes)))
        found += min(drawn, max(height - side + 1, 1) * max(width - side + 1, 1))
    return found


def image_notes(name: str, sizes: Sequence[tuple[int, int]], side: int, count: int, about: str = "") -> list[str]:
    """What is unusual about a calibration folder for a recipe of ``count`` patches of side x side.

    sizes: (height, width) of every image in low resolution; about: what made it so (" at x2").
    """
    notes = []
    different = different_patches(sizes, side, count)
    least = f" (no more than {different} can differ)" if different < count else ""
    if len(sizes) == 1:
        notes.append(
            f"calibration: {name} holds one image; all {count} patches are cut from it{least}, so these are the ranges "
            f"of one image; use {USUAL_IMAGES} or more"
        )
    elif least:
        notes.append(
            f"calibration: {name} holds {len(sizes)} images, from which {count} patches of {side}x{side} "
            f"low-resolution pixels are drawn{least}; use more or larger images"
        )
    height, width = min(sizes, key=min)
    if min(height, width) < side:
        notes.append(
            f"calibration: {name} holds images smaller than a patch of {side}x{side} low-resolution pixels (the "
            f"smallest has {width}x{height}{about}); such an image is used whole"
        )
    return notes
