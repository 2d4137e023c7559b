"""Tables of docs/quality.md and docs/peers.md from what `srq-hw compare`, bench_quality.py and score_daq.py measured.

    .venv/bin/python scripts/make_quality_docs.py --compare build/compare/compare.json --peers build/peers/quality.json

Several files of each kind may be given; a later one wins where both hold the same cell. The text around the tables
stays.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file, Python sees scripts/ only
from scripts.quality.cells import of_compare, of_peers
from scripts.quality.tables import against_goals, by_method, by_tool, networks_of, of_daq, of_seconds

REPO = Path(__file__).resolve().parents[1]
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
    cells, rivals = of_compare(args.compare), of_peers(args.peers)
    lines = against_goals(cells, rivals) + by_method(cells, rivals)
    lines += of_daq(json.loads(args.daq.read_text())) if args.daq else []
    lines += of_seconds(cells)
    for name, tables in (("quality.md", lines), ("peers.md", by_tool(rivals, networks_of(cells)))):
        place = REPO / "docs" / name
        place.write_text(replace_tables(place.read_text(), tables))


if __name__ == "__main__":
    main()
