"""What `srq-hw doctor` shows: every tool, found or missing, what is lost without it and how to get it."""

from __future__ import annotations

import platform
import sys
from collections.abc import Mapping

from srq_hw import __version__
from srq_hw.tools import TOOLS, ToolStatus, find_tool

PYTHON_NEEDED = (3, 11)


def _python() -> ToolStatus:
    fits = sys.version_info >= PYTHON_NEEDED
    needed = ">=" + ".".join(map(str, PYTHON_NEEDED))
    problem = "" if fits else f"version {platform.python_version()} does not fit; needed: {needed}"
    return ToolStatus(
        "python", True, platform.python_version(), needed, sys.executable, problem, "everything", "install Python 3.11"
    )


def report(environ: Mapping[str, str] | None = None) -> list[ToolStatus]:
    """Return the status of Python and of every tool of `tools.TOOLS`, in table order.

    Starts the programs it finds to ask for their version, so it takes up to some seconds; imports no package.
    """
    return [_python(), *(find_tool(row.name, environ) for row in TOOLS)]


def versions(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return name → version of srq-hw and of every usable tool, for a report's ``tool`` section."""
    found = {status.name: status.version for status in report(environ) if status.usable and status.version}
    return {"srq-hw": __version__, **found}
