"""Pages of one chunk: loops where they are compiled, numpy where they are plain Python."""

from __future__ import annotations

from typing import Any

from tracekit.compiled.kernels import jit

__all__ = ("fill_unknown", "first_of", "states_in")

if not (__package__ or "").endswith("_compiled"):
    import numpy as np

    def states_in(data: Any, row: int, a: int, b: int) -> int:
        """A bit for each state that a page in [a, b) of the row has."""
        there = np.flatnonzero(np.bincount(data[row, a:b]))
        return sum(1 << state for state in there.tolist())

    def first_of(data: Any, row: int, a: int, b: int, states: int) -> int:
        """The first page in [a, b) whose state's bit is in ``states``, or b."""
        found = np.flatnonzero(states >> data[row, a:b].astype(np.int64) & 1)
        return a + int(found[0]) if len(found) else b

    def fill_unknown(data: Any, row: int, a: int, b: int, value: int) -> None:
        """Make the pages in [a, b) ``value`` of which nothing is known."""
        pages = data[row, a:b]
        pages[pages == 0] = value

else:

    @jit
    def states_in(data: Any, row: int, a: int, b: int) -> int:
        """A bit for each state that a page in [a, b) of the row has."""
        found = 0
        for i in range(a, b):
            found |= 1 << int(data[row, i])
        return found

    @jit
    def first_of(data: Any, row: int, a: int, b: int, states: int) -> int:
        """The first page in [a, b) whose state's bit is in ``states``, or b."""
        for i in range(a, b):
            if states >> int(data[row, i]) & 1:
                return i
        return b

    @jit
    def fill_unknown(data: Any, row: int, a: int, b: int, value: int) -> None:
        """Make the pages in [a, b) ``value`` of which nothing is known."""
        for i in range(a, b):
            if data[row, i] == 0:
                data[row, i] = value
