"""Switches behind a network's name: NAME+option=value."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from srq_hw.errors import InputError
from srq_hw.networks.espcn import ACTIVATIONS
from srq_hw.networks.registry import NetworkInfo
from srq_hw.yamlfile import did_you_mean

_TRUTH = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


def parse_options(info: NetworkInfo, settings: Sequence[str]) -> dict[str, Any]:
    """['res_scale=0.1', ...] as a dict; input_max is allowed for every network. InputError names option and values."""
    known = {**info.options, "input_max": info.input_max}
    found: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if key not in known or not equals:
            raise InputError(
                f"network {info.name}, option {setting!r}: unknown{did_you_mean(key, known)}; "
                f"allowed are {', '.join(f'{name}=...' for name in known)}"
            )
        if key in found:
            raise InputError(f"network {info.name}, option {key}: given twice")
        found[key] = _value(info.name, key, text, known[key])
    return found


def _value(network: str, key: str, text: str, default: object) -> Any:
    where = f"network {network}, option {key}: {text!r}; allowed"
    if isinstance(default, bool):
        if text.lower() not in _TRUTH:
            raise InputError(f"{where} are true and false")
        return _TRUTH[text.lower()]
    if isinstance(default, str):  # the only word there is: an activation
        if text not in ACTIVATIONS:
            raise InputError(f"{where} are {', '.join(ACTIVATIONS)}")
        return text
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise InputError(f"{where} is a number above 0")
    return number
