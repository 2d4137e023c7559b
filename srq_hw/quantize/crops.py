"""What reconstruction sees: random crops of the calibration images, some of them stretched in contrast, and what the
float network makes of each.

Calibration photographs hold few black-and-white edges; ranges that are learned on them alone cut text and line art.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from srq_hw.normalform.normal import NormalNet, evaluate

Image = npt.NDArray[np.uint8]

#: crops that the float network sees at once
POOL_BATCH = 16
#: a stretched crop: how much its contrast grows, and the grey level where its mean lands
GAIN = (1.0, 6.0)
MEAN = (64.0, 192.0)


@dataclass(frozen=True, eq=False)
class Pool:
    """Crops (N, C, s, s) with what the float network makes of them: outputs clamped to 0..255, and attention maps
    (N, s*s * upscale**2) by layer."""

    crops: Tensor
    outputs: Tensor
    maps: dict[str, Tensor]


def draw_pool(
    net: NormalNet,
    images: Sequence[Image],
    count: int,
    side: int,
    rng: np.random.Generator,
    features: tuple[str, ...] = (),
    stretched: float = 0.0,
) -> Pool:
    """Random crops, a part of them ``stretched``, and the float network's answers, worked out once."""
    crops, outputs = [], []
    maps: dict[str, list[Tensor]] = {name: [] for name in features}

    def keep(name: str, value: Tensor) -> None:
        if name in maps:
            maps[name].append(attention(value))

    with torch.no_grad():
        for start in range(0, count, POOL_BATCH):
            drawn = draw_crops(images, min(POOL_BATCH, count - start), side, rng)
            crops.append(stretch(drawn, stretched, rng) if stretched else drawn)
            outputs.append(evaluate(net, crops[-1], keep).clamp(0.0, 255.0))
    return Pool(torch.cat(crops), torch.cat(outputs), {name: torch.cat(parts) for name, parts in maps.items()})


def draw_crops(images: Sequence[Image], count: int, side: int, rng: np.random.Generator) -> Tensor:
    """Random squares of random images, float32 (N, C, side, side), grey levels; mirrored outwards where too small."""
    crops = []
    for _ in range(count):
        image = images[int(rng.integers(len(images)))]
        height, width = image.shape[:2]
        top = int(rng.integers(max(1, height - side + 1)))
        left = int(rng.integers(max(1, width - side + 1)))
        crop = image[top : top + side, left : left + side]
        missing = (side - crop.shape[0], side - crop.shape[1])
        crops.append(np.pad(crop, ((0, missing[0]), (0, missing[1]), (0, 0)), mode="symmetric"))
    return torch.from_numpy(np.stack(crops).astype(np.float32)).permute(0, 3, 1, 2)


def stretch(crops: Tensor, part: float, rng: np.random.Generator) -> Tensor:
    """The crops, about a ``part`` of them with contrast grown about their mean (GAIN, MEAN); whole grey levels."""
    shape = (len(crops), 1, 1, 1)
    chosen, gain, place = rng.random(shape) < part, rng.uniform(*GAIN, shape), rng.uniform(*MEAN, shape)
    mean = crops.mean((1, 2, 3), keepdim=True)
    grown = (crops - mean) * torch.from_numpy(gain.astype(np.float32)) + torch.from_numpy(place.astype(np.float32))
    return torch.where(torch.from_numpy(chosen), grown.round().clamp(0.0, 255.0), crops)


def attention(values: Tensor) -> Tensor:
    """Where a feature map (N, C, H, W) is strong: mean of squares over channels, L2-normalised, (N, H*W)."""
    return F.normalize(values.square().mean(1).flatten(1), dim=1)
