"""srq_conv_load: the convolutions of test_conv, their weights written at run time, alone and in a chain."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from srq_hw.backends.rtl.memories import conv_bias, load_beats
from tests.backends.rtl.bench import Bench, Design, IntArray, Port, check, frame_ends, library, random_beats, to_beats
from tests.backends.rtl.conv_cases import ACC_BITS, BIAS_BITS, CASES, FRAMES, ConvCase

LOAD = 32
LOAD_PORT, NEXT_PORT = Port("load", 1, LOAD), Port("next", 1, LOAD)
SOURCES = library("conv_load", "conv_core", "store", "skid", "window", "mac", "dot", "adder_tree", "rom")


def share(case: ConvCase, weight: IntArray) -> IntArray:
    """Weights as beats (beats, 1)."""
    return np.array(load_beats(case.words(weight), case.word, LOAD))[:, None]


@pytest.mark.parametrize("name", CASES)
def test_conv_load(bench: Bench, name: str):
    """Images are on offer from the first cycle on, as the weights are; three more beats are for others."""
    case = ConvCase.of(name)
    random = np.random.default_rng(len(name))
    weight, bias, images = case.weight(random), case.bias(random), case.images(random)
    parameters = case.parameters | {"LOAD": LOAD}
    memories = case.bias_memory(bias, weight)
    design = Design("srq_conv_load", SOURCES, parameters, (case.s, LOAD_PORT), (case.m, NEXT_PORT), memories)
    own, rest = share(case, weight), random_beats(NEXT_PORT, 3)
    expected = to_beats(case.expected(images, weight, bias), case.pe)
    run = check(
        design,
        bench,
        {"s": to_beats(images, case.simd), "load": np.vstack([own, rest])},
        {"m": expected, "next": rest},
        lasts={"load": frame_ends(len(own) + 3, 1)},
        lasts_out={"m": frame_ends(len(expected), FRAMES), "next": frame_ends(3, 1)},
    )
    assert run.last["load"] - run.first["load"] == len(own) + 2  # no stall
    assert run.last["m"] - run.first["s"] < max(case.fill, len(own)) + FRAMES * case.cycles + 28


# --- two in a chain, new weights for every frame ----------------------------------------------------------------------

PAIR = (
    ConvCase(4, 5, 4, 6, 3, 3, 3, 2, 8, 8, True, 0, 1, False),
    ConvCase(4, 5, 6, 4, 1, 1, 4, 3, 8, 8, True, 0, 1, False),
)


def test_two_in_a_chain_with_new_weights_for_every_frame(bench: Bench):
    random = np.random.default_rng(3)
    ports_in, ports_out, inputs, expected, memories = [LOAD_PORT], [NEXT_PORT], {}, {}, {}
    shares: list[list[IntArray]] = [[] for _ in range(FRAMES)]
    for name, case in zip("ab", PAIR, strict=True):
        bias, images = case.bias(random), case.images(random)
        weights = [case.weight(random) for _ in range(FRAMES)]
        for own, weight in zip(shares, weights, strict=True):
            own.append(share(case, weight))
        found = [case.expected(images[n : n + 1], weight, bias) for n, weight in enumerate(weights)]
        assert not np.array_equal(found[1], case.expected(images[1:2], weights[0], bias))
        ports_in.append(Port(f"s{name}", case.simd, 8, True))
        ports_out.append(Port(f"m{name}", case.pe, ACC_BITS, True))
        inputs[f"s{name}"] = to_beats(images, case.simd)
        expected[f"m{name}"] = to_beats(np.concatenate(found), case.pe)
        memories[f"{name}.hex"] = conv_bias(bias, case.pe, BIAS_BITS)
    sets = [np.vstack(own) for own in shares]
    sources = (*SOURCES, Path(__file__).with_name("loaded_pair.v"))
    run = check(
        Design("loaded_pair", sources, {}, tuple(ports_in), tuple(ports_out), memories),
        bench,
        inputs | {"load": np.vstack(sets)},
        expected | {"next": np.zeros((0, 1), np.int64)},
        lasts={"load": frame_ends(sum(map(len, sets)), FRAMES)},
        lasts_out={name: frame_ends(len(beats), FRAMES) for name, beats in expected.items()}
        | {"next": np.zeros(0, np.bool_)},
    )
    assert run.cycles < FRAMES * (len(sets[0]) + PAIR[0].cycles + PAIR[0].fill + 32)
