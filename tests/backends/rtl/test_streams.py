"""The stream modules against numpy: order, values, tlast, latency and throughput, under stalls and resets."""

from __future__ import annotations

import numpy as np
import pytest

from srq_hw.backends.rtl.memories import offsets
from srq_hw.backends.rtl.verilate import IntArray
from tests.backends.rtl.bench import (
    Bench,
    Design,
    Port,
    Run,
    check,
    flowing,
    frame_ends,
    library,
    random_beats,
    to_beats,
)

FRAMES = 3


def images(port: Port, height: int, width: int, channels: int, seed: int = 0) -> IntArray:
    """Random NHWC frames of a port's values."""
    count = FRAMES * height * width * channels // port.lanes
    return random_beats(port, count, seed).reshape(FRAMES, height, width, channels)


def frame(height: int, width: int, channels: int) -> dict[str, int | str]:
    return {"HEIGHT": height, "WIDTH": width, "CHANNELS": channels}


def latency(run: Run, source: str = "s") -> int:
    return run.first["m"] - run.first[source]


# --- one stream in, the same stream out -------------------------------------------------------------------------------


@pytest.mark.parametrize(("bits", "depth", "style"), [(8, 2, "auto"), (70, 16, "block"), (8, 37, "distributed")])
def test_fifo(bench: Bench, bits: int, depth: int, style: str):
    lanes = 2 if bits > 64 else 1
    port = Port("s", lanes, bits // lanes), Port("m", lanes, bits // lanes)
    design = Design("srq_fifo", library("fifo"), {"BITS": bits, "DEPTH": depth, "RAM_STYLE": style}, port[:1], port[1:])
    beats = random_beats(port[0], 240)
    run = check(design, bench, {"s": beats}, {"m": beats}, FRAMES, lasts={"s": frame_ends(240, FRAMES)})
    assert flowing(run, "m") and latency(run) == 2


@pytest.mark.parametrize(("lanes", "bits"), [(1, 1), (3, 40)])
def test_skid(bench: Bench, lanes: int, bits: int):
    s, m = Port("s", lanes, bits, signed=True), Port("m", lanes, bits, signed=True)
    design = Design("srq_skid", library("skid"), {"BITS": lanes * bits}, (s,), (m,))
    beats = random_beats(s, 240)
    run = check(design, bench, {"s": beats}, {"m": beats}, FRAMES, lasts={"s": frame_ends(240, FRAMES)})
    assert flowing(run, "m") and latency(run) == 1


def test_the_bench_sees_a_wrong_value_and_a_wrong_tlast(bench: Bench):
    s, m = Port("s", 3, 40, signed=True), Port("m", 3, 40, signed=True)
    design = Design("srq_skid", library("skid"), {"BITS": 120}, (s,), (m,))
    beats, last = random_beats(s, 240), frame_ends(240, FRAMES)
    wrong = beats.copy()
    wrong[100, 2] ^= 1
    with pytest.raises(AssertionError, match="1 of 240 beats differ, first 100"):
        check(design, bench, {"s": beats}, {"m": wrong}, FRAMES, lasts={"s": last})
    with pytest.raises(AssertionError, match="m tlast"):
        check(design, bench, {"s": beats}, {"m": beats}, FRAMES, lasts={"s": np.roll(last, 1)})


@pytest.mark.parametrize(("height", "width", "channels", "lanes", "bits"), [(4, 4, 4, 2, 8), (1, 1, 3, 3, 5)])
def test_output_puts_tlast_on_the_last_beat(
    bench: Bench, height: int, width: int, channels: int, lanes: int, bits: int
):
    s, m = Port("s", lanes, bits), Port("m", lanes, bits)
    parameters = {**frame(height, width, channels), "LANES": lanes, "BITS": bits}
    design = Design("srq_output", library("output", "skid", "frame"), parameters, (s,), (m,))
    beats = to_beats(images(s, height, width, channels), lanes)
    run = check(design, bench, {"s": beats}, {"m": beats}, FRAMES)  # no tlast comes in
    assert flowing(run, "m") and latency(run) == 1


@pytest.mark.parametrize(
    ("channels", "into", "out", "wait"), [(8, 2, 8, 4), (8, 8, 2, 1), (6, 3, 3, 1), (12, 4, 6, 4), (12, 6, 4, 3)]
)
def test_width(bench: Bench, channels: int, into: int, out: int, wait: int):
    s, m = Port("s", into, 7, signed=True), Port("m", out, 7, signed=True)
    parameters = {**frame(3, 5, channels), "IN_LANES": into, "OUT_LANES": out, "BITS": 7}
    design = Design("srq_width", library("width", "frame"), parameters, (s,), (m,))
    values = images(s, 3, 5, channels)
    run = check(design, bench, {"s": to_beats(values, into)}, {"m": to_beats(values, out)}, FRAMES)
    beats = values.size // min(into, out)
    narrow = "s" if into < out else "m"
    assert run.last[narrow] - run.first[narrow] + 1 == beats, "the narrow side has gaps"
    assert latency(run) == wait


@pytest.mark.parametrize(
    ("s", "channels", "out_bits", "table"),
    [
        (Port("s", 2, 8, signed=True), 6, 10, True),
        (Port("s", 3, 8), 3, 8, True),  # from UINT8 to INT8
        (Port("s", 1, 40, signed=True), 3, 44, True),
        (Port("s", 2, 1), 4, 2, False),
        (Port("s", 1, 7, signed=True), 2, 12, False),
    ],
)
def test_offset(bench: Bench, s: Port, channels: int, out_bits: int, table: bool):
    m = Port("m", s.lanes, out_bits, signed=True)
    least, most = m.limits[0] - s.limits[0], m.limits[1] - s.limits[1]
    added = np.random.default_rng(channels).integers(least, most, channels, np.int64, endpoint=True)
    added[0], added[-1] = least, most  # the results reach both ends of their type
    if not table:
        added[:] = 0
    parameters = {**frame(4, 3, channels), "LANES": s.lanes, "IN_BITS": s.bits, "IN_SIGNED": int(s.signed)}
    parameters |= {"OUT_BITS": out_bits, "FILE": "offsets.hex" if table else ""}
    memories = {"offsets.hex": offsets(added, s.lanes, out_bits)} if table else {}
    design = Design("srq_offset", library("offset", "frame"), parameters, (s,), (m,), memories)
    x = images(s, 4, 3, channels)
    run = check(design, bench, {"s": to_beats(x, s.lanes)}, {"m": to_beats(x + added, s.lanes)}, FRAMES)
    assert flowing(run, "m") and latency(run) == 1 + table


# --- several streams --------------------------------------------------------------------------------------------------


def test_duplicate(bench: Bench):
    s, m0, m1 = (Port(name, 2, 9) for name in ("s", "m0", "m1"))
    design = Design("srq_duplicate", library("duplicate"), {"BITS": 18}, (s,), (m0, m1))
    beats = random_beats(s, 240)
    run = check(design, bench, {"s": beats}, {"m0": beats, "m1": beats}, FRAMES, lasts={"s": frame_ends(240, FRAMES)})
    assert flowing(run, "m0") and flowing(run, "m1")
    assert run.first["m0"] - run.first["s"] == 1


@pytest.mark.parametrize(
    ("a", "b", "zeros", "factors", "out_bits"),
    [
        (Port("a", 2, 8, signed=True), Port("b", 2, 8, signed=True), (0, 0), (1, 1), 26),
        (Port("a", 3, 8), Port("b", 3, 6, signed=True), (128, -5), (30011, -32768), 25),
        (Port("a", 1, 1), Port("b", 1, 16, signed=True), (1, -32768), (-3, 32767), 32),
    ],
)
def test_add(bench: Bench, a: Port, b: Port, zeros: tuple[int, int], factors: tuple[int, int], out_bits: int):
    channels = 2 * a.lanes
    parameters = {**frame(4, 3, channels), "LANES": a.lanes, "OUT_BITS": out_bits}
    for name, port, zero, factor in zip("AB", (a, b), zeros, factors, strict=True):
        parameters |= {f"{name}_BITS": port.bits, f"{name}_SIGNED": int(port.signed)}
        parameters |= {f"{name}_ZERO": zero, f"{name}_FACTOR": factor}
    design = Design(
        "srq_add", library("add", "frame"), parameters, (a, b), (Port("m", a.lanes, out_bits, signed=True),)
    )
    x, y = images(a, 4, 3, channels, seed=1), images(b, 4, 3, channels, seed=2)
    wanted = (x - zeros[0]) * factors[0] + (y - zeros[1]) * factors[1]
    assert -(1 << out_bits - 1) <= wanted.min() and wanted.max() < 1 << out_bits - 1, (
        "this test's OUT_BITS is too small"
    )
    run = check(
        design, bench, {"a": to_beats(x, a.lanes), "b": to_beats(y, a.lanes)}, {"m": to_beats(wanted, a.lanes)}, FRAMES
    )
    assert flowing(run, "m") and latency(run, "a") == 3


@pytest.mark.parametrize(("a_channels", "b_channels", "lanes"), [(4, 2, 2), (1, 4, 1), (3, 3, 3)])
def test_concat(bench: Bench, a_channels: int, b_channels: int, lanes: int):
    a, b, m = (Port(name, lanes, 6) for name in "abm")
    parameters: dict[str, int | str] = {"HEIGHT": 3, "WIDTH": 5, "LANES": lanes, "BITS": 6}
    parameters |= {"A_CHANNELS": a_channels, "B_CHANNELS": b_channels}
    design = Design("srq_concat", library("concat", "frame"), parameters, (a, b), (m,))
    x, y = images(a, 3, 5, a_channels, seed=1), images(b, 3, 5, b_channels, seed=2)
    wanted = to_beats(np.concatenate([x, y], -1), lanes)
    run = check(design, bench, {"a": to_beats(x, lanes), "b": to_beats(y, lanes)}, {"m": wanted}, FRAMES)
    assert flowing(run, "m") and latency(run, "a") == 1


@pytest.mark.parametrize(
    ("channels", "first", "count", "lanes"), [(8, 2, 4, 2), (6, 0, 3, 3), (5, 4, 1, 1), (4, 0, 4, 4)]
)
def test_slice(bench: Bench, channels: int, first: int, count: int, lanes: int):
    s, m = Port("s", lanes, 8), Port("m", lanes, 8)
    parameters = {**frame(3, 4, channels), "FIRST": first, "COUNT": count, "LANES": lanes, "BITS": 8}
    design = Design("srq_slice", library("slice", "frame"), parameters, (s,), (m,))
    x = images(s, 3, 4, channels)
    wanted = to_beats(x[..., first : first + count], lanes)
    run = check(design, bench, {"s": to_beats(x, lanes)}, {"m": wanted}, FRAMES)
    assert run.last["s"] - run.first["s"] + 1 == x.size // lanes, "the input has gaps"
    assert latency(run) == 1 + first // lanes


# --- other sizes ------------------------------------------------------------------------------------------------------


def shuffled(x: IntArray, block: int, crd: int) -> IntArray:
    """Depth to space, pixel by pixel as the operator is defined."""
    batch, height, width, channels = x.shape
    made = channels // block**2
    out = np.empty((batch, height * block, width * block, made), np.int64)
    for dy in range(block):
        for dx in range(block):
            for c in range(made):
                source = c * block**2 + dy * block + dx if crd else (dy * block + dx) * made + c
                out[:, dy::block, dx::block, c] = x[..., source]
    return out


@pytest.mark.parametrize(
    ("width", "channels", "block", "crd", "into", "out"),
    [
        (4, 12, 2, 1, 12, 3),  # a pixel per beat
        (5, 12, 2, 1, 3, 3),  # as many beats in as out
        (3, 18, 3, 1, 6, 1),
        (1, 4, 2, 1, 1, 1),
        (4, 16, 2, 0, 2, 2),  # words of the buffer are beats
        (1, 8, 2, 0, 2, 2),
        (3, 9, 3, 0, 9, 1),
        (6, 6, 1, 0, 3, 3),
    ],
)
def test_shuffle(bench: Bench, width: int, channels: int, block: int, crd: int, into: int, out: int):
    s, m = Port("s", into, 6, signed=True), Port("m", out, 6, signed=True)
    parameters = {**frame(3, width, channels), "BLOCK": block, "CRD": crd, "IN_LANES": into, "OUT_LANES": out}
    parameters |= {"BITS": 6}
    design = Design("srq_shuffle", library("shuffle", "rows", "width", "frame"), parameters, (s,), (m,))
    x = images(s, 3, width, channels)
    wanted = shuffled(x, block, crd)
    run = check(design, bench, {"s": to_beats(x, into)}, {"m": to_beats(wanted, out)}, FRAMES)
    assert flowing(run, "m"), "the output has gaps"
    row = width * channels // into
    assert latency(run) == row + 2 + (into < channels and (crd or into != out))


@pytest.mark.parametrize(
    ("width", "channels", "factor", "lanes"), [(4, 4, 2, 2), (3, 3, 3, 3), (1, 1, 2, 1), (5, 2, 1, 1)]
)
def test_repeat(bench: Bench, width: int, channels: int, factor: int, lanes: int):
    s, m = Port("s", lanes, 8), Port("m", lanes, 8)
    parameters = {**frame(3, width, channels), "FACTOR": factor, "LANES": lanes, "BITS": 8}
    design = Design("srq_repeat", library("repeat", "rows", "frame"), parameters, (s,), (m,))
    x = images(s, 3, width, channels)
    wanted = x.repeat(factor, 1).repeat(factor, 2)
    run = check(design, bench, {"s": to_beats(x, lanes)}, {"m": to_beats(wanted, lanes)}, FRAMES)
    assert flowing(run, "m") and latency(run) == width * channels // lanes + 2


# --- frames that are not whole ----------------------------------------------------------------------------------------

BEATS = 12  # per frame of the tests below: 2 x 3 pixels of 4 channels, 2 lanes
S, M = Port("s", 2, 5, signed=True), Port("m", 2, 5, signed=True)


def _input_design() -> Design:
    parameters = {**frame(2, 3, 4), "LANES": 2, "BITS": 5, "PAD": 29}  # 29 is -3 in 5 bits
    return Design("srq_input", library("input", "frame"), parameters, (S,), (M,), flags=("frame_error",))


def repaired(beats: IntArray, last: np.ndarray) -> IntArray:
    """What must leave the input adapter: every run of beats up to a tlast, cut or filled to a frame."""
    parts = np.split(beats, np.nonzero(last)[0] + 1)
    frames = [np.vstack([part, np.full((BEATS, 2), -3)])[:BEATS] for part in parts if len(part)]
    return np.concatenate(frames).astype(np.int64)


@pytest.mark.parametrize(
    ("sizes", "error"),
    [
        ((12, 12, 12), 0),
        ((12, 5, 12, 12), 1),  # early
        ((12, 1, 1, 12), 1),  # at once
        ((11, 12), 1),
        ((13, 12), 1),  # late by one
        ((12, 40, 3, 12, 25, 12), 1),
    ],
)
def test_input_makes_whole_frames_of_anything(bench: Bench, sizes: tuple[int, ...], error: int):
    beats = random_beats(S, sum(sizes), seed=len(sizes))
    last = np.zeros(len(beats), bool)
    last[np.cumsum(sizes) - 1] = True
    wanted = repaired(beats, last)
    run = check(
        _input_design(),
        bench,
        {"s": beats},
        {"m": wanted},
        len(wanted) // BEATS,
        lasts={"s": last},
        flags={"frame_error": error},
    )
    assert latency(run) == 1
    if not error:
        assert flowing(run, "m")


def test_a_source_that_never_sends_tlast_does_not_hang(bench: Bench):
    beats = random_beats(S, 50)
    run = check(_input_design(), bench, {"s": beats}, {"m": beats[:BEATS]}, 1, flags={"frame_error": 1})
    assert run.last["s"] - run.first["s"] + 1 == 50
