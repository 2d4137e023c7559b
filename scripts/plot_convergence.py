"""PSNR and SSIM per epoch of runs of `srq-hw qat`, as one SVG.

    .venv/bin/python scripts/plot_convergence.py --out docs/qat-convergence.svg \\
        "min-max=build/qat-minmax" "DBDC+PaC=build/qat-pac"

Each run is TITLE=FOLDER, the folder the --out of `srq-hw qat`. docs/qat.md has the commands of the runs.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

# Run as a file, Python sees scripts/ only.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from srq_hw.errors import InputError, SrqError
from srq_hw.files import write_text
from srq_hw.qat.figure import convergence_plot, read_run


def main() -> None:
    """Command line. Exit status 2 for a user's mistake."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", nargs="+", metavar="TITLE=FOLDER")
    parser.add_argument("--out", type=Path, required=True, help="SVG to write")
    options = parser.parse_args()
    try:
        runs = []
        for text in options.runs:
            title, equals, folder = text.partition("=")
            if not (title and equals and folder):
                raise InputError(f"{text!r}: wanted TITLE=FOLDER")
            runs.append(read_run(title, Path(folder)))
        write_text(options.out, convergence_plot(runs))
    except SrqError as error:
        print(f"plot_convergence.py: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    print(options.out)


if __name__ == "__main__":
    main()
