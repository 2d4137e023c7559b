"""FINN's RTL and HLS sources, one folder per node with a name that does not change from run to run."""

from __future__ import annotations

import contextlib
import multiprocessing
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

#: what a forked child works on; set right before the fork, in the worker process only
_shared: dict[str, Any] = {}


def generate_sources(model: Any, folder: Path, part: str, period_ns: float, workers: int) -> None:
    """Fill folder/<node>/ with FINN's sources of every node and note the folders in the model's attributes.

    FINN's own PrepareIP does the same one node after the other in folders with random names.
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    count = len(model.graph.node)
    _shared.update(model=model, folder=folder, part=part, period=period_ns)
    with _fast_packing():
        if workers > 1 and count > 1:
            with multiprocessing.get_context("fork").Pool(workers) as pool:
                made = pool.map(_generate, range(count), chunksize=1)
        else:
            made = [_generate(index) for index in range(count)]
    for node, text in zip(model.graph.node, made, strict=True):
        node.ParseFromString(text)
    _shared.clear()


def _generate(index: int) -> bytes:
    from qonnx.custom_op.registry import getCustomOp

    node = _shared["model"].graph.node[index]
    op = getCustomOp(node)
    folder = _shared["folder"] / node.name
    folder.mkdir()
    op.set_nodeattr("code_gen_dir_ipgen", str(folder))
    op.code_generation_ipgen(_shared["model"], _shared["part"], _shared["period"])
    text: bytes = node.SerializeToString(deterministic=True)
    return text


@contextlib.contextmanager
def _fast_packing() -> Iterator[None]:
    """Let FINN pack integers into hex words ten times faster for as long as the context lasts.

    FINN goes through one BitArray object per value, which is nearly all of its code generation time.
    """
    from finn.util import data_packing

    slow = data_packing.array2hexstring
    data_packing.array2hexstring = hex_packer(slow)
    try:
        yield
    finally:
        data_packing.array2hexstring = slow


def hex_packer(slow: Callable[..., str]) -> Callable[..., str]:
    """A function with the results of FINN's `array2hexstring` (handed in as `slow`, which gets all but integers)."""

    def pack(array: Any, dtype: Any, pad_to_nbits: int, prefix: str = "0x", reverse: bool = False) -> str:
        if not dtype.is_integer() or dtype.name in ("BIPOLAR", "BINARY", "TERNARY"):
            return slow(array, dtype, pad_to_nbits, prefix=prefix, reverse=reverse)
        values = np.asarray(array, dtype=np.float32).tolist()
        width = dtype.bitwidth()
        digits, rest = divmod(max(pad_to_nbits, 4), 4)
        lo, hi, mask = dtype.min(), dtype.max(), (1 << width) - 1
        fits = len(values) * width <= 4 * digits and all(lo <= v <= hi and v == int(v) for v in values)
        if rest or not fits:  # FINN's own complaint
            return slow(array, dtype, pad_to_nbits, prefix=prefix, reverse=reverse)
        word = 0
        for value in reversed(values) if reverse else values:
            word = word << width | int(value) & mask
        return f"{prefix}{word:0{digits}x}"

    return pack
