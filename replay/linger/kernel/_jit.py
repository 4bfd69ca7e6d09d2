"""Compiled or not: the one untyped boundary between the socket engine and numba.

As part of ``replay.linger.kernel_plain`` the decorators do nothing and numba is not imported.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

__all__ = ("entry", "jit")

if (__package__ or "").endswith("_plain"):

    def jit(function: F) -> F:
        """Leave the function as it is."""
        return function

    entry = jit

else:
    import importlib

    from replay.engine.kernel.cache import cache_folder

    numba: Any = importlib.import_module("numba")
    config: Any = importlib.import_module("numba.core.config")

    def jit(function: F) -> F:
        """Compile on first use, for callers inside the kernel."""
        if config.DISABLE_JIT:
            return function
        made: F = numba.njit(function)
        return made

    def entry(function: F) -> F:
        """Compile on first use and keep the machine code between runs: what Python calls."""
        if config.DISABLE_JIT:
            return function
        digest = hashlib.sha256()
        for path in sorted(Path(__file__).parent.glob("*.py")):
            digest.update(path.read_bytes())
        given = config.CACHE_DIR
        folder = cache_folder().parent
        config.CACHE_DIR = str(folder / f"linger-{digest.hexdigest()[:16]}")
        try:
            made: F = numba.njit(cache=True)(function)
        except RuntimeError:  # nowhere to keep it
            made = numba.njit(function)
        finally:
            config.CACHE_DIR = given
        return made
