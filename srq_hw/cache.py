"""Where files lie that may be made or fetched again."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path


def user_cache(environ: Mapping[str, str], platform: str) -> Path:
    """The platform's cache folder for the user, below it srq-hw. platform: as `sys.platform`."""
    home = Path(environ["HOME"]) if environ.get("HOME") else Path.home()
    if platform == "darwin":
        base = home / "Library" / "Caches"
    elif platform == "win32":
        base = Path(environ.get("LOCALAPPDATA") or home / "AppData" / "Local")
    else:
        given = Path(environ.get("XDG_CACHE_HOME") or "")
        base = given if given.is_absolute() else home / ".cache"  # a relative path there is to be ignored
    return base / "srq-hw"
