"""The table that `srq-hw networks` prints."""

from __future__ import annotations

from typing import Any

from srq_hw.networks.fetch import fetched_file
from srq_hw.networks.registry import NETWORKS, NetworkInfo
from srq_hw.networks.sources import source_of


def network_rows() -> list[dict[str, Any]]:
    """One row per network: name, title, scale, channels, input_max, options, embedded, weights, url, origin.

    `weights` is embedded, fetched (lies in the cache folder), fetch (an address is known) or a file (bring one).
    """
    return [
        {
            "name": info.name,
            "title": info.title,
            "scale": info.scale,
            "channels": info.channels,
            "input_max": info.input_max,
            "options": dict(info.options),
            "embedded": info.embedded,
            "weights": _weights(info),
            "url": source_of(info.name).url,
            "origin": info.origin,
        }
        for info in NETWORKS.values()
    ]


def _weights(info: NetworkInfo) -> str:
    if info.embedded:
        return "embedded"
    if fetched_file(info.name) is not None:
        return "fetched"
    return "fetch" if source_of(info.name).url else "a file"
