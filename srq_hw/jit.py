"""How srq-hw compiles its inner loops."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numba

# Division as numpy's, without a check for 0: with one, a loop cannot become vector code.
_njit = partial(numba.njit, nogil=True, error_model="numpy")


def jit(function: Callable[..., None]) -> Callable[..., None]:
    """numba.njit without the GIL; compiled code is kept on disk where there is a place for it."""
    try:
        compiled: Callable[..., None] = _njit(cache=True)(function)
    except RuntimeError:  # numba: "no locator available", neither the package nor the home can be written
        compiled = _njit()(function)
    return compiled
