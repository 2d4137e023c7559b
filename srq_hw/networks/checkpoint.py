"""Checkpoint files as plain data: a state dict from .pth, .pt or .safetensors, checked against a module."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from srq_hw.errors import InputError
from srq_hw.networks.registry import NETWORKS

_TORCH_SUFFIXES = (".pth", ".pt")
CHECKPOINT_SUFFIXES = (*_TORCH_SUFFIXES, ".safetensors")
_NESTS = ("state_dict", "params", "params_ema", "model")  # keys under which training frameworks nest the state dict
_SHOWN = 4


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read a state dict (name to tensor, on the CPU); no code in the file is ever run.

    A dict nested under 'state_dict', 'params', 'params_ema' or 'model' is taken out, and a prefix 'module.' common to
    all keys (left by DataParallel) is removed. Raises InputError for a missing or damaged file, another suffix, a file
    that needs pickle, anything but tensors, or a tensor with NaN or Inf.
    """
    if not path.is_file():
        raise InputError(f"{path}: the weights file does not exist; give the path of a .pth, .pt or .safetensors file")
    content = _read(path)
    for key in _NESTS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping) or not content:
        raise InputError(f"{path}: holds {_kind(content)}; a state dict (parameter name to tensor) is needed")
    for key, value in content.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            raise InputError(
                f"{path}: entry {key!r} is {_kind(value)}; a state dict holds tensors only, save module.state_dict()"
            )
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            bad = int((~torch.isfinite(value)).sum())
            raise InputError(f"{path}: {key} holds {bad} NaN or Inf of {value.numel()} values; use another checkpoint")
    state = {str(key): value for key, value in content.items()}
    if all(key.startswith("module.") for key in state):
        state = {key.removeprefix("module."): value for key, value in state.items()}
    return state


def load_into(module: nn.Module, name: str, path: Path) -> None:
    """Fill `module` (called `name` in messages) with the weights of `path`; keys and shapes must agree exactly.

    Raises InputError naming the missing and unexpected keys, or the shapes that differ, and the known network that
    the file fits best.
    """
    state = read_state_dict(path)
    wanted = module.state_dict()
    missing = [key for key in wanted if key not in state]
    unexpected = [key for key in state if key not in wanted]
    if missing or unexpected:
        parts = [
            f"{len(keys)} {word} ({_few(keys)})"
            for keys, word in ((missing, "missing"), (unexpected, "unexpected"))
            if keys
        ]
        raise InputError(f"{path}: not the weights of {name}: keys {', '.join(parts)}; {_advice(state)}")
    wrong = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(value.shape)}"
        for key, value in wanted.items()
        if state[key].shape != value.shape
    ]
    if wrong:
        raise InputError(
            f"{path}: not the weights of {name}: {len(wrong)} wrong shapes ({_few(wrong)}); {_advice(state)}"
        )
    kinds = [
        f"{key} {state[key].dtype}"
        for key, value in wanted.items()
        if value.is_floating_point() and not state[key].is_floating_point()
    ]
    if kinds:
        raise InputError(f"{path}: {len(kinds)} tensors are not float ({_few(kinds)}); a float checkpoint is needed")
    module.load_state_dict(state)


def _read(path: Path) -> object:
    try:
        if path.suffix == ".safetensors":
            return load_file(path, device="cpu")
        if path.suffix in _TORCH_SUFFIXES:
            return torch.load(path, weights_only=True, map_location="cpu")
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            f"{path}: damaged, or holds more than tensors ({reason}); save module.state_dict() alone"
        ) from None
    except Exception as error:  # the two readers raise whatever the damaged bytes lead them to
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise InputError(f"{path}: damaged or not a checkpoint ({reason}); fetch or save it again") from None
    raise InputError(f"{path}: suffix {path.suffix or '(none)'}; allowed are .pth, .pt and .safetensors")


def _advice(state: Mapping[str, Tensor]) -> str:
    """Name the network of the table that shares most entries (key and shape) with the file."""
    shapes = {(key, tuple(value.shape)) for key, value in state.items()}
    with torch.device("meta"):
        tables = {
            name: {(key, tuple(value.shape)) for key, value in info.factory().state_dict().items()}
            for name, info in NETWORKS.items()
        }
    shared = {name: len(shapes & table) / len(shapes | table) for name, table in tables.items()}
    best = max(shared, key=lambda name: shared[name])
    if shared[best] == 1.0:
        return f"the file fits network {best}, name that one"
    if shared[best] > 0.0:
        return f"nearest known network is {best} ({len(shapes & tables[best])} of {len(tables[best])} tensors fit)"
    return f"it fits none of the known networks ({', '.join(NETWORKS)}); bring the network as pkg.module:factory"


def _few(items: list[str]) -> str:
    rest = len(items) - _SHOWN
    return ", ".join(items[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def _kind(value: object) -> str:
    return "an empty dict" if isinstance(value, Mapping) and not value else f"a {type(value).__name__}"
