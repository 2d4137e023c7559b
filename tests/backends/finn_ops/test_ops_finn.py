"""The operations inside FINN and in Verilog: one FINN process and one Verilator model serve all cases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jobs import run_job
from op_bench import bench, ports
from op_cases import FRAMES, all_cases

from srq_hw.backends.finn.ops.lanes import node_lanes
from srq_hw.backends.finn.ops.nodes import DUPLICATE, OP_TYPES
from srq_hw.backends.finn.ops.wrapper import hardware
from srq_hw.backends.rtl.netlist import PORTS
from srq_hw.backends.rtl.verilate import LIBRARY, Run, Simulator, Stalls, build
from srq_hw.tools import find_tool

pytestmark = [
    pytest.mark.finn,
    pytest.mark.skipif(not find_tool("finn").usable, reason="FINN+ is not installed"),
]
CASES = {case.name: case for case in all_cases()}
STALLS = (Stalls(in_=30, out=30, seed=1), Stalls(in_=60, seed=2), Stalls(in_=10, out=70, seed=3))


@pytest.fixture(scope="module")
def finn(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What finn_job.py found."""
    return run_job("finn_job.py", tmp_path_factory.mktemp("finn_ops"))


def test_all_operations_are_registered(finn: dict[str, Any]) -> None:
    names = {*OP_TYPES.values(), DUPLICATE}
    assert set(finn["registered"]) == names | {f"{name}_rtl" for name in names}


@pytest.mark.parametrize("name", CASES)
def test_finn_sees_the_node_as_it_is(finn: dict[str, Any], name: str) -> None:
    found, case = finn["cases"][name], CASES[name]
    node = case.onnx_node()
    made, lanes = hardware(node, PORTS["DSP48E2"]), node_lanes(node)
    assert found["different"] == 0
    assert (found["op"], found["domain"]) == (f"{node.op_type}_rtl", "finn.custom_op.fpgadataflow.rtl")
    wanted = case.graph.tensors[case.own.output if case.node else case.graph.input]
    assert found["types"] == [wanted.dtype] * case.outputs
    assert found["cycles"] == lanes.cycles
    beats = [stream.beats for stream in made.outputs]
    assert found["beats"] == (beats[0] if case.outputs == 1 else {f"out{i}": n for i, n in enumerate(beats)})
    for side, streams, prefix in (("s_axis", made.inputs, "in"), ("m_axis", made.outputs, "out")):
        widths = [[f"{prefix}{i}_V", -(-s.lanes * s.bits // 8) * 8] for i, s in enumerate(streams)]
        assert found["ports"][side] == widths
    assert found["names"] == [*made.library, f"{name}.v"]
    assert [Path(file).parent for file in found["files"][:-1]] == [LIBRARY] * len(made.library)
    assert Path(found["files"][-1]).parent == Path(found["folder"])
    assert found["ipi"] == f"create_bd_cell -type module -reference {name} {name}"


@pytest.mark.parametrize("name", CASES)
def test_finn_packs_a_beat_like_the_library(finn: dict[str, Any], name: str) -> None:
    case = CASES[name]
    stream = hardware(case.onnx_node(), PORTS["DSP48E2"]).inputs[0]
    beats = case.images()[0][0].reshape(-1, stream.lanes)
    mask = (1 << stream.bits) - 1
    words = [sum((int(v) & mask) << place * stream.bits for place, v in enumerate(beat)) for beat in beats]
    assert finn["cases"][name]["packed"] == [hex(word) for word in words]


def test_estimates_are_not_zero(finn: dict[str, Any]) -> None:
    for name, found in finn["cases"].items():
        assert found["resources"]["LUT"] > 0, name
    assert finn["cases"]["conv_zero_point"]["resources"]["DSP"] == 3
    assert finn["cases"]["filter_colour"]["resources"]["BRAM_18K"] > 0


def test_a_network_of_operations_goes_through_finns_steps(finn: dict[str, Any]) -> None:
    found = finn["network"]
    assert found["different"] == 0
    names = {f"{name}_rtl" for name in (*OP_TYPES.values(), DUPLICATE)}
    assert set(found["ops"]) == names | {"StreamingDataWidthConverter_rtl", "StreamingFIFO_rtl"}
    assert found["converters"] > 0 and found["fifos"] > 20
    assert found["conv"] == [2, 1]
    assert max(found["cycles"]) == 750  # the filter, fully parallel in nothing but its phases


TAKEN = {
    "fork": ["SrqDuplicate_rtl"],
    "concat": ["SrqConcat_rtl"],
    "split": ["SrqDuplicate_rtl", "SrqSlice_rtl", "SrqSlice_rtl"],
    "add": ["SrqAdd_rtl"],
    "add_constant": ["SrqOffset_rtl"],
    "upsample": ["SrqRepeat_rtl"],
    "shuffle_crd": ["SrqPixelShuffle_rtl"],
    "shuffle_dcr": ["SrqPixelShuffle_rtl"],
    "concat_of_two_types": ["StreamingConcat_hls"],
    "add_fraction": ["ElementwiseAdd_hls"],
}


@pytest.mark.parametrize("name", TAKEN)
def test_finns_hls_layers_become_ours_and_compute_what_finn_computed(finn: dict[str, Any], name: str) -> None:
    found = finn["replaced"][name]
    assert found["ops"] == TAKEN[name]
    assert all(op.endswith("_hls") or op == "Shuffle" for op in found["before"])
    assert found["different"] == 0
    if name.startswith("add_c") or name == "add":
        assert found["types"] == {"y": "INT10"}  # FINN says INT32


def test_what_stays_hls_is_refused_by_name(finn: dict[str, Any]) -> None:
    assert finn["refused"]["concat"] == "accepted"
    for name, node, why in (
        ("concat_of_two_types", "StreamingConcat", "no operation of ours does the same"),
        ("vector", "DuplicateStreams", "x is INT5 [1, 8]"),
    ):
        text = finn["refused"][name]
        assert text.startswith("InputError: FINN: 1 nodes have no RTL on xczu7ev-ffvc1156-2-e: ")
        assert f"({node}: {why})" in text


# --- Verilog ------------------------------------------------------------------------------------------------------


def streams(side: str) -> dict[str, np.ndarray]:
    """Beats of all inputs ("in") or expected of all outputs ("out") of the bench."""
    found = {}
    for case in CASES.values():
        arrays = [*case.images(), *case.expected()]
        named = ports(case, hardware(case.onnx_node(), PORTS["DSP48E2"]))
        for (port, outer, stream), array in zip(named, arrays, strict=True):
            if outer.startswith(side):
                found[port.name] = array.reshape(-1, stream.lanes)
    return found


@pytest.fixture(scope="module")
def simulator(finn: dict[str, Any], models: Path, tmp_path_factory: pytest.TempPathFactory) -> Simulator:
    """What FINN generated; its memory files are taken out of its folders, so that the model is the same next time."""
    folder = tmp_path_factory.mktemp("bench")
    made, sources = [], []
    for name, case in CASES.items():
        where, wrapper = finn["cases"][name]["folder"], Path(finn["cases"][name]["files"][-1])
        text = wrapper.read_text()
        own = hardware(case.onnx_node(), PORTS["DSP48E2"])
        for file, content in own.memories.items():
            assert (Path(where) / file).read_text() == content
        named = {value for instance in own.instances for key, value in instance.parameters.items() if "FILE" in key}
        assert text.count(f'"{where}/') == len(named)
        sources.append(folder / wrapper.name)
        sources[-1].write_text(text.replace(f"{where}/", ""))
        made.append((case, own))
    return build(bench(made, sources, folder), models, jobs=2)


FREE = Stalls()


def run(simulator: Simulator, stalls: Stalls = FREE, resets: tuple[int, ...] = ()) -> Run:
    """All cases at once, compared with the table of operations."""
    wanted = streams("out")
    found = simulator.run(streams("in"), {name: len(beats) for name, beats in wanted.items()}, stalls, resets=resets)
    for name, beats in wanted.items():
        np.testing.assert_array_equal(found.outputs[name], beats, err_msg=f"{name} {stalls} {resets}")
    assert found.flags["padding_wrong"] == 0
    return found


def test_generated_verilog_computes_the_operations_in_the_cycles_that_finn_is_told(
    simulator: Simulator, finn: dict[str, Any]
) -> None:
    found = run(simulator)
    for name in CASES:
        ends = found.ends[f"{name}_out0"]
        assert len(ends) == FRAMES
        assert (ends[-1] - ends[0]) == finn["cases"][name]["cycles"] * (FRAMES - 1), name


@pytest.mark.parametrize("stalls", STALLS, ids=str)
def test_stalls_and_resets_change_nothing(simulator: Simulator, stalls: Stalls) -> None:
    run(simulator, stalls)
    run(simulator, stalls, resets=(101, 640))


def test_ready_during_reset_changes_nothing(simulator: Simulator) -> None:
    runs = [run(simulator, resets=resets) for resets in ((), (300,), (300, 350))]
    assert [found.flags["ready_in_reset"] for found in runs] == [1, 0, 1]
    ends = [{name: list(cycles) for name, cycles in found.ends.items()} for found in runs]
    assert ends[0] == ends[1] == ends[2]
