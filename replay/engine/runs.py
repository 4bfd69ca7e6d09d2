"""The kernel's records, made fewer: there may be one a page."""

from __future__ import annotations

from typing import Any

import numpy as np

from replay.engine.kernel import layout as L

__all__ = ("SETTLED", "is_call", "runs")

SETTLED = 2
"""In W_STATE: the record is an occurrence as it is told, and nothing is joined to it any more
(settling.py)."""

_CALLS = (105, 106, 107)
"""Kinds whose records with an errno are about a call, not about pages that are in a state."""
_KEYS = (L.W_P0, L.W_SPACE, L.W_PROC, L.W_CONF, L.W_SEV, L.W_GROUP, L.W_KIND)


def runs(records: Any) -> Any:
    """Records (n, W_COLS) of adjacent pages of one cause made one, calls that were refused one
    after the other made one, and those of what is undecided made one a group.

    That can be done to some of them first, and to all of them later.  What is settled comes first,
    then calls in their order, what is undecided, and pages by kind and group.
    """
    if len(records) < 2:
        return records
    settled = records[:, L.W_STATE] == SETTLED
    undecided = ~settled & (records[:, L.W_SEV] == L.UNDECIDED)
    calls = ~settled & ~undecided & is_call(records)
    pages = ~settled & ~undecided & ~calls
    return np.concatenate(
        [
            records[settled],
            _joined_calls(records[calls]),
            _last_of_groups(records[undecided]),
            _joined(records[pages]),
        ]
    )


def is_call(records: Any) -> Any:
    """Which are about a call, whose order is theirs."""
    kinds = records[:, L.W_KIND]
    return (kinds == 202) | (np.isin(kinds, _CALLS) & (records[:, L.W_ERRNO] != 0))


def _last_of_groups(rows: Any) -> Any:
    """The last word on each group."""
    names = rows[::-1][:, [L.W_KIND, L.W_GROUP]]
    _, last = np.unique(names, axis=0, return_index=True)
    return rows[len(rows) - 1 - np.sort(last)[::-1]]


def _joined(rows: Any) -> Any:
    """Adjacent pages of one group, severity, confidence and container.

    Of a page that was broken twice each time is an occurrence of its own: first what one call did
    is joined.
    """
    if len(rows) < 2:
        return rows
    rows, alike = _sorted(rows, _KEYS)
    if np.any(alike & (rows[1:, L.W_P0] < rows[:-1, L.W_P1])):
        rows, alike = _sorted(_adjacent(*_sorted(rows, (L.W_P0, L.W_FROM, *_KEYS[1:]))), _KEYS)
    return _adjacent(rows, alike)


def _sorted(rows: Any, keys: tuple[int, ...]) -> tuple[Any, Any]:
    """By these columns, the last one first; and which rows but the first agree with those before
    them in all but the first one."""
    rows = rows[np.lexsort([rows[:, key] for key in keys])]
    return rows, np.all([rows[1:, key] == rows[:-1, key] for key in keys[1:]], axis=0)


def _adjacent(rows: Any, alike: Any) -> Any:
    """Rows of which each begins at the page where the one before ends, and is alike, made one."""
    same = alike & (rows[1:, L.W_P0] == rows[:-1, L.W_P1]) & (rows[1:, L.W_P0] != L.NULL)
    first, last = _ends(same)
    out = rows[first].copy()
    out[:, L.W_P1] = rows[last, L.W_P1]
    out[:, L.W_FROM] = np.minimum.reduceat(rows[:, L.W_FROM], first)
    open_ended = np.logical_or.reduceat(rows[:, L.W_UNTIL] == L.NULL, first)
    until = np.maximum.reduceat(rows[:, L.W_UNTIL], first)
    out[:, L.W_UNTIL] = np.where(open_ended, L.NULL, until)
    out[:, L.W_SEQ1] = rows[last, L.W_SEQ1]
    out[:, L.W_SEQ3] = np.maximum.reduceat(rows[:, L.W_SEQ3], first)
    sized = (out[:, L.W_RULE] == L.R_CALL) & (out[:, L.W_P1] != L.NULL) & (first < last)
    out[sized, L.W_SIZE] = (out[sized, L.W_P1] - out[sized, L.W_P0]) << 12
    return out


def _joined_calls(rows: Any) -> Any:
    """Calls refused one after the other in one run, each beginning where the last one ended."""
    if len(rows) < 2:
        return rows
    at, size = (rows[:, column].astype(np.uint64) for column in (L.W_ADDR, L.W_SIZE))
    known = (rows[:, L.W_ADDR] != L.NULL) & (rows[:, L.W_SIZE] != L.NULL)
    end = at + size
    same = (rows[1:, L.W_KIND] != 202) & known[1:] & known[:-1]
    same &= (at[1:] == end[:-1]) & (end[:-1] >= at[:-1])
    for key in (L.W_KIND, L.W_GROUP, L.W_SEV, L.W_CONF, L.W_ERRNO):
        same &= rows[1:, key] == rows[:-1, key]
    first, last = _ends(same)
    out = rows[first].copy()
    several = first < last
    out[:, L.W_SIZE] = np.add.reduceat(size, first).astype(np.int64)
    out[:, L.W_UNTIL] = rows[last, L.W_UNTIL]
    out[:, L.W_SEQ1] = rows[last, L.W_SEQ1]
    out[several, L.W_SEQ2] = -1
    out[several, L.W_SEQ3] = -1
    return out


def _ends(same: Any) -> tuple[Any, Any]:
    """Of the pieces whose rows but the first are the ``same`` as those before them: the first and
    the last rows."""
    first = np.flatnonzero(np.r_[True, ~same])
    return first, np.r_[first[1:], len(same) + 1] - 1
