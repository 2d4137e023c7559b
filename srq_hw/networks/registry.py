"""The float networks known by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from torch import nn

from srq_hw.networks.edsr import Edsr, EdsrMeanShift

DEFAULT_NETWORK = "srq_edsr4_24_x2"


@dataclass(frozen=True)
class NetworkInfo:
    """One network: how to build it, the range of its input and output, where its weights come from."""

    name: str
    title: str
    scale: int
    input_max: float  # value of white at the input and output: 1.0 or 255.0
    factory: Callable[[], nn.Module]
    origin: str
    embedded: bool = False  # weights come with this package


_INFOS = (
    NetworkInfo(
        DEFAULT_NETWORK,
        "EDSR style x2, 4 blocks of 24 features, one convolution to the sub-pixels",
        scale=2,
        input_max=1.0,
        factory=partial(Edsr, features=24, blocks=4, scale=2),
        origin="trained by scripts/train_default.py, part of this package",
        embedded=True,
    ),
    NetworkInfo(
        "edsr_mlperf_f32b5_x2",
        "EDSR x2 of MLPerf Mobile, 5 blocks of 32 features",
        scale=2,
        input_max=255.0,
        factory=partial(Edsr, features=32, blocks=5, scale=2),
        origin="mlcommons/mobile_open (Apache-2.0), float checkpoint as a PyTorch state dict",
    ),
    NetworkInfo(
        "edsr8_64_x2",
        "EDSR x2, 8 blocks of 64 features, mean shift, last convolution",
        scale=2,
        input_max=1.0,
        factory=partial(EdsrMeanShift, features=64, blocks=8),
        origin="krasserm/wdsr (Apache-2.0) as a PyTorch state dict",
    ),
)

NETWORKS: dict[str, NetworkInfo] = {info.name: info for info in _INFOS}
