"""FINN's units of a built design in Yosys, one by one, against what the estimate says of them: docs/costs.md.

    .venv/bin/python scripts/synth_finn.py build/prove_finn/edsr_mlperf_f32b5_x2_w4_finn [...] [--write]

Each folder is that of a FINN build with its sources (scripts/prove_finn.py leaves them). Thresholds are the design's,
windows its generated Verilog; matrix and padding units are FINN's modules with its parameters. Units that are alike are
synthesised once; figures are kept below build/costs. Left out, here and in the estimate that it is held against:
memories of weights with their readers, FIFOs, AXI-lite, and our own units, which docs/costs.md has whole designs of.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file, Python sees scripts/ only
from scripts.costs import finn_units
from scripts.documents import put
from scripts.fit_costs import DOCUMENT, FOLDER, SECONDS, figures_row
from srq_hw.backends.finn.boot import boot
from srq_hw.backends.finn.estimate import Device, mvu_lanes
from srq_hw.backends.finn.stitched_sources import LIBRARIES
from srq_hw.backends.finn.unit_costs import finn_ff, finn_lut
from srq_hw.backends.rtl.synth import Figures
from srq_hw.errors import SrqError
from srq_hw.files import write_json

BEGIN, END = "<!-- designs: scripts/synth_finn.py -->", "<!-- end of designs -->"
CONVERTER = "StreamingDataWidthConverter"
WHAT = ("lut", "ff", "dsp")


@dataclass(frozen=True)
class Unit:
    """One of FINN's units: operation, parameters of its formula, what is synthesised where those do not say it all."""

    kind: str
    parameters: Mapping[str, int]
    top: str = ""
    sources: tuple[Path, ...] = ()
    texts: tuple[tuple[str, str], ...] = ()

    @property
    def key(self) -> str:
        """Alike for units that are alike; a node's name in its sources says nothing."""
        texts = [path.read_text().replace(self.top, "") for path in self.sources] + [text for _, text in self.texts]
        shape = sorted((name, value) for name, value in self.parameters.items() if not name[-1].isdigit())
        said = [self.kind, shape, texts]  # what is counted of a threshold table is in the texts
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]

    def estimate(self) -> dict[str, int]:
        """LUT, FF and DSP by formula and rule."""
        p = self.parameters
        dsp = 0
        if self.kind == "MVAU":
            dsp = -(-p["pe"] // mvu_lanes(p["weight_bits"], p["act_bits"], bool(p["narrow"]), "DSP48E2")) * p["simd"]
        return {"lut": finn_lut(self.kind, p), "ff": finn_ff(self.kind, p), "dsp": dsp}

    def measured(self, folder: Path) -> dict[str, int]:
        """The same of Yosys, kept in the folder."""
        path = folder / f"finn-design-{self.kind}-{self.key}.json"
        if not path.exists():
            if self.top:
                found = finn_units.synthesised(self.top, self.sources, dict(self.texts), SECONDS)
            else:
                found = finn_units.synthesise(self.kind, self.parameters, SECONDS)
            write_json(path, {"figures": asdict(found)})
        row = figures_row(Figures(**json.loads(path.read_text())["figures"]))
        return {what: row[what] for what in WHAT}


def units_of(build: Path, device: Device) -> list[Unit]:
    """FINN's units of a design, and the converters behind its nodes. FINN must have been booted."""
    from qonnx.core.modelwrapper import ModelWrapper
    from qonnx.custom_op.registry import getCustomOp

    from srq_hw.backends.finn.figures import node_figures

    model = ModelWrapper(str(build / "dataflow.onnx"))
    found = []
    for node in model.graph.node:
        figures = node_figures(model, node, device, {})
        if figures.unit:
            found.append(_unit(figures.kind, dict(figures.unit), build / "sources" / node.name))
        for index, name in enumerate(node.output):
            wide = getCustomOp(node).get_outstream_width(index)
            for reader in model.find_consumers(name) or []:
                wanted = getCustomOp(reader).get_instream_width(list(reader.input).index(name))
                if wide != wanted:
                    found.append(Unit(CONVERTER, {"in_bits": wide, "out_bits": wanted}))
    return found


def _unit(kind: str, parameters: dict[str, int], folder: Path) -> Unit:
    root = finn_units.library()
    if kind == finn_units.WINDOW:
        made = [path for path in sorted(folder.iterdir()) if path.suffix in (".v", ".sv")]
        return Unit(kind, parameters, folder.name, (*(root / name for name in LIBRARIES[kind]), *made))
    if kind == "Thresholding":
        paths, holder, random = finn_units.KINDS[kind](parameters)
        texts = {name: (folder / f"{folder.name}_{name.removeprefix('t_')}").read_text() for name in random}
        texts[f"{finn_units.HOLDER}.sv"] = holder
        sources = tuple(root / path for path in paths)
        return Unit(kind, parameters, finn_units.HOLDER, sources, tuple(texts.items()))
    return Unit(kind, parameters)


def lines_of(name: str, units: Sequence[Unit], folder: Path) -> list[str]:
    """A row per operation and one for all: units, LUT and FF synthesised, by formula, off, DSPs of both."""
    sums: dict[str, list[Counter[str]]] = {}
    count = Counter(unit.kind for unit in units)
    for unit in units:
        own = sums.setdefault(unit.kind, [Counter(), Counter()])
        own[0].update(unit.measured(folder))
        own[1].update(unit.estimate())
    rows = [(f"`{kind}`", count[kind], sums[kind][0], sums[kind][1]) for kind in sorted(sums)]
    whole = [sum((pair[side] for pair in sums.values()), Counter()) for side in (0, 1)]
    rows.append(("all", len(units), whole[0], whole[1]))
    lines = []
    for kind, number, real, said in rows:
        cells = [f"{real[w]:,} | {said[w]:,} | {said[w] / real[w] - 1:+.1%}" for w in ("lut", "ff")]
        dsp = f"{real['dsp']}" if real["dsp"] == said["dsp"] else f"{real['dsp']}, by rule {said['dsp']}"
        lines.append(f"| {name} | {kind} | {number} | {' | '.join(cells)} | {dsp} |")
    return lines


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("builds", nargs="+", type=Path)
    parser.add_argument("--write", action="store_true", help="put the table into docs/costs.md")
    args = parser.parse_args()
    lines = [
        "| design | unit | number | LUT, synthesised | by formula | off | FF, synthesised | by formula | off | DSP |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    try:
        with tempfile.TemporaryDirectory() as scratch:
            boot(Path(scratch))
            from srq_hw.backends.finn.ops import register

            register()
            for build in args.builds:
                units = units_of(build, _device())
                lines += lines_of(build.name, units, FOLDER)
                print("\n".join(lines), flush=True)
    except SrqError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    if args.write:
        put(DOCUMENT, BEGIN, END, "\n".join(lines))
    return 0


def _device() -> Any:
    from srq_hw.backends.finn.build import device_of
    from srq_hw.target import load_target

    return device_of(load_target("zcu104"))


if __name__ == "__main__":
    sys.exit(main())
