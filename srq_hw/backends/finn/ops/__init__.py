"""FINN custom operations on the RTL library: one per IntGraph operation, and a fork.

In a process that has imported `finn`, importing this package registers them with FINN, which then finds them by
op_type like its own. `nodes` and `lanes` need no FINN, so a process without it may import the package as well; one that
imports FINN afterwards calls `register`. What comes from `infer` and `resume` does so by itself: the transformations
`ReplaceHlsLayers` and `SetSrqFolding`, and the build steps step_srq_streamline, step_srq_integer_ends,
step_srq_all_rtl, step_srq_folding and step_srq_resume.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

#: what needs FINN: name -> module of this package
_LATER = {
    "ReplaceHlsLayers": "infer",
    "SetSrqFolding": "infer",
    "step_srq_all_rtl": "infer",
    "step_srq_folding": "infer",
    "step_srq_integer_ends": "infer",
    "step_srq_resume": "resume",
    "step_srq_streamline": "infer",
}


def register() -> None:
    """Make the operations known to FINN, which is imported if it was not. Calling it again changes nothing."""
    import srq_hw.backends.finn.ops.rtl  # noqa: F401


def __getattr__(name: str) -> Any:
    """What needs FINN is imported when it is asked for."""
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)


if "finn" in sys.modules:
    register()
