"""Which event touched each part of an address space last."""

from __future__ import annotations

from typing import Any

import numpy as np

from replay.engine.kept import Kept, State

__all__ = ("BEFORE", "MOST_SPANS", "LastTouched")

BEFORE = -2
"""In place of an event's number: it lies before, and which one it is was not kept."""

MOST_SPANS = 1 << 17
"""Spans that are remembered; of more the oldest go."""
_PENDING = 1 << 16


class LastTouched:
    """Spans of bytes in [lo, hi), each with the last event that touched it.

    ``forgotten``: the newest event of those whose spans were given up; -1: none was.
    """

    def __init__(self, lo: int = -(1 << 63), hi: int = (1 << 63) - 1) -> None:
        self.lo, self.hi = lo, hi
        """What is outside of these is not remembered."""
        self.forgotten = -1
        self._spans = np.zeros((0, 3), np.int64)
        """(first byte, end, event): disjoint, by address."""
        self._pending: list[Any] = []
        self._waiting = 0

    def touch(self, lo: Any, hi: Any, seq: Any) -> None:
        """Events touch [lo, hi), in the order of ``seq``."""
        lo, hi = np.maximum(lo, self.lo), np.minimum(hi, self.hi)
        rows = np.stack([lo, hi, seq], axis=1)[hi > lo]
        if len(rows):
            self._pending.append(rows)
            self._waiting += len(rows)
        if self._waiting > max(_PENDING, len(self._spans)):
            self._settle()

    def last_in(self, lo: int, hi: int) -> int:
        """The last event that touched any of [lo, hi).

        -1: none did; :data:`BEFORE`: none of those that were kept.
        """
        self._settle()
        spans = self._spans
        first = int(np.searchsorted(spans[:, 1], lo, side="right"))
        end = int(np.searchsorted(spans[:, 0], hi, side="left"))
        seqs = spans[first:end, 2]
        if len(seqs):
            return int(seqs.max())
        return -1 if self.forgotten < 0 else BEFORE

    def within(self, lo: int = -(1 << 63), hi: int = (1 << 63) - 1) -> LastTouched:
        """The same of [lo, hi) alone, to go on from."""
        self._settle()
        made = LastTouched(lo, hi)
        made.forgotten = self.forgotten
        spans = self._spans[(self._spans[:, 1] > lo) & (self._spans[:, 0] < hi)]
        spans[:, :2] = np.clip(spans[:, :2], lo, hi)
        made._spans = spans
        return made

    @property
    def seqs(self) -> Any:
        """All events that are the last of some span, newest first."""
        self._settle()
        return np.unique(self._spans[:, 2])[::-1]

    def kept_state(self) -> State:
        """As it is kept."""
        self._settle()
        return {
            "spans": self._spans,
            "forgotten": self.forgotten,
            "lo": self.lo,
            "hi": self.hi,
        }

    @classmethod
    def restored(cls, kept: Kept) -> LastTouched:
        """From what was kept.

        :raises TraceFormatError: that cannot be
        """
        made = cls(kept.integer("lo"), kept.integer("hi"))
        made.forgotten = kept.integer("forgotten", -1)
        spans = made._spans = kept.array("spans", None, 3)
        kept.check(len(spans) <= MOST_SPANS, "spans")
        kept.check((spans[:, 0] < spans[:, 1]).all(), "spans")
        kept.check((spans[1:, 0] >= spans[:-1, 1]).all(), "spans")
        return made

    def _settle(self) -> None:
        if not self._pending:
            return
        rows = np.concatenate([self._spans, *self._pending])
        self._pending, self._waiting = [], 0
        spans = _painted(_latest(rows))
        if len(spans) > MOST_SPANS:
            limit = np.sort(spans[:, 2])[len(spans) - MOST_SPANS]
            keep = spans[:, 2] >= limit
            if int(keep.sum()) > MOST_SPANS:  # many of one event
                keep = spans[:, 2] > limit
            self.forgotten = max(self.forgotten, int(spans[~keep, 2].max()))
            spans = spans[keep]
        self._spans = spans


def _latest(rows: Any) -> Any:
    """Of rows about the same bytes the last one."""
    order = np.lexsort([rows[:, 2], rows[:, 1], rows[:, 0]])
    rows = rows[order]
    last = np.ones(len(rows), bool)
    last[:-1] = (rows[1:, 0] != rows[:-1, 0]) | (rows[1:, 1] != rows[:-1, 1])
    return rows[last]


def _painted(rows: Any) -> Any:
    """Disjoint spans of rows that are in the order of addresses; a later event covers others."""
    if not len(rows):
        return rows
    reach = np.maximum.accumulate(rows[:, 1])
    alone = np.ones(len(rows), bool)
    alone[1:] &= rows[1:, 0] >= reach[:-1]
    alone[:-1] &= alone[1:]
    out = [rows[alone]]
    mixed = rows[~alone]
    if len(mixed):
        edges = np.unique(mixed[:, :2])
        owner = np.full(len(edges) - 1, -1, np.int64)
        mixed = mixed[np.argsort(mixed[:, 2], kind="stable")]
        first = np.searchsorted(edges, mixed[:, 0])
        end = np.searchsorted(edges, mixed[:, 1])
        for a, b, seq in zip(first.tolist(), end.tolist(), mixed[:, 2].tolist(), strict=True):
            owner[a:b] = seq
        pieces = np.stack([edges[:-1], edges[1:], owner], axis=1)
        pieces = pieces[owner >= 0]
        begins = np.ones(len(pieces), bool)  # neighbours of one event are one
        begins[1:] = (pieces[1:, 0] != pieces[:-1, 1]) | (pieces[1:, 2] != pieces[:-1, 2])
        at = np.flatnonzero(begins)
        joined = pieces[at]
        joined[:, 1] = pieces[np.append(at[1:], len(pieces)) - 1, 1]
        out.append(joined)
    spans = np.concatenate(out)
    return spans[np.argsort(spans[:, 0], kind="stable")]
