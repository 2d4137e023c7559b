"""Tables of docs/quality.md and docs/peers.md from docs/measured, where new results are put in first: those of
`srq-hw compare`, bench_quality.py and score_daq.py.

    .venv/bin/python scripts/make_quality_docs.py --compare build/compare/compare.json --peers build/peers/quality.json

Several files of each kind may be given; a later one wins where both hold the same cell. The text around the tables
stays.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file, Python sees scripts/ only
from scripts.quality.cells import DIGEST, of_compare, of_daq, of_peers
from scripts.quality.measured import merge, read, write
from scripts.quality.tables import (
    against_goals,
    by_method,
    by_tool,
    daq_table,
    networks_of,
    of_code,
    of_guides,
    of_seconds,
)
from srq_hw.compare.store import source_sha256

REPO = Path(__file__).resolve().parents[1]
MEASURED = REPO / "docs" / "measured"
BEGIN, END = "<!-- tables: scripts/make_quality_docs.py -->", "<!-- end of tables -->"


def replace_tables(text: str, lines: list[str]) -> str:
    """The document with other tables between its two marks."""
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    return before + "\n".join([BEGIN, *lines, "", END]) + after


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--compare", type=Path, nargs="*", default=[], help="compare.json of srq-hw compare")
    parser.add_argument("--peers", type=Path, nargs="*", default=[], help="quality.json of scripts/bench_quality.py")
    parser.add_argument("--daq", type=Path, help="daq.json of scripts/score_daq.py")
    args = parser.parse_args()
    cells, rivals, daq = (
        merge(read(MEASURED / name), new)
        for name, new in (
            ("compare.csv", of_compare(args.compare)),
            ("peers.csv", of_peers(args.peers)),
            ("daq.csv", of_daq(args.daq) if args.daq else []),
        )
    )
    for name, rows in (("compare.csv", cells), ("peers.csv", rivals), ("daq.csv", daq)):
        write(MEASURED / name, rows)
    lines = of_code(cells, source_sha256()[:DIGEST]) + against_goals(cells, rivals) + by_method(cells, rivals)
    lines += of_guides(cells) + daq_table(daq) + of_seconds(cells)
    for name, tables in (("quality.md", lines), ("peers.md", by_tool(rivals, networks_of(cells)))):
        place = REPO / "docs" / name
        place.write_text(replace_tables(place.read_text(), tables))


if __name__ == "__main__":
    main()
