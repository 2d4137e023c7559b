"""`srq-hw estimate` without the command line: rows of boards, what would help, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from srq_hw.backends.rtl.generate import generate
from srq_hw.backends.search.search import BOARD, Search
from srq_hw.errors import InputError
from srq_hw.estimate.boards import Row, boards, estimate, every_board, latency_ms
from srq_hw.estimate.sources import FixedGraph, Network, open_source
from srq_hw.graph.ir import IntGraph
from srq_hw.graph.synthetic import edsr_graph
from srq_hw.target import Dsp, Target, load_target

SIZE = (90, 160)


class Synthetic:
    """A source whose widths may be chosen and that says which were."""

    name, free, size = "synthetic", True, None

    def __init__(self, blocks: int = 1) -> None:
        self.blocks = blocks
        self.made: list[int | None] = []

    def graph(self, target: Target, bits: int | None) -> IntGraph:
        self.made.append(bits)
        width = bits or 8
        return edsr_graph(16, self.blocks, weight_bits=width, act_bits=width)


def with_dsps(count: int, name: str = "kv260") -> Target:
    target = load_target(name)
    assert target.resources is not None
    few = target.resources.model_copy(update={"dsp": Dsp(kind="DSP48E2", count=count)})
    return target.model_copy(update={"resources": few})


def only(rows: list[Row]) -> Row:
    assert len(rows) == 1
    return rows[0]


def test_without_a_wish_every_board_gets_its_highest_rate():
    rows = estimate(Synthetic(), boards(["pynq-z2", "zcu104"]), SIZE, None, None)
    assert [row.target for row in rows] == ["pynq-z2", "zcu104"] and all(row.fits for row in rows)
    small, large = (row.point for row in rows)
    assert small is not None and large is not None and small.fps < large.fps
    assert rows[0].best is small and rows[0].bits == 8 and rows[0].bits_to_fit is rows[0].larger is None


def test_a_rate_that_does_not_fit_says_what_is_short_and_what_would_do():
    source = Synthetic()
    tight = with_dsps(90)
    row = only(estimate(source, [tight], SIZE, 60.0, None, library="srq"))
    assert not row.fits and row.point is not None and row.point.fps >= 60 and row.point.short.keys() == {"dsp"}
    assert row.point.short["dsp"] == pytest.approx(row.point.used["dsp"] - 0.8 * 90)
    assert row.best is not None and row.best.fits and row.best.fps < 60
    assert row.bits_to_fit in (6, 4) and source.made[:2] == [None, 6]
    assert row.larger is not None
    narrow = only(estimate(Synthetic(), [tight], SIZE, 60.0, row.bits_to_fit, library="srq"))
    assert narrow.fits
    other = only(estimate(Synthetic(), boards([row.larger]), SIZE, 60.0, None, library="srq"))
    assert other.fits


def test_the_larger_board_is_the_smallest_that_carries_the_network():
    row = only(estimate(Synthetic(), [with_dsps(90)], SIZE, 60.0, None, library="srq"))
    names = every_board()
    assert row.larger in names
    for name in names[: names.index(row.larger)]:
        has, own = load_target(name).resources, row.has
        assert has is not None
        carried = only(estimate(Synthetic(), boards([name]), SIZE, 60.0, None, library="srq")).fits
        nowhere_more = all(
            amount <= own[key]
            for key, amount in zip(BOARD, (has.lut, has.ff, has.dsp.count, has.bram36, has.uram), strict=True)
        )
        assert not carried or nowhere_more or has.part == row.part


def test_units_are_those_of_the_design_that_the_target_makes():
    rows = estimate(Synthetic(), boards(["zcu104", "zcu104-rtl"]), SIZE, 30.0, None)
    assert [row.library for row in rows] == ["finn", "srq"]
    finn, srq = (row.point for row in rows)
    again = only(estimate(Synthetic(), boards(["zcu104"]), SIZE, 30.0, None, library="srq"))
    assert finn is not None and srq is not None and again.point is not None and again.library == "srq"
    assert again.point.used == srq.used != finn.used and rows[0].as_json()["library"] == "finn"
    with pytest.raises(InputError, match="--library 'hls': wanted finn or srq"):
        estimate(Synthetic(), boards(["zcu104"]), SIZE, 30.0, None, library="hls")


def test_beyond_every_folding_the_roof_is_said():
    row = only(estimate(Synthetic(), boards(["alveo-u250"]), SIZE, 1e6, None))
    assert not row.fits and row.point is not None and row.point.roof and not row.point.short
    assert row.bits_to_fit is None and row.larger is None  # no width makes nine cycles per pixel fewer


def test_latency_is_a_frame_and_the_rows_it_lies_behind():
    graph = edsr_graph(16, 2)
    board = load_target("zcu104-rtl").resources
    assert board is not None
    point = Search.of(graph, (48, 40), board).at(200.0)
    design = generate(graph, (48, 40), point.folding.wanted, folding=point.folding)
    real = (design.latency + design.cycles) / point.clock_mhz / 1e3
    assert latency_ms(graph, (48, 40), point) == pytest.approx(real, rel=0.05)


def test_a_finished_graph_keeps_its_widths(tmp_path: Path):
    path = tmp_path / "graph.json"
    edsr_graph(16, 1, weight_bits=4, act_bits=4).save(path)
    source = open_source(str(path), None, None)
    assert isinstance(source, FixedGraph) and not source.free and source.size is None
    row = only(estimate(source, [with_dsps(4)], SIZE, 60.0, None))
    assert row.bits == 4 and not row.fits and row.bits_to_fit is None and row.larger is not None
    assert row.as_json()["design"]["short_of"]["dsp"] > 0 and row.as_json()["fits"] is False


def test_rules_of_the_target_that_the_graph_breaks_are_told():
    class Odd(Synthetic):
        def graph(self, target: Target, bits: int | None) -> IntGraph:
            return edsr_graph(8, 0, rounding="trunc")

    row = only(estimate(Odd(), boards(["zcu104"]), (16, 16), None, None))
    assert not row.fits and row.rules and row.point is not None and row.point.fits


def test_what_cannot_be_quantized_for_a_board_is_a_row_without_figures():
    class Refused(Synthetic):
        def graph(self, target: Target, bits: int | None) -> IntGraph:
            raise InputError("layer x: no")

    row = only(estimate(Refused(), boards(["zcu104"]), (16, 16), None, None))
    assert (row.problem, row.point, row.fits) == ("layer x: no", None, False)


def test_a_network_is_quantized_once_for_boards_of_one_kind():
    source = open_source(None, None, None)
    assert isinstance(source, Network) and source.free
    first, second, other = (source.graph(load_target(name), 4) for name in ("zcu104", "kv260", "zcu104-rtl"))
    assert first is second and other is not first
    assert {first.tensors[node.inputs[0]].bits for node in first.nodes if node.op == "Conv"} >= {4}


def test_boards_come_one_per_device_and_need_resources():
    names = every_board()
    parts = [load_target(name).resources for name in names]
    assert len({part.part for part in parts if part}) == len(names) >= 5
    assert [part.lut for part in parts if part] == sorted(part.lut for part in parts if part)
    with pytest.raises(InputError, match="--targets int-generic: describes no device"):
        boards(["zcu104", "int-generic"])


@pytest.mark.parametrize(
    ("model", "weights", "bits", "words"),
    [("no.json", None, None, "no such file"), ("net.qonnx", None, 4, "--bits 4"),
     ("net.qonnx", Path("w.pth"), None, "--weights w.pth"), ("unheard_of", None, None, "unheard_of")],
)  # fmt: skip
def test_what_the_user_gets_wrong(model: str, weights: Path | None, bits: int | None, words: str):
    with pytest.raises(InputError, match=words):
        open_source(model, weights, bits)
