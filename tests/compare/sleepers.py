"""Run by test_workers.py: two workers that say who they are and sleep; no heavy library is imported."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

from srq_hw.compare.workers import Task, run_tasks


def sleep(folder: Path) -> None:
    """Say who is here, and stay."""
    (folder / str(os.getpid())).touch()
    time.sleep(300)


if __name__ == "__main__":
    place = Path(sys.argv[1])
    try:
        run_tasks([Task(str(number), sleep, (place,)) for number in range(4)], 2, lambda outcome: [])
    except KeyboardInterrupt:
        sys.exit(9)
