"""What stands in the hand-off bundle of a Verilog design, and what it refuses."""

from __future__ import annotations

import dataclasses
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest

from srq_hw.backends.handoff import verify_manifest
from srq_hw.backends.handoff.rtl import write_rtl_handoff
from srq_hw.backends.handoff.rtl.board import BOARD_FILES, UNKNOWN, ZYNQ_7000, ZYNQ_ULTRA, family_of
from srq_hw.backends.handoff.rtl.layout import checksum, dma_problem, dma_word_bytes, layout_of
from srq_hw.backends.rtl.netlist import Stream
from srq_hw.errors import InputError
from srq_hw.graph.synthetic import edsr_graph
from srq_hw.simulate.reference import run
from srq_hw.target import FINN_PARTS, list_targets, load_target


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_same_build_gives_the_same_bytes(made, tmp_path: Path):
    again = write_rtl_handoff(made.design, made.graph, load_target("zcu104"), made.images, tmp_path / "again")
    assert files_of(again) == files_of(made.folder)
    assert os.access(again / "verify.sh", os.X_OK)
    assert verify_manifest(again) == []
    assert [path.name for path in tmp_path.iterdir()] == ["again"]
    text = b"\n".join(files_of(again).values())
    assert str(tmp_path).encode() not in text and str(made.folder).encode() not in text


def test_it_replaces_what_was_there(made, tmp_path: Path):
    (tmp_path / "bundle").mkdir()
    (tmp_path / "bundle" / "old").write_text("")
    folder = write_rtl_handoff(made.design, made.graph, load_target("zcu104"), made.images, tmp_path / "bundle")
    assert files_of(folder) == files_of(made.folder)


def test_every_file_is_in_the_list_and_described(made):
    names = set(files_of(made.folder))
    sources = (made.folder / "filelist.f").read_text().split()
    assert set(sources) == {name for name in names if name.startswith("rtl/")}
    assert {name for name in names if name.startswith("mem/")} == {f"mem/{name}" for name in made.design.memories}
    readme = (made.folder / "README.md").read_text()
    assert "run in tclsh against a recording stub only, not in Vivado" in readme
    for name in names - {"README.md"}:
        above = [f"`{folder.as_posix()}/`" for folder in Path(name).parents]
        assert any(part in readme for part in (f"`{name}`", *above)), f"README.md does not name {name}"
    for text in (f"| {made.design.cycles} |", f"{made.design.latency} cycles", made.graph.content_sha256):
        assert text in readme, text


def test_golden_vectors_are_the_reference(made):
    wanted = run(made.graph, made.images)
    assert np.array_equal(np.load(made.folder / "golden/input.npy"), made.images)
    assert np.array_equal(np.load(made.folder / "golden/output.npy"), wanted)
    lines = (made.folder / "golden/output.hex").read_text().splitlines()
    assert len(lines) == 3 * made.design.output.beats and len(np.unique(wanted)) > 50
    # the second frame's third pixel, by hand: lanes of 7 bits, the first lowest
    lanes, beat = made.design.output.lanes, made.design.output.beats + 2 * made.design.output.folds
    word = sum((int(value) & 127) << 7 * lane for lane, value in enumerate(wanted[1, 0, 2, :lanes]))
    assert int(lines[beat], 16) == word


def test_interface_json(made):
    facts = json.loads((made.folder / "interface.json").read_text())
    source, result = facts["streams"]["input"], facts["streams"]["output"]
    assert (source["port"], source["element_type"], source["beats_per_frame"]) == ("s_axis", "UINT8", 30)
    assert (result["port"], result["element_type"], result["data_bits"], result["tdata_bits"]) == (
        "m_axis", "INT7", 21, 24,
    )  # fmt: skip
    assert result["dma_word_bytes"] == 4 and result["dma_bytes_per_frame"] == 480
    assert facts["cycles_per_frame"] == made.design.cycles and facts["latency_cycles"] == made.design.latency
    assert facts["golden_frames"] == 3 and facts["part"] == "xczu7ev-ffvc1156-2-e" and facts["clock_mhz"] == 200


def test_the_clock_is_the_targets(made, tmp_path: Path):
    folder = write_rtl_handoff(made.design, made.graph, load_target("pynq-z2"), made.images, tmp_path / "z2")
    for place, period in ((made.folder, "5.000"), (folder, "10.000")):
        xdc = (place / "constraints/ooc.xdc").read_text()
        assert f"create_clock -name aclk -period {period} [get_ports aclk]" in xdc and "HD.CLK_SRC" in xdc


def test_what_does_not_fit_is_refused(made, tmp_path: Path):
    zcu104 = load_target("zcu104")

    def refused(*arguments, match: str):
        with pytest.raises(InputError, match=match):
            write_rtl_handoff(*arguments, tmp_path / "no")
        assert not list(tmp_path.iterdir())

    refused(made.design, edsr_graph(4, 1), zcu104, made.images, match="another graph")
    refused(made.design, made.graph, load_target("int-generic"), made.images, match="resources is missing")
    refused(made.design, made.graph, zcu104, made.images[:, :4], match=r"made for \(5, 6\)")
    refused(made.design, made.graph, zcu104, made.images + 255, match="UINT8")
    wide = dataclasses.replace(made.design, input=Stream("s", 5, 6, 1024, 1024, 8, False))
    refused(wide, made.graph, zcu104, made.images, match="8192 bits of tdata")


def test_parts_and_boards():
    assert family_of("xc7z020clg400-1").ps is ZYNQ_7000
    for part in ("xczu7ev-ffvc1156-2-e", "xck26-sfvc784-2LV-c", "xczu28dr-ffvg1517-2-e"):
        assert family_of(part).ps is ZYNQ_ULTRA
    for part in ("xcu250-figd2104-2L-e", "xcvc1902-vsva2197-2MP-e-S", "xcku040-ffva1156-2-e"):
        assert family_of(part).ps is None
    assert (family_of("xcku040-ffva1156-2-e").title, family_of("xcku5p-ffvb676-2-e").title) == (
        "Kintex UltraScale", "Kintex UltraScale+",
    )  # fmt: skip
    assert family_of("xc6slx9") is UNKNOWN
    with_ps = {name for name, part in FINN_PARTS.items() if family_of(part).ps}
    assert set(BOARD_FILES) == with_ps - {"AUP-ZU3_8GB"}
    for name in list_targets():
        resources = load_target(name).resources
        assert resources is None or family_of(resources.part) is not UNKNOWN


def test_dma_words_and_limits():
    def layout(lanes: int, bits: int, height: int = 4):
        return layout_of(Stream("s", height, 4, lanes, lanes, bits, False))

    assert [dma_word_bytes(layout(*shape)) for shape in ((1, 2), (3, 8), (4, 8), (9, 7), (16, 8))] == [1, 4, 4, 8, 16]
    assert dma_problem(layout(128, 8)) == ""
    assert "wider than the 1024 bits" in dma_problem(layout(129, 8))
    assert "exceeds one DMA transfer" in dma_problem(layout(4, 8, 1 << 22))


def test_checksum_by_hand():
    assert checksum("1\n") == 1
    assert checksum("80000000\n0\n") == 1
    assert checksum("500000003\n") == 5 ^ 3  # 0x5 above 32 bits, 0x3 below
    assert checksum("01\n02\n") != checksum("02\n01\n")


def test_no_system_verilog_and_no_timescale(made):
    for name in ("sim/testbench.v", "rtl/small_top_wrapper.v"):
        text = (made.folder / name).read_text()
        code = re.sub(r"//.*|/\*.*?\*/", "", text)
        assert not re.search(r"\b(logic|always_ff|always_comb|int|import|typedef)\b|`timescale", code), name
        assert max(map(len, text.splitlines())) <= 132, name
