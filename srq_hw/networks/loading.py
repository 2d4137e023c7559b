"""From what a user writes (a name, a factory, a weights file) to a float network ready to run."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.resources import as_file, files
from importlib.resources.abc import Traversable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from srq_hw.errors import InputError
from srq_hw.exchange.names import QONNX_SUFFIXES, QUANT_NODES
from srq_hw.networks.checkpoint import CHECKPOINT_SUFFIXES, build_network, load_into, sha256_of
from srq_hw.networks.fetch import fetched_file
from srq_hw.networks.options import parse_options
from srq_hw.networks.registry import DEFAULT_NETWORK, NETWORKS, NetworkInfo
from srq_hw.networks.sources import source_of
from srq_hw.yamlfile import did_you_mean

_PROBE_SIDE = 16


@dataclass(frozen=True)
class FloatNetwork:
    """A float super-resolution network in eval mode.

    The module maps (N, channels, H, W) in 0..input_max to (N, channels, scale*H, scale*W) in the same units, not
    clipped; channels is 3 (RGB) or 1 (BT.601 studio Y). `source` says where the weights came from; `weights_sha256` is
    the digest of the weights file, or None where a user's factory brought its own weights.
    """

    name: str
    module: nn.Module
    scale: int
    input_max: float
    source: str
    weights_sha256: str | None
    channels: int = 3


def load_network(spec: str | None = None, weights: Path | None = None) -> FloatNetwork:
    """Build a network and fill in its weights.

    spec: None for the embedded default; a name of NETWORKS, with switches of that network or input_max behind it
    ('idn_rgb_x2+slice_first=true', 'edsr_x2+res_scale=0.2'); or 'package.module:factory', a callable without arguments
    that returns a torch module (attributes on it: `srq_input_max`, 1.0 if absent, and `srq_channels`, 3 if absent).
    weights: a .pth, .pt or .safetensors file; optional for the embedded network, one whose file was fetched, and a
    factory that fills in its own. Raises InputError for whatever does not fit.
    """
    if spec is not None and ":" in spec:
        return _load_factory(spec, weights)
    spec = DEFAULT_NETWORK if spec is None else spec
    name, *settings = spec.split("+")
    info = NETWORKS.get(name)
    if info is None:
        raise InputError(_unknown(spec))
    options = parse_options(info, settings)
    input_max = float(options.pop("input_max", info.input_max))
    place, source = _own_weights(info) if weights is None else (weights, str(weights))
    with _as_path(place) as path:
        module = build_network(info, options, path)
        digest = sha256_of(path)
    return _finish(FloatNetwork(spec, module, info.scale, input_max, source, digest, info.channels))


def run_float(net: FloatNetwork, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Run one uint8 image (H, W, channels) through the network; uint8 (scale*H, scale*W, channels).

    Rounded with ties to even, clipped. Raises InputError if the network's output is not finite.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != net.channels:
        raise ValueError(f"run_float wants a uint8 image (H, W, {net.channels}), got {image.dtype} {image.shape}")
    return run_levels(net, image)


def run_levels(net: FloatNetwork, image: NDArray[np.uint8] | NDArray[np.float64]) -> NDArray[np.uint8]:
    """run_float for grey levels 0..255 that need not be whole numbers (H, W, channels)."""
    unit = net.input_max / 255.0
    with torch.inference_mode():
        x = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float() * unit
        y = net.module(x.contiguous())[0]
        if not bool(torch.isfinite(y).all()):
            raise InputError(f"network {net.name}: the output holds NaN or Inf; use another checkpoint ({net.source})")
        grey_levels = torch.round(y / unit).clamp(0, 255).to(torch.uint8)
    return np.ascontiguousarray(grey_levels.permute(1, 2, 0).numpy())


def _own_weights(info: NetworkInfo) -> tuple[Path | Traversable, str]:
    """The embedded or the fetched file of a network, and what to call it."""
    if info.embedded:
        return files("srq_hw.networks") / "weights" / f"{info.name}.safetensors", info.origin
    fetched = fetched_file(info.name)
    if fetched is None:
        how = f"`srq-hw networks fetch {info.name}` or " if source_of(info.name).url else ""
        raise InputError(f"network {info.name}: no weights given; {how}add --weights FILE (origin: {info.origin})")
    return fetched, str(fetched)


@contextmanager
def _as_path(place: Path | Traversable) -> Iterator[Path]:
    if isinstance(place, Path):
        yield place
    else:
        with as_file(place) as path:
            yield path


def _unknown(name: str) -> str:
    """What is wrong with a name, and what the user may have meant: a file of weights or of integers is no network."""
    known = ", ".join(NETWORKS)
    if Path(name).suffix.lower() in QONNX_SUFFIXES:
        return _no_float_network(name)
    if Path(name).suffix.lower() in CHECKPOINT_SUFFIXES:
        return (
            f"network {name!r}: a file of weights says nothing of the network they belong to; name it and give the "
            f"file with --weights {name}. Networks are {known} or your own pkg.module:factory"
        )
    return (
        f"network {name!r}: unknown{did_you_mean(name, NETWORKS)}; allowed are {known}, your own pkg.module:factory, "
        "or, where no float network is needed, a .qonnx or .onnx file"
    )


def _no_float_network(path: str) -> str:
    """Why an ONNX file cannot stand where a float network is needed. InputError where it cannot be read."""
    from srq_hw.exchange.lower import load_qonnx  # that package builds upon this one

    if any(node.op_type in QUANT_NODES for node in load_qonnx(Path(path)).graph.node):
        return (
            f"network {path}: is quantized already: its integers, widths and scales are fixed, and the float weights "
            f"that this command needs are not in it. Score it with `srq-hw evaluate {path}`, build it with `srq-hw "
            f"build {path}`; here give the float network, a name or pkg.module:factory"
        )
    return (
        f"network {path}: a float ONNX file (no Quant node in it), which no command reads: of ONNX only files that are "
        "quantized (QONNX). Give the float network as a torch module, pkg.module:factory"
    )


def _load_factory(spec: str, weights: Path | None) -> FloatNetwork:
    module = _call_factory(spec)
    input_max = getattr(module, "srq_input_max", 1.0)
    if isinstance(input_max, bool) or not isinstance(input_max, int | float) or not 0 < input_max < math.inf:
        raise InputError(f"network {spec}: srq_input_max is {input_max!r}; allowed is a positive number (1.0, 255.0)")
    channels = getattr(module, "srq_channels", 3)
    if channels not in (1, 3):
        raise InputError(f"network {spec}: srq_channels is {channels!r}; allowed are 3 (RGB) and 1 (Y)")
    digest = None
    if weights is not None:
        load_into(module, spec, weights)
        digest = sha256_of(weights)
    module.eval()
    scale = _probe_scale(spec, module, channels)
    return _finish(FloatNetwork(spec, module, scale, float(input_max), str(weights or spec), digest, channels))


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


def _probe_scale(name: str, module: nn.Module, channels: int) -> int:
    probe = torch.zeros(1, channels, _PROBE_SIDE, _PROBE_SIDE)
    try:
        with torch.inference_mode():
            out = module(probe)
    except Exception as error:  # whatever the user's own forward raises
        raise InputError(
            f"network {name}: running it on a {tuple(probe.shape)} input failed ({_reason(error)}); "
            f"it must take (N, {channels}, H, W) of any size"
        ) from error
    shape = tuple(out.shape) if isinstance(out, Tensor) else ()
    if len(shape) != 4 or shape[:2] != (1, channels) or shape[2] != shape[3] or shape[2] == 0 or shape[2] % _PROBE_SIDE:
        got = shape or type(out).__name__
        raise InputError(
            f"network {name}: input {tuple(probe.shape)} gave {got}; "
            f"allowed is (1, {channels}, s*{_PROBE_SIDE}, s*{_PROBE_SIDE}) with a whole scale s"
        )
    return shape[2] // _PROBE_SIDE


def _reason(error: Exception) -> str:
    first_line = str(error).partition("\n")[0]
    return f"{type(error).__name__}: {first_line}"


def _finish(net: FloatNetwork) -> FloatNetwork:
    net.module.eval()
    for parameter in net.module.parameters():
        parameter.requires_grad_(False)
    return net
