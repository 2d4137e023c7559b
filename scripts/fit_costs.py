"""Fit the cost models to Yosys: srq_hw/backends/rtl/costs.json of the Verilog library, finn/unit_costs.json of FINN's.

    .venv/bin/python scripts/fit_costs.py              # fit to the measured rows in tests/, print the errors
    .venv/bin/python scripts/fit_costs.py --measure    # synthesise what is missing first (an hour or two), resumable
    .venv/bin/python scripts/fit_costs.py --measure --modules srq_store,srq_conv_load    # only of these; the rest as is
    .venv/bin/python scripts/fit_costs.py --collect    # take the rows that there are, also of an earlier library
    .venv/bin/python scripts/fit_costs.py --write      # put coefficients and docs/costs.md in place

A row is kept below build/costs under the hash of module, parameters, memory files and library sources, so a change of a
source makes it anew. `--measure` also collects all rows into tests/backends/rtl/costs_measured.json, which the fit and
the tests read. A fourth of the shapes is held out of the fit. Whole designs are listed too; the embedded network needs
`make demo`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file, Python sees scripts/ only
from scripts.costs import finn_units
from scripts.costs.designs import designs
from scripts.costs.fit import fitted, off
from scripts.costs.grid import Sample, build, grid
from srq_hw.backends.finn import unit_costs
from srq_hw.backends.finn.boot import boot
from srq_hw.backends.rtl.cost_terms import terms
from srq_hw.backends.rtl.costs import COEFFICIENTS, logic
from srq_hw.backends.rtl.demand import blocks, demand, dsps
from srq_hw.backends.rtl.emit import library_files
from srq_hw.backends.rtl.generate import RtlDesign
from srq_hw.backends.rtl.netlist import CONV, CONV_LOAD, Instance, Netlist
from srq_hw.backends.rtl.synth import Figures, synthesise, synthesise_design
from srq_hw.backends.rtl.verilate import LIBRARY
from srq_hw.errors import SrqError
from srq_hw.files import write_json, write_text

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "build" / "costs"
MEASURED = ROOT / "tests" / "backends" / "rtl" / "costs_measured.json"
DOCUMENT = ROOT / "docs" / "costs.md"
BEGIN, END = "<!-- tables: scripts/fit_costs.py -->", "<!-- end of tables -->"
SECONDS = 600.0
WHAT = ("lut", "ff")

Row = dict[str, Any]


# --- measuring --------------------------------------------------------------------------------------------------------


def sources_of(instance: Instance) -> tuple[Path, ...]:
    """Library files that the instance needs."""
    stream = next(iter(instance.ports.values()))
    alone = Netlist("one", (1, 1), stream, stream, (instance,))
    return tuple(LIBRARY / name for name in library_files(alone))


def key_of(instance: Instance) -> str:
    """Hash of module, parameters, memory files and library sources."""
    contents = [hashlib.sha256(path.read_bytes()).hexdigest() for path in sources_of(instance)]
    said = [instance.module, sorted(instance.parameters.items()), sorted(instance.memories.items()), contents]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]


def design_key(design: RtlDesign) -> str:
    """Hash of a design's text, memory files and library sources."""
    contents = [hashlib.sha256((LIBRARY / name).read_bytes()).hexdigest() for name in design.library]
    said = [design.top, sorted(design.memories.items()), contents]
    return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]


def figures_row(figures: Figures) -> dict[str, int]:
    """What is compared: LUT sites of all kinds, flip-flops, DSPs, block RAMs of 18 Kbit, UltraRAMs if any."""
    lut = figures.lut + figures.lut_memory
    found = {"lut": lut, "ff": figures.ff, "dsp": figures.dsp, "bram18": figures.bram18 + 2 * figures.bram36}
    return found | ({"uram": figures.uram} if figures.uram else {})


def newest(folder: Path, field: str, value: object) -> Path | None:
    """The last row that says this of itself, made of whatever state of the library."""
    known = [path for path in folder.glob("*.json") if json.loads(path.read_text()).get(field) == value]
    return max(known, key=lambda path: path.stat().st_mtime, default=None)


def measure_unit(sample: Sample, folder: Path, modules: Collection[str] | None) -> Row | None:
    """A row of the grid; of these modules (None: all) of the library as it is now, of others the newest, or None."""
    instance = build(sample.spec)
    path = folder / f"{instance.module}-{key_of(instance)}.json"
    if not path.exists() and modules is not None and instance.module not in modules:
        older = newest(folder, "spec", dict(sample.spec))
        if older is None:
            return None
        path = older
    if not path.exists():
        sources, parameters = sources_of(instance), instance.parameters
        found = synthesise(instance.module, sources, parameters, instance.memories, folder / "synth", seconds=SECONDS)
        write_json(path, {"spec": dict(sample.spec), "figures": asdict(found)})
    figures = Figures(**json.loads(path.read_text())["figures"])
    return {"spec": dict(sample.spec), "held": sample.held, **figures_row(figures)}


def measure_finn(kind: str, parameters: Mapping[str, int], held: bool, folder: Path, missing: bool) -> Row | None:
    """As `measure_unit`, of one of FINN's."""
    path = folder / f"finn-{kind}-{'-'.join(map(str, parameters.values()))}.json"
    if not path.exists():
        if not missing:
            return None
        write_json(path, {"figures": asdict(finn_units.synthesise(kind, parameters, SECONDS))})
    figures = Figures(**json.loads(path.read_text())["figures"])
    return {"kind": kind, "parameters": dict(parameters), "held": held, **figures_row(figures)}


def collect(folder: Path, modules: Collection[str] | None) -> Row:
    """All rows that there are, after synthesis of those missing of some modules of the library; None: of everything."""
    folder.mkdir(parents=True, exist_ok=True)
    missing = modules is None
    with tempfile.TemporaryDirectory() as scratch:
        if missing:
            boot(Path(scratch))  # FINN writes its window buffers itself
        units = [measure_unit(sample, folder, modules) for sample in grid()]
        finn = [measure_finn(*entry, folder, missing) for entry in finn_units.grid()]
    whole = []
    for design in designs():
        made = design.made()
        path = folder / f"design-{design_key(made)}.json"
        if not path.exists() and missing:
            found = synthesise_design(made, "xcup", folder / "synth")
            write_json(path, {"name": design.name, "figures": asdict(found)})
        if not path.exists():
            path = newest(folder, "name", design.name) or path
        if path.exists():
            found = Figures(**json.loads(path.read_text())["figures"])
            whole.append({"name": design.name, "cycles": made.cycles, **figures_row(found)})
    return {
        "units": [row for row in units if row],
        "finn": [row for row in finn if row],
        "designs": whole,
    }


# --- fitting ----------------------------------------------------------------------------------------------------------


def _groups(rows: Iterable[Row], key: str) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(str(row[key]), []).append(row)
    return dict(sorted(found.items()))


def fit_units(rows: list[Row]) -> dict[str, dict[str, dict[str, float]]]:
    """Coefficients of the library's modules from the rows that are not held out."""
    made: dict[str, dict[str, dict[str, float]]] = {what: {} for what in WHAT}
    tagged = [(build(row["spec"]), row) for row in rows if not row["held"]]
    for module in sorted({instance.module for instance, _ in tagged}):
        own = [(terms(instance), row) for instance, row in tagged if instance.module == module]
        for what in WHAT:
            made[what][module] = fitted([getattr(t, what) for t, _ in own], [row[what] for _, row in own])
    for factors in made.values():
        if {CONV, "srq_store"} <= set(factors):  # srq_conv_load is the one with the other's memory
            factors[CONV_LOAD] = factors[CONV] | factors["srq_store"]
    return made


def fit_finn(rows: list[Row]) -> dict[str, dict[str, dict[str, float]]]:
    """The same of FINN's units."""
    made: dict[str, dict[str, dict[str, float]]] = {what: {} for what in WHAT}
    for kind, own in _groups((row for row in rows if not row["held"]), "kind").items():
        for what in WHAT:
            amounts = [unit_costs.terms(kind, row["parameters"])[what] for row in own]
            made[what][kind] = fitted(amounts, [row[what] for row in own])
    return made


# --- tables -----------------------------------------------------------------------------------------------------------


def _error_cells(pairs: list[tuple[float, float, bool]]) -> list[str]:
    """Number, median and largest error of the fitted and of the held-out shapes. pairs: estimate, measured, held."""
    cells = []
    for held in (False, True):
        own = [(estimate, real) for estimate, real, out in pairs if out is held]
        if not own:
            cells += ["0", "–"]
            continue
        median, largest = off([estimate for estimate, _ in own], [real for _, real in own])
        cells += [str(len(own)), f"{median:.1%} / {largest:.1%}"]
    return cells


def _error_lines(named: list[tuple[str, Row, float, float]]) -> list[str]:
    """named: unit, row, LUT and FF as estimated."""
    lines = [
        "| unit | LUT, synthesised | fitted | LUT off | held out | LUT off | FF off, fitted | FF off, held out |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for unit in sorted({name for name, *_ in named}):
        own = [(row, lut, ff) for name, row, lut, ff in named if name == unit]
        sizes = [row["lut"] for row, *_ in own]
        lut = _error_cells([(lut, row["lut"], row["held"]) for row, lut, _ in own])
        ff = _error_cells([(ff, row["ff"], row["held"]) for row, _, ff in own])
        lines.append(f"| `{unit}` | {min(sizes):,} to {max(sizes):,} | {' | '.join(lut)} | {ff[1]} | {ff[3]} |")
    return lines


def unit_estimates(rows: list[Row], fit: Mapping[str, Any]) -> list[tuple[str, Row, float, float]]:
    """(module, row, LUT, FF) with the given coefficients."""
    made = []
    for row in rows:
        instance = build(row["spec"])
        made.append((instance.module, row, *logic(instance, fit, alone=True)))
    return made


def finn_estimates(rows: list[Row], fit: Mapping[str, Any]) -> list[tuple[str, Row, float, float]]:
    """The same of FINN's units."""
    return [
        (row["kind"], row, *(unit_costs.amount(row["kind"], row["parameters"], what, fit) for what in WHAT))
        for row in rows
    ]


def design_lines(rows: list[Row], fit: Mapping[str, Any]) -> list[str]:
    """Whole designs: formula and rule against synthesis."""
    lines = [
        "| design | LUT, synthesised | by formula | off | FF, synthesised | off | DSP | BRAM18, synthesised | rule |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    known = {design.name: design for design in designs()}
    for row in rows:
        if row["name"] not in known:
            continue
        netlist = known[row["name"]].made().netlist
        lut, ff = (sum(half) for half in zip(*(logic(one, fit, alone=False) for one in netlist.instances), strict=True))
        ruled = demand(netlist)
        dsp = f"{row['dsp']}" if row["dsp"] == ruled.dsp else f"{row['dsp']}, by rule {ruled.dsp}"
        lines.append(
            f"| {row['name']} | {row['lut']:,} | {lut:,.0f} | {lut / row['lut'] - 1:+.1%} | {row['ff']:,} | "
            f"{ff / row['ff'] - 1:+.1%} | {dsp} | {row['bram18']} | {ruled.bram18} |"
        )
    return lines


def block_ram_line(rows: list[Row]) -> str:
    """How often the rules of `demand` say what Yosys finds."""
    made = [(build(row["spec"]), row) for row in rows]
    pairs = [(blocks(instance)[0], row["bram18"]) for instance, row in made]
    same = sum(ruled == found for ruled, found in pairs)
    dsp = sum(dsps(instance) == row["dsp"] for instance, row in made)
    ultra = [(ruled, row.get("uram", 0)) for instance, row in made if (ruled := blocks(instance)[1]) or row.get("uram")]
    return (
        f"DSPs by rule are those of synthesis in {dsp} of {len(pairs)} units, block RAMs in {same}; summed up, the "
        f"rule takes {sum(ruled for ruled, _ in pairs)} RAMB18 where Yosys takes {sum(found for _, found in pairs)}. "
        f"UltraRAMs are equal in {sum(ruled == found for ruled, found in ultra)} of the {len(ultra)} units with some."
    )


def tables(measured: Row, units: Mapping[str, Any], finn: Mapping[str, Any]) -> list[str]:
    """The generated part of docs/costs.md."""
    return [
        "### Our units",
        "",
        *_error_lines(unit_estimates(measured["units"], units)),
        "",
        block_ram_line(measured["units"]),
        "",
        "### Whole designs",
        "",
        *design_lines(measured["designs"], units),
        "",
        "### FINN's units",
        "",
        *_error_lines(finn_estimates(measured["finn"], finn)),
    ]


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true", help="synthesise what is missing, collect all rows")
    parser.add_argument("--collect", action="store_true", help="collect the rows that there are, synthesise nothing")
    parser.add_argument("--modules", default="", metavar="NAME,...", help="of the library: --measure makes these only")
    parser.add_argument("--write", action="store_true", help="write coefficients and docs/costs.md")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where single rows are kept")
    args = parser.parse_args()
    try:
        if args.measure or args.collect:
            named = [name for name in args.modules.split(",") if name]
            write_text(MEASURED, _text(collect(args.folder, named or (None if args.measure else ()))))
    except SrqError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    measured = json.loads(MEASURED.read_text())
    units, finn = fit_units(measured["units"]), fit_finn(measured["finn"])
    lines = tables(measured, units, finn)
    print("\n".join(lines))
    if args.write:
        write_json(COEFFICIENTS, units)
        write_json(unit_costs.COEFFICIENTS, finn)
        before, rest = DOCUMENT.read_text().split(BEGIN)
        write_text(DOCUMENT, before + "\n".join([BEGIN, *lines, END]) + rest.split(END)[1])
    return 0


def _text(measured: Row) -> str:
    """JSON, a row to a line."""
    parts = []
    for name, rows in measured.items():
        parts.append(f' "{name}": [\n' + ",\n".join("  " + json.dumps(row) for row in rows) + "\n ]")
    return "{\n" + ",\n".join(parts) + "\n}\n"


if __name__ == "__main__":
    sys.exit(main())
