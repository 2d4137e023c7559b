"""Starts FINN+ inside a worker process without Vivado and without touching the home folder."""

from __future__ import annotations

import os
from pathlib import Path


def boot(work: Path) -> None:
    """Prepare `finn` for use in this process; call it before anything else of FINN is imported.

    work: an existing folder; FINN keeps its settings and scratch files below it. FINN reads these environment
    variables when it is imported, and its builder imports names that only exist with Vivado's simulator (XSI): those
    get placeholders, which no step used here calls.
    """
    scratch = work / "build"
    scratch.mkdir(exist_ok=True)
    os.environ["FINN_BUILD_DIR"] = str(scratch)
    os.environ["FINN_SETTINGS"] = str(scratch / "settings.yaml")
    os.environ.setdefault("NUM_DEFAULT_WORKERS", "1")
    from finn.util import settings

    settings.initialize_dummy_settings()
    import finn.xsi

    for name in finn.xsi._LAZY_NAMES:
        finn.xsi.__dict__.setdefault(name, type(f"NoVivado_{name}", (), {}))
