"""Occurrences that are over: of each cause the first are kept, and the others are counted.

So what is kept grows with the causes of a trace, not with how often they occur.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from replay.engine.kernel import layout as L
from replay.engine.runs import SETTLED, is_call, runs

__all__ = ("LISTED", "MORE", "MORE_OPEN", "MORE_PAGES", "settle")

LISTED = 100
"""Occurrences of a cause that are kept: as many as a finding lists."""

MORE, MORE_PAGES, MORE_OPEN = L.W_CREATED, L.W_LO, L.W_HI
"""Columns of a settled record: how many later ones of its cause were not kept, their pages, and
how many of them have no end.  Others than the last that was kept say 0."""

_CAUSE = (L.W_ERRNO, L.W_RULE, L.W_SPACE, L.W_PROC, L.W_CONF, L.W_SEV, L.W_KIND)
"""Records that differ in none of these are of one finding."""


def settle(records: Any, live: Any) -> tuple[Any, dict[tuple[int, int], int]]:
    """Records (n, W_COLS) without those that need not be kept.

    ``live``: the groups to which records may still be added; None: the trace is over.  Also given
    back is how often, by kind and reason, a group that is over has been left undecided.
    """
    rows = runs(records)
    settled = rows[:, L.W_STATE] == SETTLED
    undecided = ~settled & (rows[:, L.W_SEV] == L.UNDECIDED)
    calls = ~settled & ~undecided & is_call(rows)
    over = np.ones(len(rows), bool) if live is None else ~np.isin(rows[:, L.W_GROUP], live)
    over |= calls  # only to the last one can another be joined, whatever its group
    if live is not None and calls.any():
        over[np.flatnonzero(calls)[-1]] = False
    told = rows[~undecided & ~settled]
    unsure = rows[undecided & over]
    occurrences = rows[settled | (over & ~undecided)]
    return np.concatenate([_first(occurrences), rows[~over & ~settled]]), _left(unsure, told)


def _left(unsure: Any, told: Any) -> dict[tuple[int, int], int]:
    """Of what is undecided, that of which nothing else is told, by kind and reason."""
    out: dict[tuple[int, int], int] = {}
    for kind in np.unique(unsure[:, L.W_KIND]).tolist():
        mine = unsure[unsure[:, L.W_KIND] == kind]
        known = told[told[:, L.W_KIND] == kind, L.W_GROUP]
        reasons = mine[~np.isin(mine[:, L.W_GROUP], known), L.W_RULE]
        for reason, count in zip(*np.unique(reasons, return_counts=True), strict=True):
            out[kind, int(reason)] = int(count)
    return out


def _first(rows: Any) -> Any:
    """The first of each cause by time; how many more there are stands in the last of them."""
    if not len(rows):
        return rows
    fresh = rows[:, L.W_STATE] != SETTLED
    rows[np.ix_(fresh, (MORE, MORE_PAGES, MORE_OPEN))] = 0
    rows[:, L.W_STATE] = SETTLED
    by_time = (rows[:, L.W_GROUP], _address(rows), rows[:, L.W_SEQ0], rows[:, L.W_FROM])
    rows = rows[np.lexsort([*by_time, *(rows[:, key] for key in _CAUSE)])]
    begins = np.ones(len(rows), bool)
    begins[1:] = (rows[1:, _CAUSE] != rows[:-1, _CAUSE]).any(axis=1)
    first = np.flatnonzero(begins)
    place = np.arange(len(rows)) - np.repeat(first, np.diff(np.r_[first, len(rows)]))
    beyond = place >= LISTED
    crowded = np.logical_or.reduceat(beyond, first)
    last = first[crowded] + LISTED - 1
    ends = (rows[:, L.W_UNTIL] == L.NULL).astype(np.int64)
    for column, own in ((MORE, 1), (MORE_PAGES, _pages(rows)), (MORE_OPEN, ends)):
        more = np.where(beyond, rows[:, column] + own, 0)
        rows[last, column] += np.add.reduceat(more, first)[crowded]
    return rows[~beyond]


def _address(rows: Any) -> Any:
    """The first byte; 0 where it is not known."""
    of_call = np.where(rows[:, L.W_ADDR] == L.NULL, 0, rows[:, L.W_ADDR])
    at = np.where(rows[:, L.W_RULE] == L.R_CALL, of_call, rows[:, L.W_P0] << 12)
    return at.astype(np.uint64)


def _pages(rows: Any) -> Any:
    """How many; 0 of what is about a call, and where it is not known."""
    known = (rows[:, L.W_P0] != L.NULL) & (rows[:, L.W_P1] != L.NULL) & ~is_call(rows)
    return np.where(known, rows[:, L.W_P1] - rows[:, L.W_P0], 0)
