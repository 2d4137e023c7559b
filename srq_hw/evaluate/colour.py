"""Between RGB pictures and networks that see luma only: BT.601 studio-swing Y in, Y out.

A network of one channel gets the rounded Y of the picture. Its result is scored as Y; for a picture to look at, the
luma of the bicubically enlarged input is replaced by it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from srq_hw.errors import InputError
from srq_hw.evaluate.metrics import rgb_to_y
from srq_hw.evaluate.resize import downscale_exact, upscale

UInt8Image = NDArray[np.uint8]

# ITU-R BT.601 studio swing: (R, G, B) in 0..255 to (Y, Cb, Cr) - (16, 128, 128), times 255.
_TO_YCBCR = np.array([[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]]) / 255.0
_FROM_YCBCR = np.linalg.inv(_TO_YCBCR)
_OFFSET = np.array([16.0, 128.0, 128.0])


def network_view(picture: UInt8Image, channels: int) -> UInt8Image:
    """What a network of so many channels sees of a uint8 RGB picture (H, W, 3): itself, or rounded Y (H, W, 1).

    InputError for another number than 3 and 1.
    """
    if channels == 3:
        return picture
    if channels != 1:
        raise InputError(f"the network reads {channels} channels; pictures are RGB (3) or Y (1)")
    return np.rint(rgb_to_y(picture)).astype(np.uint8)[..., None]


def unrounded_luma(original: UInt8Image, scale: int) -> NDArray[np.float64]:
    """The input of published figures of Y networks: rounded Y of the original (H, W, 3), shrunk without rounding.

    float64 (H/scale, W/scale, 1) in grey levels. No 8-bit hardware sees that image: network_view is what it sees.
    """
    return downscale_exact(np.rint(rgb_to_y(original)), scale)[..., None]


def picture_of(result: UInt8Image, low: UInt8Image) -> UInt8Image:
    """The RGB picture of a network's uint8 result (H, W, channels), given its RGB input `low` (H/scale, W/scale, 3).

    Three channels are the picture. Of one, Cb and Cr come from the bicubically enlarged input. InputError for another
    number.
    """
    if result.shape[2] == 3:
        return result
    if result.shape[2] != 1:
        raise InputError(f"the network gives {result.shape[2]} channels; pictures are RGB (3) or Y (1)")
    wide = upscale(low, result.shape[0] // low.shape[0]).astype(np.float64)
    chroma = (wide @ _TO_YCBCR.T)[..., 1:] + _OFFSET[1:]
    full = np.concatenate([result.astype(np.float64), chroma], axis=-1)
    return np.clip(np.rint((full - _OFFSET) @ _FROM_YCBCR.T), 0, 255).astype(np.uint8)
