"""From the key names of published checkpoints to those of our modules: one function per naming.

A `Layout` is found by a key that only its naming has. What it gives is a state dict in our names; keys it does not know
stay as they are, so that loading reports them as unexpected.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

State = Mapping[str, Tensor]
NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})


@dataclass(frozen=True)
class Layout:
    """A naming: its name, a key that tells it, the converter, and the switches of the network that it implies."""

    name: str
    marker: str
    convert: Callable[[State], State]
    options: Mapping[str, Any] = field(default_factory=lambda: NO_OPTIONS)


def renamed(state: State, modules: Mapping[str, str]) -> dict[str, Tensor]:
    """Replace the module part of every key by `modules`; `*` in it stands for a whole number that is kept."""
    patterns = [
        (re.compile(re.escape(old).replace(r"\*", r"(\d+)")), new.replace("*", r"\1")) for old, new in modules.items()
    ]
    found: dict[str, Tensor] = {}
    for key, value in state.items():
        module, dot, leaf = key.rpartition(".")
        for pattern, new in patterns:
            match = pattern.fullmatch(module)
            if match:
                module = match.expand(new)
                break
        found[module + dot + leaf] = value
    return found


def without(state: State, prefixes: tuple[str, ...]) -> dict[str, Tensor]:
    """The state dict without the keys that begin so."""
    return {key: value for key, value in state.items() if not key.startswith(prefixes)}


def count(state: State, pattern: str) -> int:
    """1 + the largest number in place of (\\d+) of a key that matches the whole pattern; 0 if none does."""
    numbers = [int(match.group(1)) for key in state if (match := re.fullmatch(pattern, key))]
    return max(numbers) + 1 if numbers else 0


# --- EDSR, MSRResNet -------------------------------------------------------------------------------------------------


def edsr_basicsr(state: State) -> dict[str, Tensor]:
    """BasicSR's EDSR. Its (x - mean) * 255 ... / 255 + mean on 0..1 is the official network on 0..255; same weights."""
    blocks = count(state, r"body\.(\d+)\.conv1\.weight")
    return renamed(
        without(state, ("mean",)),
        {
            "conv_first": "head.0",
            "body.*.conv1": "body.*.body.0",
            "body.*.conv2": "body.*.body.2",
            "conv_after_body": f"body.{blocks}",
            "upsample.*": "tail.0.*",
            "conv_last": "tail.1",
        },
    )


def edsr_mmediting(state: State) -> dict[str, Tensor]:
    """EDSR of OpenMMLab's MMEditing: on 0..1 without the factor 255.

    Convolutions, ReLU and additions commute with a positive factor once the biases carry it, so biases times 255 make
    it the official network on 0..255 (but for the rounding of that product to float32).
    """
    blocks = count(state, r"generator\.body\.(\d+)\.conv1\.weight")
    places = {
        "generator.conv_first": "head.0",
        "generator.body.*.conv1": "body.*.body.0",
        "generator.body.*.conv2": "body.*.body.2",
        "generator.conv_after_body": f"body.{blocks}",
        "generator.upsample.0.upsample_conv": "tail.0.0",
        "generator.upsample.1.upsample_conv": "tail.0.2",
        "generator.conv_last": "tail.1",
    }
    found = renamed(state, places)
    return {key: value * 255 if key.endswith(".bias") else value for key, value in found.items()}


def edsr_settings(state: State) -> dict[str, Any]:
    """Blocks and features of an EDSR in official names; empty where the keys that say so are absent."""
    head = state.get("head.0.weight")
    blocks = count(state, r"body\.(\d+)\.body\.0\.weight")
    return {"features": int(head.shape[0]), "blocks": blocks} if head is not None and head.dim() == 4 else {}


def msrresnet_mmsr(state: State) -> dict[str, Tensor]:
    """MSRResNet as BasicSR's forerunner (MMSR) named it."""
    return renamed(
        state,
        {"recon_trunk.*.conv1": "body.*.conv1", "recon_trunk.*.conv2": "body.*.conv2", "HRconv": "conv_hr"},
    )


def msrresnet_mmediting(state: State) -> dict[str, Tensor]:
    """MSRResNet of OpenMMLab's MMEditing, the generator of a restorer."""
    return renamed(
        state,
        {
            "generator.conv_first": "conv_first",
            "generator.trunk_net.*.conv1": "body.*.conv1",
            "generator.trunk_net.*.conv2": "body.*.conv2",
            "generator.upsample1.upsample_conv": "upconv1",
            "generator.upsample2.upsample_conv": "upconv2",
            "generator.conv_hr": "conv_hr",
            "generator.conv_last": "conv_last",
        },
    )


def msrresnet_settings(state: State) -> dict[str, Any]:
    """Blocks and features of an MSRResNet."""
    first = state.get("conv_first.weight")
    blocks = count(state, r"body\.(\d+)\.conv1\.weight")
    return {"features": int(first.shape[0]), "blocks": blocks} if first is not None and first.dim() == 4 else {}


# --- SRResNet --------------------------------------------------------------------------------------------------------


def srresnet8_settings(state: State) -> dict[str, Any]:
    """Blocks and features of an SRResNet in our names, and whether a PReLU has one slope or one per channel."""
    head, slope = state.get("head.weight"), state.get("ha.weight")
    if head is None or head.dim() != 4 or slope is None:
        return {}
    blocks = count(state, r"body\.(\d+)\.c1\.weight")
    return {"features": int(head.shape[0]), "blocks": blocks, "per_layer": tuple(slope.shape) == (1,)}


def srresnet_cadyq(state: State) -> dict[str, Tensor]:
    """CADyQ's SRResNet holds mean shifts that it never applies."""
    return without(state, ("sub_mean.", "add_mean."))


def srresnet_settings(state: State) -> dict[str, Any]:
    """Blocks and features of CADyQ's SRResNet.

    A file writes a shared slope once per block; slopes that differ belong to a network with one per layer.
    """
    head = state.get("head.0.weight")
    if head is None or head.dim() != 4:
        return {}
    slopes = [value for key, value in state.items() if re.fullmatch(r"head\.1\.weight|body\.\d+\.act\.weight", key)]
    return {
        "features": int(head.shape[0]),
        "blocks": count(state, r"body\.(\d+)\.conv1\.weight"),
        "per_layer": any(not torch.equal(slope, slopes[0]) for slope in slopes),
    }


# --- CARN ------------------------------------------------------------------------------------------------------------


def carn_part(scale: int, state: State) -> dict[str, Tensor]:
    """One scale's part of a CARN that was trained for several."""
    others = tuple(f"upsample.up{other}." for other in (2, 3, 4) if other != scale)
    return without(state, others) if f"upsample.up{scale}.body.0.weight" in state else dict(state)


def carn_single(scale: int, state: State) -> dict[str, Tensor]:
    """A CARN that was trained for one scale calls its upsampler `upsample.up`."""
    return renamed(state, {"upsample.up.body.*": f"upsample.up{scale}.body.*"})


def carn_layouts(scale: int) -> tuple[Layout, ...]:
    """The two namings of CARN and CARN-M."""
    return (
        Layout("CARN, one scale", "upsample.up.body.0.weight", partial(carn_single, scale)),
        Layout("CARN", f"upsample.up{scale}.body.0.weight", partial(carn_part, scale)),
    )


# --- IDN, FSRCNN, ESPCN ----------------------------------------------------------------------------------------------


def widen(kernel: Tensor, width: int, front: bool) -> Tensor:
    """Fill a square transposed-convolution kernel (in, out, K, K) up to `width` with zeros, in front or at the end.

    K rows with stride s and padding p give (H-1)*s + K - 2p rows. With K = 2p+1 and `width` = 2p+s that is s*H instead
    of (H-1)*s + 1. Zeros at the end: the same rows from 0 on and s-1 more behind (what output_padding = s-1 gives).
    Zeros in front: the same rows moved down by s-1.
    A kernel of another size is left alone: loading reports its shape.
    """
    missing = width - kernel.shape[-1] if kernel.dim() == 4 else 0
    if missing <= 0 or kernel.shape[-1] != kernel.shape[-2]:
        return kernel
    return F.pad(kernel, (missing, 0, missing, 0) if front else (0, missing, 0, missing))


def _with_wide_kernel(state: dict[str, Tensor], key: str, published: int, scale: int, front: bool) -> dict[str, Tensor]:
    kernel = state.get(key)
    if kernel is not None and kernel.shape[-1] == published:
        state[key] = widen(kernel, published - 1 + scale, front)
    return state


IDN_KERNEL, FSRCNN_KERNEL = 17, 9
_IDN_CAFFE = {
    "conv1": "feature.0",
    "conv2": "feature.2",
    **{f"conv{b + 3}_{i + 1}": f"blocks.{b}.first.{2 * i}" for b in range(4) for i in range(3)},
    **{f"conv{b + 3}_{i + 4}": f"blocks.{b}.second.{2 * i}" for b in range(4) for i in range(3)},
    **{f"down{b + 1}": f"blocks.{b}.compress" for b in range(4)},
}
_IDN_TORCH = {
    "fblock.module.*": "feature.*",
    **{f"dblocks.{b}.enhancement_top.*": f"blocks.{b}.first.*" for b in range(4)},
    **{f"dblocks.{b}.enhancement_bottom.*": f"blocks.{b}.second.*" for b in range(4)},
    "dblocks.*.compression": "blocks.*.compress",
    "deconv": "upsample",
}


def idn_caffe(scale: int, state: State) -> dict[str, Tensor]:
    """The authors' Caffe names; their output begins scale-1 rows and columns further down."""
    return _with_wide_kernel(renamed(state, _IDN_CAFFE), "upsample.weight", IDN_KERNEL, scale, front=True)


def idn_torch(scale: int, state: State) -> dict[str, Tensor]:
    """The names of the PyTorch version (also CADyQ's)."""
    return _with_wide_kernel(renamed(state, _IDN_TORCH), "upsample.weight", IDN_KERNEL, scale, front=False)


def idn_layouts(scale: int) -> tuple[Layout, ...]:
    """Caffe code: the first 16 channels are kept, activation behind the 1x1; PyTorch version: neither."""
    return (
        Layout("IDN-Caffe", "conv3_1.weight", partial(idn_caffe, scale)),
        Layout(
            "IDN-pytorch",
            "fblock.module.0.weight",
            partial(idn_torch, scale),
            {"slice_first": False, "act_after_1x1": False, "torch_bicubic": True},
        ),
    )


def fsrcnn_torch(scale: int, state: State) -> dict[str, Tensor]:
    """The published 9x9 transposed convolution with output_padding scale-1."""
    return _with_wide_kernel(dict(state), "last_part.weight", FSRCNN_KERNEL, scale, front=False)


def espcn_torch(state: State) -> dict[str, Tensor]:
    """The PyTorch version's names."""
    return renamed(state, {"first_part.0": "conv1", "first_part.2": "conv2", "last_part.0": "conv3"})
