"""Write docs/report.md from the JSON schema of report.json.

.venv/bin/python scripts/make_report_docs.py           # write
.venv/bin/python scripts/make_report_docs.py --check   # exit status 1 when the file is stale
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from srq_hw.errors import InputError, RunError
from srq_hw.report.schema import report_schema
from srq_hw.schema_docs import Field, fields, refresh, table_cell
from srq_hw.yamlfile import resolve

DOCS = Path(__file__).resolve().parents[1] / "docs"

INTRO = """\
# report.json and report.html

<!-- Written by scripts/make_report_docs.py from srq_hw/report/report.schema.json; edit those. -->

`srq-hw build` ends by writing two files into its output folder:

* `report.json`, the record of the build for programs. Its layout is a contract: version 1, described by the JSON schema
  [`srq_hw/report/report.schema.json`](../srq_hw/report/report.schema.json) and below. A change that could break a
  reader raises `schema`.
* `report.html`, the same figures for people, in one file that needs no network and no JavaScript: verdict, equality
  chain, images side by side with a zoomed crop, clipping range per layer, histograms, accumulator proofs, hardware
  estimate, step times, hashes. The same report and images give the same bytes.

A script that only wants to know whether to go on reads `ok`, or the exit status:

```sh
srq-hw build --target zcu104 --out build/demo && jq '.estimate.fps, .parity.mismatches' build/demo/report.json
```
"""

NOTES = """\
## Reading it right

* `not run` is neither passed nor failed: nothing was compared, as a tool is missing or nobody asked for it. `ok` only
  speaks of gates that ran; a reader who needs a certain gate checks that its status is `passed`.
* Everything below `estimate` is an estimate made before synthesis. `estimate.corrections` lists where it departs from
  the figures of the flow's own estimator, and why.
* Lengths of images are height, width, in pixels; a MAC is one multiply with its add; hashes are SHA-256.
* `lower` and `upper` are real values. In integers, a quantizer keeps `lower / scale` to `upper / scale`, rounded.
* Numbers are finite. A figure that does not exist (a PSNR without a reference, flip-flops where the flow gives none)
  is `null`, never 0.
"""


def exit_codes() -> str:
    """The section on the process exit status, with the numbers the program uses."""
    return "\n".join(
        [
            "## Exit status",
            "",
            "| status | meaning | report.json |",
            "|---|---|---|",
            "| 0 | every gate that ran held | written, `ok` is true |",
            f"| {RunError.exit_code} | a gate or the run failed although the input was legal | "
            "`ok` is false where a gate failed; not written where the build stopped before |",
            f"| {InputError.exit_code} | the input is wrong: an option, a file, a key, an image | not written |",
            "",
        ]
    )


def kind(schema: Mapping[str, Any], field: Mapping[str, Any]) -> str:
    """What a value is, in a word or two: "integer", "list of text", "one of passed, failed, not run"."""
    if "enum" in field:
        return "one of " + ", ".join(f"`{value}`" for value in field["enum"])
    if "const" in field:
        return f"`{json.dumps(field['const'])}`"
    words = field.get("type", "any")
    word = next(item for item in ([words] if isinstance(words, str) else words) if item != "null")
    if word == "array":
        size = f"{field['minItems']} " if field.get("minItems") and field["minItems"] == field.get("maxItems") else ""
        return f"list of {size}{kind(schema, resolve(schema, field['items']))}"
    if word == "object":
        inner = field.get("additionalProperties")
        if isinstance(inner, dict) and not field.get("properties"):
            return f"mapping of text to {kind(schema, inner)}{' or null' if 'null' in inner.get('type', ()) else ''}"
        return "mapping"
    return {"string": "SHA-256" if "pattern" in field else "text"}.get(word, word)


def row(schema: Mapping[str, Any], field: Field) -> str:
    """One table row; what may be missing or null says so."""
    words = kind(schema, field.schema) + (" or null" if field.nullable else "")
    return f"| `{field.path}` | {table_cell(words)}{'' if field.required else ', may be missing'} | {field.about} |"


def sections(schema: Mapping[str, Any]) -> Iterator[str]:
    """A table of the top level, then one section per key that holds others."""
    head = ["", "| key | value | meaning |", "|---|---|---|"]
    every = list(fields(schema, schema))
    yield from ["## Top level", *head]
    yield from (row(schema, field) for field in every if "." not in field.path)
    for top in (field for field in every if "." not in field.path):
        inner = [field for field in every if field.path.startswith((f"{top.path}.", f"{top.path}[]."))]
        if inner:
            yield from ["", f"## `{top.path}`", "", top.schema["description"], *head]
            yield from (row(schema, field) for field in inner)


def markdown() -> str:
    """Return the text of docs/report.md."""
    return "\n".join([INTRO, exit_codes(), NOTES, *sections(report_schema()), ""])


def files() -> dict[Path, str]:
    """Return path → text of every generated file."""
    return {DOCS / "report.md": markdown()}


def main() -> int:
    parser = argparse.ArgumentParser(description="Write the generated reference of report.json.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail when the file is stale")
    check = parser.parse_args().check
    stale = refresh(files(), check=check)
    for path in stale:
        print(f"{path}: stale; run: make docs" if check else f"wrote {path}", file=sys.stderr if check else sys.stdout)
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
