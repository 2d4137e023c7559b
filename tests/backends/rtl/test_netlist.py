"""Netlists that Yosys writes, simulated with its own cells and a model of the DSP48E2: what the source does, cycle by
cycle, and what numpy says.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from srq_hw.backends.rtl.synth import netlist, simulation_cells
from srq_hw.errors import RunError
from srq_hw.fixedpoint import requantize
from srq_hw.tools import find_tool
from tests.backends.rtl.bench import FREE, STALLS, Design, IntArray, Port, build, equal, random_beats
from tests.backends.rtl.test_mac import mac_design, result
from tests.backends.rtl.test_requant import Case, accumulators, design

HERE = Path(__file__).parent
DSP = HERE / "dsp48e2.v"


@pytest.fixture(scope="session")
def results(models: Path) -> Path:
    """Folder of synthesis results, kept between runs."""
    status = find_tool("yosys")
    if not status.usable:
        pytest.skip(f"yosys: {status.problem}; {status.get}")
    return models.with_name("rtl_synth")


def netlist_equals_source(
    source: Design, models: Path, results: Path, inputs: dict[str, IntArray], expected: IntArray, dsps: int
) -> None:
    """Both under every pattern of stalls and with resets: the same beats in the same cycles, and those of numpy."""
    path = netlist(source.top, source.sources, source.parameters, source.memories, results)
    assert path.read_text().count("  DSP48E2 #(") == dsps
    mapped = replace(source, sources=(path, DSP, simulation_cells()), parameters={}, memories={})
    before, after = build(source, models, jobs=1), build(mapped, models, jobs=1)
    cases = [(stalls, ()) for stalls in STALLS] + [(FREE, (len(expected) // 3, len(expected) // 2))]
    for stalls, resets in cases:
        wanted, found = (unit.run(inputs, {"m": len(expected)}, stalls, resets=resets) for unit in (before, after))
        equal(wanted.outputs["m"], expected, f"source {stalls} resets {resets}")
        equal(found.outputs["m"], expected, f"netlist {stalls} resets {resets}")
        assert np.array_equal(found.lasts["m"], wanted.lasts["m"])
        assert (found.cycles, found.first, found.last) == (wanted.cycles, wanted.first, wanted.last)


@pytest.mark.parametrize(
    ("bits", "pe", "simd", "signed", "share"), [(8, 2, 9, False, 0.5), (4, 4, 3, True, 0.25)], ids=["int8", "int4"]
)
def test_mac(models: Path, results: Path, bits: int, pe: int, simd: int, signed: bool, share: float):
    """Two products at 8 bits and four at 4 bits to a DSP48E2; sums of eight packed products and one left over."""
    fold, sums = 3, 40
    source = mac_design(pe, simd, bits, bits, signed, fold, sums)
    s, w, b = source.inputs
    beats = 3 * sums * fold
    x, weights, bias = random_beats(s, beats, 1), random_beats(w, beats, 2), random_beats(b, 3 * sums, 3)
    x[: 4 * fold], x[4 * fold : 8 * fold] = s.limits  # the greatest sums of either sign
    weights[: 2 * fold] = weights[4 * fold : 6 * fold] = w.limits[0]
    weights[2 * fold : 4 * fold] = weights[6 * fold : 8 * fold] = w.limits[1]
    expected = result(x, weights, bias, fold)
    netlist_equals_source(
        source, models, results, {"s": x, "w": weights, "b": bias}, expected, round(share * pe * simd)
    )


def test_requant(models: Path, results: Path):
    """Half to even, a second multiplier below zero, a zero point: exact ties, one beside, both ends of the range."""
    case = Case("half_even", 24, 2, 2, 17, (8, 22), (-100, 120, -3), slope=True)
    multiplier, shift = np.array([65535, 32768, 40961, 49152]), np.array([22, 8, 15, 20])
    negative = np.array([-65535, 16384, 0, -3])
    acc = accumulators(case, multiplier, shift)
    used = np.where(acc < 0, negative, multiplier)
    ties = (acc * used) % (1 << shift) == (1 << shift) >> 1
    lo, hi, zero_point = case.out
    expected = requantize(acc, multiplier, shift, case.rounding, lo, hi, zero_point, negative)
    inside = (expected > lo) & (expected < hi)
    assert (ties & inside).sum() > 30 and (expected == lo).sum() > 30 and (expected == hi).sum() > 30
    source = design(case, multiplier, shift, negative, expected.size // 2)
    netlist_equals_source(source, models, results, {"s": acc.reshape(-1, 2)}, expected.reshape(-1, 2), 2)


# --- the model of the DSP48E2 -----------------------------------------------------------------------------------------


def alone(**parameters: int) -> Design:
    sources = (HERE / "dsp48e2_alone.v", DSP)
    ports = (Port("a", 1, 27, True), Port("b", 1, 18, True)), (Port("m", 1, 48, True),)
    return Design("dsp48e2_alone", sources, parameters, *ports)


def test_dsp48e2_multiplies(models: Path):
    a, b = Port("a", 1, 27, True), Port("b", 1, 18, True)
    inputs = {"a": random_beats(a, 500, 1), "b": random_beats(b, 500, 2)}
    run = build(alone(), models, jobs=1).run(inputs, {"m": 500})
    equal(run.outputs["m"], inputs["a"] * inputs["b"], "DSP48E2")
    assert (run.outputs["m"] == -(1 << 26) * -(1 << 17)).any()  # the only product that needs 45 bits


def test_dsp48e2_stops_in_a_mode_it_does_not_model(models: Path):
    operands = np.ones((4, 1), np.int64)
    with pytest.raises(RunError, match="OPMODE 000110101, ALUMODE 0000"):
        build(alone(OPMODE=0b000110101), models, jobs=1).run({"a": operands, "b": operands}, {"m": 4})


def test_dsp48e2_with_a_register_is_not_built(models: Path):
    with pytest.raises(RunError, match="srq_error_dsp48e2_model_has_no_registers"):
        build(alone(MREG=1), models, jobs=1)
