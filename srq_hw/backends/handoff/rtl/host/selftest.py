"""Checks the driver against golden/: packed images are the beats of input.hex, the beats of output.hex are the images.

Where weights are written at run time: the driver sends those of weights.hex, and no frame before them.

python3 -m host.selftest      # in the folder of the bundle
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from .dma_model import Bytes, Core, DmaModel, GpioModel, WeightsModel
from .sr_driver import Layout, SrDriver, WeightsPort, pack, read_layouts, read_weights_layout

GOLDEN = Path(__file__).resolve().parent.parent / "golden"


def beats(name: str, layout: Layout) -> list[Bytes]:
    """The frames of a .hex file as DMA buffers: a line is a beat, most significant digit first."""
    size = layout.word_bytes
    words = [int(line, 16).to_bytes(size, "little") for line in (GOLDEN / name).read_text().split()]
    return [
        np.frombuffer(b"".join(words[start : start + layout.beats]), np.uint8)
        for start in range(0, len(words), layout.beats)
    ]


def modelled(core: Core, layouts: tuple[Layout, Layout]) -> tuple[SrDriver, WeightsModel | None]:
    """A driver on the model of the design, and the model of its weights where they are written at run time."""
    layout = read_weights_layout()
    if layout is None:
        return SrDriver(DmaModel(core), layouts), None
    weights = WeightsModel(layout.frame_bytes)
    port = WeightsPort(layout, weights, weights)
    return SrDriver(DmaModel(core, weights=weights), layouts, control=GpioModel(weights), weights=port), weights


def weights_problem(driver: SrDriver, weights: WeightsModel, image: npt.NDArray[Any]) -> str:
    """What is wrong with the weights that the driver sends, once and again after a reset; "" where nothing is."""
    assert driver.weights is not None
    (wanted,) = beats("weights.hex", driver.weights.layout)
    for sets in (1, 2):
        try:
            driver.run(image)
        except RuntimeError:
            refused = driver.dma.sendchannel.buffer is None
        else:
            refused = False
        if not refused:
            return "an image was sent before the weights"
        driver.load_weights()
        if weights.sets != sets or weights.held is None or not np.array_equal(weights.held, wanted):
            return "weights.bin has other words than golden/weights.hex"
        driver.run(image)
        if sets == 1:
            driver.reset()
    return ""


def problem() -> str:
    """What is wrong, "" where all is equal."""
    layouts = source, result = read_layouts()
    images, wanted = np.load(GOLDEN / "input.npy"), np.load(GOLDEN / "output.npy")
    sent, answers = beats("input.hex", source), beats("output.hex", result)
    if not len(images) == len(wanted) == len(sent) == len(answers) > 0:
        return "golden/ holds different numbers of frames"
    for index, image in enumerate(images):
        if not np.array_equal(pack(image, source), sent[index]):
            return f"frame {index} packs into other beats than golden/input.hex"
    known = {frame.tobytes(): answer for frame, answer in zip(sent, answers, strict=True)}
    driver, weights = modelled(lambda frame: known[frame.tobytes()], layouts)
    found = "" if weights is None else weights_problem(driver, weights, images[0])
    for index, image in enumerate(images):
        if not found and not np.array_equal(driver.run(image), wanted[index]):
            found = f"frame {index} comes out as another image than golden/output.npy"
    return found


def main() -> int:
    """0 where all is equal; 1 else, with the first difference on stderr."""
    found = problem()
    if found:
        sys.stderr.write(f"host driver: FAIL, {found}\n")
        return 1
    layout = read_weights_layout()
    said = "" if layout is None else f", {layout.beats} weights before them"
    sys.stdout.write(
        f"host driver: {len(np.load(GOLDEN / 'input.npy'))} frames packed and unpacked as in golden/{said}\n"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
