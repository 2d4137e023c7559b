"""The table of open-synthesis estimates in docs/rtl.md: every unit a row of it, its parameters those of the module."""

from __future__ import annotations

import re

import pytest

from scripts.synth_units import BEGIN, DOCUMENT, END, Unit, replace_table, row, units
from srq_hw.backends.rtl.synth import Figures
from srq_hw.backends.rtl.verilate import LIBRARY


@pytest.mark.parametrize("unit", units(), ids=lambda unit: f"{unit.top} {unit.about}")
def test_a_unit(unit: Unit):
    text = (LIBRARY / f"{unit.top}.v").read_text()
    assert set(unit.parameters) <= set(re.findall(r"^    parameter (\w+) =", text, re.MULTILINE))
    named = {value for name, value in unit.parameters.items() if name.endswith("_FILE")}
    assert named <= set(unit.memories())
    assert all((LIBRARY / f"srq_{part}.v").is_file() for part in unit.parts.split())
    table = DOCUMENT.read_text().split(BEGIN)[1].split(END)[0]
    assert f"\n| `{unit.top}` {unit.about} | " in table


def test_a_row():
    figures = Figures(1234, 5, 6789, 18, 2, 1, 0, 13.5, 60.0, {})
    unit = Unit("of some width", "srq_mac", {}, products=36)
    assert row(unit, figures) == "| `srq_mac` of some width | 1,234 | 5 | 6,789 | 13.5 | 18 | 0.5 | 2/1 |"


def test_the_text_around_the_table_stays():
    text = f"before\n{BEGIN}\nold\n{END}\nafter\n"
    assert replace_table(text, ["new", "rows"]) == f"before\n{BEGIN}\nnew\nrows\n{END}\nafter\n"
