"""The scale of weights whose keys and shapes do not tell it: tried on a picture that is drawn here.

The published transposed convolutions of IDN (17x17) and FSRCNN (9x9) have one size at every scale. A network that is
run at its own scale beats bicubic enlargement of hard edges by several dB; at another it blurs or tears them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from srq_hw.evaluate.resize import downscale_exact
from srq_hw.networks.bicubic import BicubicUpsample
from srq_hw.networks.registry import NETWORKS, NetworkInfo

SIDE, BORDER, OVERSAMPLED = 96, 8, 4  # 96: a multiple of all scales
#: dB above bicubic from which a network is taken to enlarge, and dB from its best scale to one that is wrong. IDN x2
#: and x4 reach 12.1 and 9.4 at their own scale, and are at least 7.8 below that at every other.
ENLARGES, WORSE = 1.0, 3.0


def hard_edges() -> NDArray[np.float64]:
    """Grey shapes with hard, anti-aliased edges; (96, 96) in 0..1."""
    grid = (np.arange(SIDE * OVERSAMPLED) + 0.5) / OVERSAMPLED
    y, x = np.meshgrid(grid, grid, indexing="ij")
    distance = np.hypot(x - 30, y - 34)
    picture = np.full(x.shape, 0.35)
    picture[distance < 20] = 0.9
    picture[distance < 11] = 0.15
    picture[(x + 0.6 * y > 95) & (x + 0.6 * y < 110)] = 0.7
    picture[(0.3 * x - y < -50) & (x < 60)] = 0.05
    picture[(abs(x - 75) < 8) & (abs(y - 70) < 14)] = 0.55
    return picture.reshape(SIDE, OVERSAMPLED, SIDE, OVERSAMPLED).mean((1, 3))


def gain(net: nn.Module, info: NetworkInfo) -> float:
    """dB that a network in eval mode is above bicubic enlargement (Keys, a = -1/2) on the picture."""
    picture = hard_edges()
    small = torch.from_numpy(downscale_exact(picture, info.scale)).float().expand(1, info.channels, -1, -1)
    with torch.inference_mode():
        found = net(small * info.input_max) / info.input_max
        plain = BicubicUpsample(info.scale)(small)
    return _psnr(found, picture) - _psnr(plain, picture)


def better_scale(info: NetworkInfo, state: Mapping[str, Tensor], options: Mapping[str, Any]) -> NetworkInfo | None:
    """The network of the same family at another scale that a state dict (as in the file) clearly belongs to, or None.

    Clearly: it beats bicubic by ENLARGES dB there and is WORSE dB below that at the scale of `info`. Weights that do
    well nowhere (not trained, or another range of the input) say nothing.
    """
    family = [other for other in NETWORKS.values() if _stem(other) == _stem(info)]
    nets = {other.scale: net for other in family if (net := _built(other, state, options)) is not None}
    if set(nets) <= {info.scale}:  # the shapes tell
        return None
    gains = {other.scale: gain(nets[other.scale], other) for other in family if other.scale in nets}
    best = max(family, key=lambda other: gains.get(other.scale, -np.inf))
    clear = gains[best.scale] >= ENLARGES and gains[best.scale] - gains[info.scale] >= WORSE
    return best if clear and best is not info else None


def _stem(info: NetworkInfo) -> str:
    return info.name.removesuffix(f"_x{info.scale}")


def _built(info: NetworkInfo, state: Mapping[str, Tensor], options: Mapping[str, Any]) -> nn.Module | None:
    """The network with these weights; None where a key or shape differs."""
    layout = info.layout_of(state)
    named = state if layout is None else layout.convert(state)
    net = info.factory(**{**info.options, **options}).eval()
    wanted = {key: value.shape for key, value in net.state_dict().items()}
    if {key: value.shape for key, value in named.items()} != wanted:
        return None
    net.load_state_dict(named)
    return net


def _psnr(found: Tensor, picture: NDArray[np.float64]) -> float:
    inside = slice(BORDER, -BORDER)
    error = (found[0].double().numpy() - picture)[:, inside, inside]
    return float(-10 * np.log10(np.square(error).mean()))
