"""Calls that are free at different times, handed on in the order of the trace.

Calls of an open conversion hold back all that come after them, for they may turn out to be none of
its.  How far is decided by places in the trace alone, so that how many calls come at once makes no
difference: at each multiple of PERIOD, what is older than one PERIOD waits no longer.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from replay.conformance.kernel import layout as K

__all__ = ("PERIOD", "InOrder")

PERIOD = 1 << 16
"""Calls."""


class InOrder:
    """``add`` calls as they become free; ``ready`` are those that nothing holds back."""

    def __init__(self) -> None:
        self._rows = np.zeros((0, K.C_COLS), np.int64)
        self._places = np.zeros(0, np.int64)
        self._floor = 0

    def add(self, rows: Any, places: Any) -> None:
        """Calls and their places in the trace; those that are late by more than a PERIOD go."""
        kept = places >= self._floor
        self._rows = np.concatenate([self._rows, rows[kept]])
        self._places = np.concatenate([self._places, places[kept]])

    def ready(self, pending: Any, reached: int) -> Any:
        """In order, those before each of the ``pending`` places; the trace is read up to
        ``reached``, which with ``pending`` none is its end or as good."""
        floor = max(self._floor, (reached // PERIOD - 1) * PERIOD)
        first = max(int(pending.min()) if len(pending) else reached, floor)
        out = self._places < first
        chosen = np.flatnonzero(out)[np.argsort(self._places[out])]
        rows = self._rows[chosen]
        self._rows, self._places = self._rows[~out], self._places[~out]
        self._floor = floor
        return rows
