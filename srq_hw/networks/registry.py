"""The float networks known by name. Where a file of weights comes from stands in sources.yaml, not here."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from torch import nn

from srq_hw.networks import converters as c
from srq_hw.networks.abpn import Abpn
from srq_hw.networks.carn import Carn
from srq_hw.networks.converters import NO_OPTIONS, Layout, State
from srq_hw.networks.edsr import Edsr, EdsrMeanShift, EdsrOfficial
from srq_hw.networks.espcn import Espcn
from srq_hw.networks.fsrcnn import Fsrcnn
from srq_hw.networks.idn import Idn
from srq_hw.networks.msrresnet import MsrResNet
from srq_hw.networks.rnet import RNet
from srq_hw.networks.srresnet import SrResNet, SrResNetShared
from srq_hw.networks.xlsr import Xlsr

DEFAULT_NETWORK = "srq_edsr4_24_x2"


@dataclass(frozen=True)
class NetworkInfo:
    """One network: how to build it, the range of its input and output, how its checkpoints name things.

    factory(**settings) builds the module; without arguments, the published size. `settings` reads from a state dict in
    our names what it decides (blocks, features). `options` are the switches a user may set behind the name
    (NAME+option=value), with their defaults. `optional` are key prefixes that a checkpoint may lack: the module's own
    values stay. `scale_hidden`: the scale is then told by a test picture (scalecheck).
    """

    name: str
    title: str
    scale: int
    input_max: float  # value of white at the input and output: 1.0 or 255.0
    factory: Callable[..., nn.Module]
    origin: str
    channels: int = 3  # of image in and out: 3 (RGB) or 1 (Y)
    embedded: bool = False  # weights come with this package
    layouts: tuple[Layout, ...] = ()
    settings: Callable[[State], Mapping[str, Any]] | None = None
    options: Mapping[str, Any] = field(default_factory=lambda: NO_OPTIONS)
    optional: tuple[str, ...] = ()
    scale_hidden: bool = False  # published weights of another scale have the same keys and shapes

    def layout_of(self, state: State) -> Layout | None:
        """The naming a state dict follows; None for our own."""
        return next((layout for layout in self.layouts if layout.marker in state), None)

    def settings_of(self, state: State) -> dict[str, Any]:
        """What a state dict in any of the namings decides; empty where it decides nothing."""
        if self.settings is None:
            return {}
        layout = self.layout_of(state)
        return dict(self.settings(state if layout is None else layout.convert(state)))


_SHIFTS = ("sub_mean.", "add_mean.")


def _edsr(name: str, title: str, features: int, blocks: int, scale: int, res_scale: float) -> NetworkInfo:
    return NetworkInfo(
        name,
        f"{title} x{scale}, {blocks} blocks of {features} features (others as the checkpoint says), mean shift",
        scale=scale,
        input_max=255.0,
        factory=partial(EdsrOfficial, features=features, blocks=blocks, scale=scale),
        origin="official EDSR checkpoints (sanghyun-son/EDSR-PyTorch), BasicSR's or OpenMMLab's",
        layouts=(
            Layout("BasicSR", "conv_after_body.weight", c.edsr_basicsr),
            Layout("MMEditing", "generator.conv_after_body.weight", c.edsr_mmediting),
        ),
        settings=c.edsr_settings,
        options={"res_scale": res_scale},
        optional=_SHIFTS,
    )


def _msrresnet(scale: int) -> NetworkInfo:
    return NetworkInfo(
        f"msrresnet_x{scale}",
        f"MSRResNet x{scale}, 16 blocks of 64 features, added to the bilinearly enlarged image",
        scale=scale,
        input_max=1.0,
        factory=partial(MsrResNet, features=64, blocks=16, scale=scale),
        origin="BasicSR model zoo (MSRResNet), MMSR or OpenMMLab",
        layouts=(
            Layout("MMSR", "recon_trunk.0.conv1.weight", c.msrresnet_mmsr),
            Layout("MMEditing", "generator.trunk_net.0.conv1.weight", c.msrresnet_mmediting, {"act_after_up": False}),
        ),
        settings=c.msrresnet_settings,
        options={"act_after_up": True},
    )


def _srresnet(scale: int) -> NetworkInfo:
    return NetworkInfo(
        f"srresnet_x{scale}",
        f"SRResNet x{scale} of CADyQ, 16 blocks of 64 features, BatchNorm, one PReLU slope (or one per layer)",
        scale=scale,
        input_max=255.0,
        factory=partial(SrResNetShared, features=64, blocks=16, scale=scale),
        origin="Cheeun/CADyQ" if scale != 3 else "your own training (CADyQ publishes x2 and x4)",
        layouts=(Layout("CADyQ", "sub_mean.weight", c.srresnet_cadyq),),
        settings=c.srresnet_settings,
    )


def _carn(name: str, title: str, scale: int, groups: int) -> NetworkInfo:
    return NetworkInfo(
        name,
        f"{title} x{scale}, cascades of residual blocks",
        scale=scale,
        input_max=1.0,
        factory=partial(Carn, scale=scale, groups=groups),
        origin="nmhkahn/CARN-pytorch (MIT)",
        layouts=c.carn_layouts(scale),
        optional=_SHIFTS,
    )


def _idn(kind: str, channels: int, scale: int, caffe: bool) -> NetworkInfo:
    return NetworkInfo(
        f"idn_{kind}_x{scale}",
        f"IDN x{scale} on {'Y' if channels == 1 else 'RGB'}, residual over bicubic, 17x17 transposed convolution",
        scale=scale,
        input_max=1.0,
        factory=partial(Idn, scale=scale, channels=channels),
        origin="Zheng222/IDN-Caffe (academic)" if caffe else "yjn870/IDN-pytorch, Cheeun/CADyQ (input 0..255)",
        channels=channels,
        layouts=c.idn_layouts(scale),
        options={"slice_first": caffe, "act_after_1x1": caffe, "torch_bicubic": not caffe},
        scale_hidden=True,
    )


def _fsrcnn(scale: int) -> NetworkInfo:
    return NetworkInfo(
        f"fsrcnn_x{scale}",
        f"FSRCNN(56, 12, 4) x{scale} on Y",
        scale=scale,
        input_max=1.0,
        factory=partial(Fsrcnn, scale=scale),
        origin="yjn870/FSRCNN-pytorch",
        channels=1,
        layouts=(Layout("FSRCNN-pytorch", "last_part.weight", partial(c.fsrcnn_torch, scale)),),
        scale_hidden=True,
    )


def _espcn(scale: int) -> NetworkInfo:
    torch_names = Layout("ESPCN-pytorch", "first_part.0.weight", c.espcn_torch, {"act": "tanh"})
    return NetworkInfo(
        f"espcn_x{scale}",
        f"ESPCN x{scale} on Y, three convolutions",
        scale=scale,
        input_max=1.0,
        factory=partial(Espcn, scale=scale),
        origin="yjn870/ESPCN-pytorch (tanh) or your own (ReLU)",
        channels=1,
        layouts=(torch_names,),
        options={"act": "relu"},
    )


def _abpn(scale: int) -> NetworkInfo:
    return NetworkInfo(
        f"abpn_x{scale}",
        f"ABPN D4C28 x{scale}, plain convolutions added to the repeated image",
        scale=scale,
        input_max=255.0,
        factory=partial(Abpn, scale=scale),
        origin="your own training (published for TensorFlow: NJU-Jet/SR_Mobile_Quantization)",
    )


def _xlsr(scale: int) -> NetworkInfo:
    return NetworkInfo(
        f"xlsr_x{scale}",
        f"XLSR x{scale}, grouped convolutions, clipped ReLU output",
        scale=scale,
        input_max=1.0,
        factory=partial(Xlsr, scale=scale),
        origin="your own training",
    )


def _rnet(scale: int) -> NetworkInfo:
    return NetworkInfo(
        f"rnet9_64_x{scale}",
        f"RNet x{scale}, 9 plain residual blocks of 64 features, ReLU behind the addition",
        scale=scale,
        input_max=1.0,
        factory=partial(RNet, scale=scale),
        origin="nmhkahn/CARN-pytorch, RNet (MIT)" if scale == 4 else "your own training (RNet is published at x4)",
        optional=_SHIFTS,
    )


def _srresnet8(scale: int) -> NetworkInfo:
    return NetworkInfo(
        f"srresnet8_bn_x{scale}",
        f"SRResNet x{scale}, 8 blocks of 64 features, BatchNorm, PReLU slopes per channel (or one per layer)",
        scale=scale,
        input_max=1.0,
        factory=partial(SrResNet, scale=scale),
        origin="PyTorch tutorial weights as a state dict" if scale == 4 else "your own training (published at x4)",
        settings=c.srresnet8_settings,
    )


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
    *(_rnet(s) for s in (2, 3, 4)),
    *(_srresnet8(s) for s in (2, 3, 4)),
    *(_edsr(f"edsr_baseline_x{s}", "EDSR-baseline", 64, 16, s, 1.0) for s in (2, 3, 4)),
    *(_edsr(f"edsr_x{s}", "EDSR", 256, 32, s, 0.1) for s in (2, 3, 4)),
    *(_msrresnet(s) for s in (2, 3, 4)),
    *(_srresnet(s) for s in (2, 3, 4)),
    *(_carn(f"carn_x{s}", "CARN", s, 1) for s in (2, 3, 4)),
    *(_carn(f"carn_m_x{s}", "CARN-M", s, 4) for s in (2, 3, 4)),
    *(_idn("y", 1, s, caffe=True) for s in (2, 3, 4)),
    *(_idn("rgb", 3, s, caffe=False) for s in (2, 3, 4)),
    *(_fsrcnn(s) for s in (2, 3, 4)),
    *(_espcn(s) for s in (2, 3, 4)),
    *(_abpn(s) for s in (2, 3, 4)),
    *(_xlsr(s) for s in (2, 3, 4)),
)

NETWORKS: dict[str, NetworkInfo] = {info.name: info for info in _INFOS}
