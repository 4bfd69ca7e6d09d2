"""Compiled or not: the one untyped boundary between ftrace's kernels and numba.

A kernel is a plain Python function over arrays and numbers that calls no other function of ours
and whose numbers mean the same in 64 bits as in Python's endless ones.  Small inputs run it as it
is, and numba is not even imported; ``NUMBA_DISABLE_JIT=1`` runs everything so.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np

__all__ = ("kernel",)

Kernel = Callable[..., int]
_COMPILED: dict[Kernel, Kernel] = {}


def kernel(function: Kernel, *, compile: bool) -> Kernel:
    """The kernel as machine code, which is kept on disk between runs, or as plain Python."""
    if not compile or os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0"):
        return _plain(function)
    if function not in _COMPILED:
        import numba

        _COMPILED[function] = numba.njit(cache=True, nogil=True)(function)
    return _COMPILED[function]


def _plain(function: Kernel) -> Kernel:
    def run(*arguments: Any) -> int:
        # Items of a memoryview are Python numbers: five times as fast as an array's.
        return function(*(a.data if isinstance(a, np.ndarray) else a for a in arguments))

    return run
