"""A quantized network on disk: calibration.json (widths, scales, ranges) and weights.safetensors (real weights)."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from srq_hw.errors import InputError
from srq_hw.files import write_bytes, write_text
from srq_hw.normalform.normal import NormalNet
from srq_hw.quantize.calibration import Calibration, Range
from srq_hw.quantize.guide import with_guide
from srq_hw.quantize.plan import QuantPlan, make_plan
from srq_hw.quantize.policy import LayerPolicy
from srq_hw.quantize.ptq import Quantized
from srq_hw.quantize.requant import shifts_only
from srq_hw.quantize.tuning import with_weights
from srq_hw.target import Target

CALIBRATION = "calibration.json"
WEIGHTS = "weights.safetensors"
FILES = (CALIBRATION, WEIGHTS)

Scale = Annotated[float, Field(gt=0)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class _Range(_Part):
    lower: float
    upper: float
    data_min: float
    data_max: float
    histogram: tuple[int, ...]


class _Policy(_Part):
    edges: int | None
    tail: int | None = None
    sums: int | None
    weights: dict[str, int]
    activations: dict[str, int]


class _Guide(_Part):
    channels: Annotated[int, Field(ge=1, le=27)]
    convs: tuple[str, ...]


class _Stored(_Part):
    """calibration.json."""

    network: str
    weight_bits: int
    act_bits: int
    policy: _Policy
    scales: dict[str, Scale]
    weights: dict[str, list[Scale]]
    ranges: dict[str, _Range]
    zero_points: dict[str, int] = {}
    guide: _Guide | None = None


def save_quantized(quantized: Quantized, folder: Path) -> None:
    """Write both files; the same network gives the same bytes."""
    plan, calibration, guide = quantized.plan, quantized.calibration, quantized.plan.net.guide
    data = {
        "network": plan.net.name,
        "weight_bits": plan.weight_bits,
        "act_bits": plan.act_bits,
        "policy": asdict(plan.policy),
        "scales": calibration.scales,
        "weights": {name: steps.tolist() for name, steps in calibration.weights.items()},
        "ranges": {name: asdict(item) for name, item in calibration.ranges.items()},
        "zero_points": calibration.zero_points,
        "guide": None if guide is None else {"channels": guide.channels, "convs": guide.convs},
    }
    tensors: dict[str, Tensor] = {}
    for layer in plan.layers:
        if layer.op == "conv":
            assert layer.weight is not None and layer.bias is not None
            tensors[f"{layer.name}.weight"] = layer.weight.contiguous()
            tensors[f"{layer.name}.bias"] = layer.bias.contiguous()
    write_text(folder / CALIBRATION, json.dumps(data, indent=1))  # floats keep every bit through repr
    write_bytes(folder / WEIGHTS, save(tensors))


def load_quantized(folder: Path, net: NormalNet, target: Target) -> Quantized:
    """What `save_quantized` wrote, on the same network. InputError where a file is missing, damaged or of another."""
    data = _read(folder)
    plan = stored_plan(folder, net, target)
    try:
        tensors = load_file(folder / WEIGHTS)
    except (OSError, SafetensorError) as error:
        raise InputError(f"{folder / WEIGHTS}: cannot be read ({error}); quantize the network anew") from error
    found = {}
    for layer in plan.layers:
        if layer.op == "conv":
            assert layer.weight is not None
            weight, bias = tensors.get(f"{layer.name}.weight"), tensors.get(f"{layer.name}.bias")
            shapes = [None if item is None else item.shape for item in (weight, bias)]
            outs = layer.weight.shape[0]
            known = shapes == [layer.weight.shape, (outs,)] and len(data.weights.get(layer.name, ())) == outs
            if weight is None or bias is None or not known:
                raise InputError(
                    f"{folder}: made for another network than {net.name}: its layer {layer.name} has no weights of "
                    f"shape {tuple(layer.weight.shape)} there; name the network that was quantized"
                )
            if not bool(torch.isfinite(weight).all() and torch.isfinite(bias).all()):
                raise InputError(f"{folder / WEIGHTS}: NaN or Inf in layer {layer.name}; quantize the network anew")
            found[layer.name] = (weight.double(), bias.double())
    missing = {point.group for point in plan.points.values()} - data.scales.keys()
    if missing:
        names = ", ".join(sorted(missing))
        raise InputError(f"{folder / CALIBRATION}: no scale for {names}; quantize the network anew")
    ranges = {name: Range(**item.model_dump()) for name, item in data.ranges.items()}
    weights = {name: np.array(steps, np.float64) for name, steps in data.weights.items()}
    _require_powers_of_two(folder, data, target)
    return Quantized(with_weights(plan, found), Calibration(data.scales, weights, ranges, data.zero_points))


def _require_powers_of_two(folder: Path, data: _Stored, target: Target) -> None:
    """InputError where a target that only shifts gets the scales of one that multiplies."""
    steps = [*data.scales.values(), *(step for row in data.weights.values() for step in row)]
    if shifts_only(target) and any(np.frexp(step)[0] != 0.5 for step in steps):
        raise InputError(
            f"{folder / CALIBRATION}: its scales are no powers of two, and target {target.name} only shifts; quantize "
            "the network for this target"
        )


def stored_plan(folder: Path, net: NormalNet, target: Target) -> QuantPlan:
    """The plan of the widths that were stored, with the weights of ``net``."""
    data = _read(folder)
    if data.guide:
        missing = set(data.guide.convs) - {layer.name for layer in net.layers if layer.op == "conv"}
        if missing:
            raise InputError(
                f"{folder}: made for another network than {net.name}, which has no convolution {min(missing)}; name "
                "the network that was quantized"
            )
        net = with_guide(net, data.guide.channels, data.guide.convs)
    return make_plan(net, target, data.weight_bits, data.act_bits, LayerPolicy(**data.policy.model_dump()))


def _read(folder: Path) -> _Stored:
    path = folder / CALIBRATION
    try:
        return _Stored.model_validate_json(path.read_bytes(), strict=True)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error}); give the folder of a quantized network") from error
    except ValidationError as error:
        lines = [f"  {'.'.join(str(part) for part in item['loc'])}: {item['msg']}" for item in error.errors()[:5]]
        raise InputError("\n".join([f"{path}: cannot be read; quantize the network anew", *lines])) from error
