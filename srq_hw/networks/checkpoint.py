"""Checkpoint files as plain data: a state dict from .pth, .pt or .safetensors, checked against a module."""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from srq_hw.errors import InputError
from srq_hw.networks.registry import NETWORKS, NetworkInfo
from srq_hw.networks.scalecheck import better_scale

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
    _fill(module, name, read_state_dict(path), path)


def build_network(info: NetworkInfo, options: Mapping[str, Any], path: Path) -> nn.Module:
    """The module of a known network with the weights of `path`, in whatever published naming the file is.

    options: what the user set of info.options. Blocks and features are the file's where info.settings reads them.
    Raises InputError as load_into does.
    """
    state = read_state_dict(path)
    plain = state
    layout = info.layout_of(state)
    found = info.settings_of(state)
    if layout is not None:
        state = dict(layout.convert(state))
    fits = exact_fits(plain) if info.settings is not None else []
    if fits and info.name not in fits:  # another size of the family may differ in more than its size
        raise InputError(f"{path}: not the weights of {info.name}: {_advice(plain)}")
    implied = {} if layout is None else layout.options
    module = info.factory(**{**found, **info.options, **implied, **options})
    _fill(module, info.name, state, path, info.optional, plain)
    other = better_scale(info, plain, {**implied, **options}) if info.scale_hidden else None
    if other is not None:
        raise InputError(
            f"{path}: not the weights of {info.name}: on a test picture they enlarge by {other.scale}, "
            f"not by {info.scale}; name {other.name}"
        )
    return module


def exact_fits(state: Mapping[str, Tensor]) -> list[str]:
    """Names of the networks (of the published size) that have exactly these tensors."""
    return [name for name, fit in _fits(state).items() if fit.exact]


def _fill(
    module: nn.Module,
    name: str,
    state: Mapping[str, Tensor],
    path: Path,
    optional: tuple[str, ...] = (),
    plain: Mapping[str, Tensor] | None = None,
) -> None:
    """Check and load; `plain` is the state dict as the file has it, for the advice."""
    wanted = module.state_dict()
    kept = {key: value for key, value in wanted.items() if key not in state and _may_lack(key, optional)}
    state = {**state, **kept}
    plain = state if plain is None else plain
    missing = [key for key in wanted if key not in state]
    unexpected = [key for key in state if key not in wanted]
    if missing or unexpected:
        parts = [
            f"{len(keys)} {word} ({_few(keys)})"
            for keys, word in ((missing, "missing"), (unexpected, "unexpected"))
            if keys
        ]
        raise InputError(f"{path}: not the weights of {name}: keys {', '.join(parts)}; {_advice(plain)}")
    wrong = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(value.shape)}"
        for key, value in wanted.items()
        if state[key].shape != value.shape
    ]
    if wrong:
        raise InputError(
            f"{path}: not the weights of {name}: {len(wrong)} wrong shapes ({_few(wrong)}); {_advice(plain)}"
        )
    kinds = [
        f"{key} {state[key].dtype}"
        for key, value in wanted.items()
        if value.is_floating_point() and not state[key].is_floating_point()
    ]
    if kinds:
        raise InputError(f"{path}: {len(kinds)} tensors are not float ({_few(kinds)}); a float checkpoint is needed")
    module.load_state_dict(state)
    loaded = module.state_dict()
    torn = [key for key, value in loaded.items() if not torch.equal(value, state[key].to(value.dtype))]
    if torn:  # two keys of one parameter
        raise InputError(f"{path}: {name} has one parameter where the file has several values ({_few(torn)})")


def _may_lack(key: str, optional: tuple[str, ...]) -> bool:
    """BatchNorm's batch counter decides nothing, and old checkpoints lack it."""
    return key.endswith(".num_batches_tracked") or (bool(optional) and key.startswith(optional))


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


@cache
def _tables() -> dict[str, frozenset[tuple[str, tuple[int, ...]]]]:
    """Keys and shapes of every known network at its published size."""
    with torch.device("meta"):
        return {
            name: frozenset((key, tuple(value.shape)) for key, value in info.factory().state_dict().items())
            for name, info in NETWORKS.items()
        }


@dataclass(frozen=True)
class _Fit:
    """How a file fits a network: whether nothing differs, share and number of common entries, all of the network's."""

    exact: bool
    share: float
    common: int
    total: int


def _fits(state: Mapping[str, Tensor]) -> dict[str, _Fit]:
    """For every known network the entries (key and shape) it has in common with a file, read in its own naming."""
    found = {}
    for name, table in _tables().items():
        info = NETWORKS[name]
        layout = info.layout_of(state)
        named = state if layout is None else layout.convert(state)
        shapes = {(key, tuple(value.shape)) for key, value in named.items()}
        lacking = {entry for entry in table - shapes if _may_lack(entry[0], info.optional)}
        common = shapes & table
        found[name] = _Fit(shapes | lacking == table, len(common) / len(shapes | table), len(common), len(table))
    return found


def _advice(state: Mapping[str, Tensor]) -> str:
    """Name the known networks that the file fits, or the one that shares most entries (key and shape) with it."""
    fits = _fits(state)
    exact = [name for name, fit in fits.items() if fit.exact]
    if exact:
        return f"the file fits network {' or '.join(exact)}, name that one"
    best, fit = max(fits.items(), key=lambda item: item[1].share)
    if fit.common:
        return f"nearest known network is {best} ({fit.common} of {fit.total} tensors fit)"
    return "it fits none of the known networks (srq-hw networks lists them); bring the network as pkg.module:factory"


def _few(items: list[str]) -> str:
    rest = len(items) - _SHOWN
    return ", ".join(items[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")


def _kind(value: object) -> str:
    return "an empty dict" if isinstance(value, Mapping) and not value else f"a {type(value).__name__}"
