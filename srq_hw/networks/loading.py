"""From what a user writes (a name, a factory, a weights file) to a float network ready to run."""

from __future__ import annotations

import importlib
import math
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from srq_hw.errors import InputError
from srq_hw.networks.checkpoint import CHECKPOINT_SUFFIXES, load_into, sha256_of
from srq_hw.networks.registry import DEFAULT_NETWORK, NETWORKS, NetworkInfo
from srq_hw.yamlfile import did_you_mean

_PROBE_SIDE = 16


@dataclass(frozen=True)
class FloatNetwork:
    """A float super-resolution network in eval mode.

    The module maps RGB (N, 3, H, W) in 0..input_max to (N, 3, scale*H, scale*W) in the same units, not clipped.
    `source` says where the weights came from; `weights_sha256` is the digest of the weights file, or None where a
    user's factory brought its own weights.
    """

    name: str
    module: nn.Module
    scale: int
    input_max: float
    source: str
    weights_sha256: str | None


def load_network(spec: str | None = None, weights: Path | None = None) -> FloatNetwork:
    """Build a network and fill in its weights.

    spec: None for the embedded default; a name of NETWORKS; or 'package.module:factory', a callable without arguments
    that returns a torch module (attribute `srq_input_max` on it: 1.0 if absent). weights: a .pth, .pt or .safetensors
    file; optional for the embedded network and for a factory that fills in its own.
    Raises InputError for whatever does not fit.
    """
    if spec is not None and ":" in spec:
        return _load_factory(spec, weights)
    name = DEFAULT_NETWORK if spec is None else spec
    info = NETWORKS.get(name)
    if info is None:
        raise InputError(_unknown(name))
    module = info.factory()
    if weights is not None:
        load_into(module, name, weights)
        return _finish(name, module, info.scale, info.input_max, str(weights), sha256_of(weights))
    if not info.embedded:
        raise InputError(f"network {name}: no weights given; add --weights FILE (origin: {info.origin})")
    return _load_embedded(info, module)


def run_float(net: FloatNetwork, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Run one uint8 RGB image (H, W, 3) through the network; uint8 (scale*H, scale*W, 3), ties to even, clipped.

    Raises InputError if the network's output is not finite.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"run_float wants a uint8 image (H, W, 3), got {image.dtype} {image.shape}")
    unit = net.input_max / 255.0
    with torch.inference_mode():
        x = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float() * unit
        y = net.module(x.contiguous())[0]
        if not bool(torch.isfinite(y).all()):
            raise InputError(f"network {net.name}: the output holds NaN or Inf; use another checkpoint ({net.source})")
        grey_levels = torch.round(y / unit).clamp(0, 255).to(torch.uint8)
    return np.ascontiguousarray(grey_levels.permute(1, 2, 0).numpy())


def _unknown(name: str) -> str:
    """What is wrong with a name, and what the user may have meant: a weights file is no network."""
    known = ", ".join(NETWORKS)
    if Path(name).suffix.lower() in CHECKPOINT_SUFFIXES:
        return (
            f"network {name!r}: a file of weights says nothing of the network they belong to; name it and give the "
            f"file with --weights {name}. Networks are {known} or your own pkg.module:factory"
        )
    return (
        f"network {name!r}: unknown{did_you_mean(name, NETWORKS)}; allowed are {known}, your own pkg.module:factory, "
        "or a .qonnx or .onnx file"
    )


def _load_embedded(info: NetworkInfo, module: nn.Module) -> FloatNetwork:
    with as_file(files("srq_hw.networks") / "weights" / f"{info.name}.safetensors") as path:
        load_into(module, info.name, path)
        digest = sha256_of(path)
    return _finish(info.name, module, info.scale, info.input_max, info.origin, digest)


def _load_factory(spec: str, weights: Path | None) -> FloatNetwork:
    module = _call_factory(spec)
    input_max = getattr(module, "srq_input_max", 1.0)
    if isinstance(input_max, bool) or not isinstance(input_max, int | float) or not 0 < input_max < math.inf:
        raise InputError(f"network {spec}: srq_input_max is {input_max!r}; allowed is a positive number (1.0, 255.0)")
    digest = None
    if weights is not None:
        load_into(module, spec, weights)
        digest = sha256_of(weights)
    module.eval()
    scale = _probe_scale(spec, module)
    return _finish(spec, module, scale, float(input_max), str(weights or spec), digest)


def _call_factory(spec: str) -> nn.Module:
    module_name, _, attribute = spec.partition(":")
    if not module_name or not attribute:
        raise InputError(f"network {spec!r}: not of the form pkg.module:factory")
    try:
        python_module = importlib.import_module(module_name)
    except Exception as error:  # whatever the user's own module raises while it is imported
        raise InputError(
            f"network {spec}: importing {module_name} failed ({_reason(error)}); check PYTHONPATH"
        ) from error
    factory = getattr(python_module, attribute, None)
    if not callable(factory):
        raise InputError(
            f"network {spec}: {module_name} has no callable {attribute!r}; name a function without arguments"
        )
    try:
        module = factory()
    except Exception as error:  # whatever the user's own factory raises
        raise InputError(
            f"network {spec}: the factory failed ({_reason(error)}); it is called without arguments"
        ) from error
    if not isinstance(module, nn.Module):
        raise InputError(f"network {spec}: the factory returned a {type(module).__name__}; a torch.nn.Module is needed")
    return module


def _probe_scale(name: str, module: nn.Module) -> int:
    probe = torch.zeros(1, 3, _PROBE_SIDE, _PROBE_SIDE)
    try:
        with torch.inference_mode():
            out = module(probe)
    except Exception as error:  # whatever the user's own forward raises
        raise InputError(
            f"network {name}: running it on a {tuple(probe.shape)} input failed ({_reason(error)}); "
            "it must take RGB (N, 3, H, W) of any size"
        ) from error
    shape = tuple(out.shape) if isinstance(out, Tensor) else ()
    if len(shape) != 4 or shape[:2] != (1, 3) or shape[2] != shape[3] or shape[2] == 0 or shape[2] % _PROBE_SIDE:
        got = shape or type(out).__name__
        raise InputError(
            f"network {name}: input {tuple(probe.shape)} gave {got}; "
            f"allowed is (1, 3, s*{_PROBE_SIDE}, s*{_PROBE_SIDE}) with a whole scale s"
        )
    return shape[2] // _PROBE_SIDE


def _reason(error: Exception) -> str:
    first_line = str(error).partition("\n")[0]
    return f"{type(error).__name__}: {first_line}"


def _finish(
    name: str, module: nn.Module, scale: int, input_max: float, source: str, digest: str | None
) -> FloatNetwork:
    module.eval()
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    return FloatNetwork(name, module, scale, input_max, source, digest)
