"""The command line: parses, calls, prints.

Exit status 0: done, and every gate that ran held; 1: a gate or a run failed; 2: wrong usage or input.
"""

from srq_hw.cli.app import main, run

__all__ = ["main", "run"]
