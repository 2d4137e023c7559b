"""Write docs/targets.md and docs/target.schema.json from the target schema and the packaged target files.

.venv/bin/python scripts/make_target_docs.py           # write
.venv/bin/python scripts/make_target_docs.py --check   # exit status 1 when a file is stale
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from srq_hw.resources import data_path
from srq_hw.schema_docs import fields, refresh, table_cell
from srq_hw.target import json_schema, list_targets, load_target
from srq_hw.yamlfile import allowed_text

DOCS = Path(__file__).resolve().parents[1] / "docs"

INTRO = """\
# Target files

<!-- Written by scripts/make_target_docs.py from srq_hw/target.py and targets/; edit those. -->

A target file describes one accelerator: the integer rules its arithmetic follows, and the resources of its device.
`--target` takes the name of a packaged file or the path of your own (`--target boards/mine.yaml`). Copy the nearest
packaged file and change it; a wrong value is answered with the file, the line, the key, the value and what is allowed.
For completion in an editor, point its YAML plug-in at [target.schema.json](target.schema.json); the rules between
several keys (the last section) are checked when the file is read.
"""

RULES = """\
## Rules between keys

| keys | rule | why |
|---|---|---|
| `bits.min`, `bits.default`, `bits.max` | min <= default <= max | |
| `integer.bias.bits` | at most `integer.accumulator.bits` | the bias is added in the accumulator |
| `integer.accumulator.bits` | at least widest weight + widest activation | one product must fit |
| `integer.accumulator.bits` + `integer.requant.multiplier_bits` | at most 54 | acc * M must be exact in float64 |
| `integer.requant.multiplier_bits` | with `kind: dyadic` only, and needed there | `pow2` only shifts |
| `integer.requant.shift_max` | at least `multiplier_bits` | a ratio below 1 must be reachable |
| `slope_min`, `slope_max` | slope_min <= slope_max | |
| `integer.ops.Requant.slope_bits` | with `kind: pow2` only | with `dyadic` a slope is a second multiplier |
| lists | each entry once | |
| `resources.finn_board`, `resources.part` | must belong together | FINN takes the part from the board |
"""


def rows(schema: dict[str, Any]) -> Iterator[str]:
    """Yield one table row per key, depth first, in file order."""
    for field in fields(schema, schema):
        default = f"no ({json.dumps(field.schema['default'])})" if "default" in field.schema else "no"
        need = "yes" if field.required else default
        allowed = "mapping" if field.schema.get("type") == "object" else table_cell(allowed_text(schema, field.schema))
        yield f"| `{field.path}` | {allowed} | {need} | {field.about} |"


def boards() -> Iterator[str]:
    """Yield one table row per packaged target."""
    for name in list_targets():
        target = load_target(name)
        r = target.resources
        if r is None:
            yield f"| `{name}` | {target.title} |" + " – |" * 8
            continue
        yield (
            f"| `{name}` | {target.title} | `{r.part}` | {r.clock_mhz:g} | {r.lut:,} | {r.ff:,} | "
            f"{r.dsp.count:,} {r.dsp.kind} | {r.bram36:,} | {r.uram:,} | {r.memory_bandwidth_gbytes:g} |"
        )


def markdown() -> str:
    """Return the text of docs/targets.md."""
    schema = json_schema()
    return "\n".join(
        [
            INTRO,
            "## Packaged targets",
            "",
            "Counts are those of the whole device; `resources.utilization_max` says which share a design may take.",
            'A target without resources describes arithmetic only: all runs but FINN, whose gates say "not run".',
            "",
            "| name | board | part | clock, MHz | LUT | FF | DSP | BRAM36 | URAM | memory, GB/s |",
            "|---|---|---|---|---|---|---|---|---|---|",
            *boards(),
            "",
            "## A complete file",
            "",
            "```yaml",
            data_path("targets", "zcu104").read_text(encoding="utf-8").rstrip(),
            "```",
            "",
            "## Every key",
            "",
            "| key | allowed | needed (default) | meaning |",
            "|---|---|---|---|",
            *rows(schema),
            "",
            RULES,
        ]
    )


def files() -> dict[Path, str]:
    """Return path → text of every generated file."""
    return {
        DOCS / "targets.md": markdown(),
        DOCS / "target.schema.json": json.dumps(json_schema(), indent=2) + "\n",
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Write the generated docs of target files.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail when a file is stale")
    check = parser.parse_args().check
    stale = refresh(files(), check=check)
    for path in stale:
        print(f"{path}: stale; run: make docs" if check else f"wrote {path}", file=sys.stderr if check else sys.stdout)
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
