"""Runs one Yosys script with the pyosys package, in a process of its own: ``python yosys_worker.py script.ys``.

An error in the script ends the process with Yosys' message and exit status 1, which is why it is not done in ours.
"""

from __future__ import annotations

import importlib
import sys


def main() -> None:
    """Command line: the script's file."""
    yosys = importlib.import_module("pyosys.libyosys")  # compiled, without type information
    yosys.run_pass(f"script {sys.argv[1]}", yosys.Design())


if __name__ == "__main__":
    main()
