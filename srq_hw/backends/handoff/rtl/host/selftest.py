"""Checks the driver against golden/: packed images are the beats of input.hex, the beats of output.hex are the images.

python3 -m host.selftest      # in the folder of the bundle
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from .dma_model import Bytes, DmaModel
from .sr_driver import Layout, SrDriver, pack, read_layouts

GOLDEN = Path(__file__).resolve().parent.parent / "golden"


def beats(name: str, layout: Layout) -> list[Bytes]:
    """The frames of a .hex file as DMA buffers: a line is a beat, most significant digit first."""
    size = layout.word_bytes
    words = [int(line, 16).to_bytes(size, "little") for line in (GOLDEN / name).read_text().split()]
    return [
        np.frombuffer(b"".join(words[start : start + layout.beats]), np.uint8)
        for start in range(0, len(words), layout.beats)
    ]


def main() -> int:
    """0 where all is equal; 1 else, with the first difference on stderr."""
    layouts = source, result = read_layouts()
    images, wanted = np.load(GOLDEN / "input.npy"), np.load(GOLDEN / "output.npy")
    sent, answers = beats("input.hex", source), beats("output.hex", result)
    if not len(images) == len(wanted) == len(sent) == len(answers) > 0:
        sys.stderr.write("host driver: FAIL, golden/ holds different numbers of frames\n")
        return 1
    known = {frame.tobytes(): answer for frame, answer in zip(sent, answers, strict=True)}
    driver = SrDriver(DmaModel(lambda frame: known[frame.tobytes()]), layouts)
    for index, image in enumerate(images):
        if not np.array_equal(pack(image, source), sent[index]):
            sys.stderr.write(f"host driver: FAIL, frame {index} packs into other beats than golden/input.hex\n")
            return 1
        if not np.array_equal(driver.run(image), wanted[index]):
            sys.stderr.write(f"host driver: FAIL, frame {index} comes out as another image than golden/output.npy\n")
            return 1
    sys.stdout.write(f"host driver: {len(images)} frames packed and unpacked as in golden/\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
