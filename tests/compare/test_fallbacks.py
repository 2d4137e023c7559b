"""A recipe's zero points on every target: what is said is what calibration does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from srq_hw.compare.measure import make_program, read_program
from srq_hw.compare.options import CompareOptions, Widths
from srq_hw.compare.run import make_grid
from srq_hw.graph.ir import IntGraph
from srq_hw.quantize.fallbacks import fallback_notes, zero_points_missing
from srq_hw.quantize.recipe import load_recipe
from srq_hw.target import Target, load_target

from .conftest import write_recipe


def changed(name: str, **requant: Any) -> Target:
    """A target that has zero points and another rule of requantization."""
    found = load_target(name)
    integer = found.integer.model_copy(update={"requant": found.integer.requant.model_copy(update=requant)})
    return found.model_copy(update={"integer": integer})


def test_what_a_target_lacks() -> None:
    asks, plain = load_recipe("srq"), load_recipe("mse")
    assert zero_points_missing(asks, load_target("int-generic")) is None
    assert (
        zero_points_missing(plain, load_target("dpu-pow2")) is zero_points_missing(None, load_target("zcu104")) is None
    )
    assert zero_points_missing(asks, load_target("dpu-pow2")) == "integer.activations.zero_points: false"
    assert zero_points_missing(asks, changed("int-generic", kind="pow2")) == "integer.requant.kind: pow2"
    assert zero_points_missing(asks, changed("int-generic", rounding="trunc")) == "integer.requant.rounding: trunc"
    (note,) = fallback_notes("srq", asks, load_target("dpu-pow2"))
    assert "recipe srq: zero points are asked for" in note and "target dpu-pow2 has none" in note


@pytest.mark.parametrize("target", ["int-generic", "dpu-pow2", "zcu104", "zcu104-rtl", "trunc"])
def test_said_where_it_is_so(options: CompareOptions, target: str) -> None:
    """The program has zero points exactly where nothing is said, in the notes and in the column "quantized"."""
    path = options.out.parent / "moved.yaml"
    method = write_recipe(path, "{method: minmax, bins: 256, zero_points: true}")
    base = "int-generic" if target == "trunc" else target
    grid = make_grid(replace(options, target=base, widths=(Widths(8, 8),), methods=(method,), sets=("A",)))
    cell = grid.cells[0]
    if target == "trunc":
        cell = replace(cell, target=changed("int-generic", rounding="trunc"))
    make_program(cell, options.out)
    record = read_program(options.out, cell)
    assert record is not None
    graph = IntGraph.load(options.out / "programs" / f"{cell.program_key}.graph.json")
    moved = any(tensor.zero_point for tensor in graph.tensors.values())
    assert moved == (target in ("int-generic", "zcu104-rtl"))
    assert ("no zero points (integer." in record["quantized"]) == (not moved)
    if target != "trunc":
        assert any("zero points are asked for" in note for note in grid.notes) == (not moved)
