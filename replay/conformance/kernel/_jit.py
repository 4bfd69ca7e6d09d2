"""Compiled or not: as in the engine's kernel, whose boundary to numba this uses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

__all__ = ("entry", "jit")

if (__package__ or "").endswith("_plain"):

    def jit(function: F) -> F:
        """Leave the function as it is."""
        return function

    entry = jit

else:
    from replay.engine.kernel._jit import entry, jit
