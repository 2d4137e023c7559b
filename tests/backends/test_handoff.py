"""Stream packing and the manifest of a hand-off bundle (the bundle itself: test_finn_build.py)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from srq_hw.backends.finn.build import FinnResult
from srq_hw.backends.handoff import verify_manifest, write_handoff
from srq_hw.backends.handoff.manifest import write_manifest
from srq_hw.backends.handoff.vectors import Stream, from_hex, stream_of, to_hex
from srq_hw.errors import InputError
from srq_hw.graph.synthetic import edsr_graph
from srq_hw.target import load_target


def side(channels: int, lanes: int, dtype: str, bits: int) -> Stream:
    """A stream of 2 x 3 pixels."""
    return stream_of(
        {
            "node": "n",
            "shape": [1, 2, 3, channels],
            "folded_shape": [1, 2, 3, channels // lanes, lanes],
            "dtype": dtype,
            "bits": bits * lanes,
        }
    )


def test_a_beat_holds_its_lanes_from_the_low_end() -> None:
    stream = side(4, 2, "INT9", 9)
    assert (stream.beats_per_pixel, stream.data_bits, stream.tdata_bits, stream.beats_per_frame) == (2, 18, 24, 12)
    values = np.zeros((2, 3, 4), np.int64)
    values[0, 0] = [-1, 3, -256, 255]
    text = to_hex(values, stream).splitlines()
    assert text[:2] == [f"{3 << 9 | 0x1FF:06x}", f"{0xFF << 9 | 0x100:06x}"]
    assert len(text) == 12


@pytest.mark.parametrize(
    ("dtype", "bits", "lo", "hi"), [("UINT8", 8, 0, 255), ("INT9", 9, -256, 255), ("INT4", 4, -8, 7)]
)
@pytest.mark.parametrize("lanes", [1, 3])
def test_hex_and_back(dtype: str, bits: int, lo: int, hi: int, lanes: int) -> None:
    stream = side(3, lanes, dtype, bits)
    values = np.random.default_rng(0).integers(lo, hi + 1, (2, 3, 3))
    assert np.array_equal(np.array(from_hex(to_hex(values, stream), stream)).reshape(values.shape), values)


def test_values_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="outside UINT8"):
        to_hex(np.full((2, 3, 3), 256), side(3, 1, "UINT8", 8))
    with pytest.raises(ValueError, match="the stream carries"):
        to_hex(np.zeros((3, 2, 3), np.int64), side(3, 1, "UINT8", 8))


def test_manifest_finds_what_changed(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    for name in ("a", "b", "sub/c"):
        (tmp_path / name).write_text(name)
    write_manifest(tmp_path)
    assert verify_manifest(tmp_path) == []
    (tmp_path / "a").write_text("other")
    (tmp_path / "b").unlink()
    (tmp_path / "sub/new").write_text("")
    assert verify_manifest(tmp_path) == ["a was changed", "b is missing", "sub/new is not listed"]
    (tmp_path / "MANIFEST.sha256").unlink()
    assert verify_manifest(tmp_path) == ["MANIFEST.sha256 is missing"]


def test_no_bundle_without_a_build(tmp_path: Path) -> None:
    result = FinnResult("not run", "finn is not installed")
    with pytest.raises(InputError, match="finn is not installed"):
        write_handoff(result, edsr_graph(4, 1), load_target("zcu104"), np.zeros((4, 4, 3), int), tmp_path / "handoff")
    assert not (tmp_path / "handoff").exists()
