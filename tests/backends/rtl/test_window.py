"""srq_window against numpy windows: kernels, edges, folds, repetitions, images smaller than the kernel, no gaps."""

from __future__ import annotations

import numpy as np
import pytest

from tests.backends.rtl.bench import Bench, Design, IntArray, Port, check, library, to_beats

#: name: (height, width, channels, lanes, KH, KW, repeat, zero point, ram style); 2 groups or repeated edge pixels where
#: the name says so
CASES = {
    "3x3": (6, 7, 4, 2, 3, 3, 2, 0, "auto"),
    "5x5": (8, 13, 2, 2, 5, 5, 1, 17, "block"),
    "1x3": (4, 9, 3, 1, 1, 3, 1, -7, "distributed"),
    "3x1_small": (2, 1, 2, 2, 3, 1, 1, 5, "auto"),
    "5x3_smaller_than_kernel": (1, 2, 1, 1, 5, 3, 3, 1, "auto"),
    "3x3_two_groups": (4, 5, 8, 2, 3, 3, 2, 0, "auto"),
    "repeat_1x1": (3, 4, 4, 2, 1, 1, 3, 0, "auto"),
    "edge_3x3": (6, 7, 4, 2, 3, 3, 2, 99, "auto"),
    "edge_5x5": (4, 29, 8, 1, 5, 5, 1, 0, "block"),  # a ring of 1164 beats, no power of two
    "edge_5x5_smaller_than_kernel": (2, 1, 1, 1, 5, 5, 1, 0, "auto"),
    "edge_5x5_of_a_pixel": (1, 1, 2, 2, 5, 5, 1, 0, "auto"),
    "edge_1x3": (4, 9, 3, 1, 1, 3, 1, 0, "distributed"),
    "edge_3x1": (3, 2, 2, 2, 3, 1, 1, 0, "auto"),
    "edge_7x3_two_groups": (5, 4, 8, 2, 7, 3, 2, 0, "auto"),
    "edge_1x1": (3, 4, 4, 2, 1, 1, 3, 0, "auto"),
    "ultra": (3, 41, 10, 2, 3, 3, 1, -3, "ultra"),  # four beats to a word, a ring of 619 beats made 620
    "ultra_two_beats_to_a_word": (4, 5, 8, 4, 3, 3, 1, 1, "ultra"),
    "ultra_wide": (3, 4, 10, 5, 3, 3, 1, 0, "ultra"),  # a beat per word
    "edge_ultra": (6, 7, 4, 1, 3, 3, 1, 0, "ultra"),  # eight beats to a word
    "edge_ultra_five_bits": (4, 5, 6, 3, 3, 1, 2, 0, "ultra"),  # 15 bits in two bytes, four to a word
}


def windows(
    images: IntArray, kh: int, kw: int, repeat: int, zero_point: int | None, lanes: int, groups: int
) -> IntArray:
    """What the module sends; zero_point None: edge pixels are repeated."""
    padding = ((0, 0), (kh // 2, kh // 2), (kw // 2, kw // 2), (0, 0))
    if zero_point is None:
        padded = np.pad(images, padding, mode="edge")
    else:
        padded = np.pad(images, padding, constant_values=zero_point)
    views = np.lib.stride_tricks.sliding_window_view(padded, (kh, kw), axis=(1, 2))  # N, H, W, C, KH, KW
    ordered = views.transpose(0, 1, 2, 4, 5, 3)
    parts = [np.repeat(part[:, :, :, None], repeat, axis=3) for part in np.split(ordered, groups, axis=-1)]
    return to_beats(np.stack(parts, axis=3), lanes)


@pytest.mark.parametrize("name", CASES)
def test_window(bench: Bench, name: str):
    height, width, channels, lanes, kh, kw, repeat, zero_point, style = CASES[name]
    groups = 2 if name.endswith("groups") else 1
    edge = name.startswith("edge")
    bits = 5 if name.endswith("five_bits") else 8
    s, m = Port("s", lanes, bits, True), Port("m", lanes, bits, True)
    images = np.random.default_rng(kh).integers(*s.limits, (3, height, width, channels), endpoint=True)
    expected = windows(images, kh, kw, repeat, None if edge else zero_point, lanes, groups)
    parameters: dict[str, int | str] = {
        "HEIGHT": height,
        "WIDTH": width,
        "CHANNELS": channels,
        "LANES": lanes,
        "BITS": bits,
        "KH": kh,
        "KW": kw,
        "GROUPS": groups,
        "REPEAT": repeat,
        "ZERO_POINT": zero_point,
        "EDGE": int(edge),
        "RAM_STYLE": style,
    }
    design = Design("srq_window", library("window"), parameters, (s,), (m,))
    run = check(design, bench, {"s": to_beats(images, lanes)}, {"m": expected}, frames=3)

    # Fill, then a beat per cycle. Where a window is read as fast as pixels come, later ones may wait for pixels.
    folds = channels // lanes
    fill = (min(kh // 2, height - 1) * width + min(kw // 2, width - 1) + 1) * folds
    first = run.first["m"] - run.first["s"]
    assert first == fill + (5 if edge and kh * kw > 1 else 3), (
        f"first window after {first} cycles, {fill} beats are needed"
    )
    if height * width > kh * kw:
        assert run.last["m"] - run.first["m"] + 1 == len(expected)
