"""The trainer's state between epochs: tensors and plain numbers only, written beside and renamed."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from srq_hw.errors import InputError
from srq_hw.files import beside, write_json

FILE, LOG = "checkpoint.pt", "log.json"

# What torch's reader raises on damaged bytes, found by feeding it such.
_DAMAGED = (OSError, RuntimeError, EOFError, TypeError, ValueError, LookupError, AttributeError, pickle.UnpicklingError)


@dataclass(frozen=True)
class Checkpoint:
    """State after an epoch. Batches are a function of seed and step, so the epoch is the state of the random numbers.

    settings: what defines the run; epoch: epochs done; learned: the student's tensors; average: their moving average
    ({} without one); best: those of the best epoch; adam: the optimizer; log: one row per epoch.
    """

    settings: dict[str, Any]
    epoch: int
    learned: dict[str, Tensor]
    average: dict[str, Tensor]
    best: dict[str, Tensor]
    adam: dict[str, Any]
    log: list[dict[str, Any]]


def save_checkpoint(folder: Path, state: Checkpoint) -> None:
    """Write folder/checkpoint.pt, and its log as folder/log.json."""
    with beside(folder / FILE) as place, place.open("wb") as stream:  # a file's name would get into its bytes
        torch.save(vars(state), stream)
    write_json(folder / LOG, {"settings": state.settings, "epochs": state.log})


def load_checkpoint(folder: Path, settings: Mapping[str, Any]) -> Checkpoint | None:
    """The state in the folder, None without one.

    InputError for a damaged file, and for one of another run: every setting that differs is named.
    """
    path = folder / FILE
    if not path.exists():
        return None
    try:
        state = Checkpoint(**torch.load(path, weights_only=True, map_location="cpu"))
    except _DAMAGED as error:
        raise InputError(f"{path}: not a checkpoint of srq-hw qat ({error}); use another --out") from error
    different = [
        f"{key} {state.settings.get(key)!r} there, {settings.get(key)!r} here"
        for key in sorted(state.settings.keys() | settings.keys())
        if state.settings.get(key) != settings.get(key)
    ]
    if different:
        raise InputError(f"{path}: belongs to another run ({'; '.join(different)}); use another --out")
    return state
