"""The kernel's records, made fewer: there may be one a page."""

from __future__ import annotations

from typing import Any

import numpy as np

from replay.engine.kernel import layout as L

__all__ = ("runs",)

_KEYS = (L.W_P0, L.W_SPACE, L.W_PROC, L.W_CONF, L.W_SEV, L.W_GROUP, L.W_KIND)


def runs(records: Any) -> Any:
    """Records (n, W_COLS) of adjacent pages of one cause made one, and those of what is undecided
    made one a group.  That can be done to some of them first, and to all of them later.

    What violations.py does of violations, done of rows, because rows are cheap.
    """
    if len(records) < 2:
        return records
    undecided = records[:, L.W_SEV] == L.UNDECIDED
    pages = (records[:, L.W_RULE] != L.R_CALL) & ~undecided
    rest = records[~pages & ~undecided]
    return np.concatenate([rest, _last_of_groups(records[undecided]), _joined(records[pages])])


def _last_of_groups(rows: Any) -> Any:
    """The last word on each group."""
    names = rows[::-1][:, [L.W_KIND, L.W_GROUP]]
    _, last = np.unique(names, axis=0, return_index=True)
    return rows[len(rows) - 1 - np.sort(last)[::-1]]


def _joined(rows: Any) -> Any:
    if len(rows) < 2:
        return rows
    rows = rows[np.lexsort([rows[:, key] for key in _KEYS])]
    same = np.ones(len(rows) - 1, bool)
    for key in _KEYS[1:]:
        same &= rows[1:, key] == rows[:-1, key]
    same &= rows[1:, L.W_P0] == rows[:-1, L.W_P1]
    first = np.flatnonzero(np.r_[True, ~same])
    last = np.r_[first[1:], len(rows)] - 1
    out = rows[first].copy()
    out[:, L.W_P1] = rows[last, L.W_P1]
    out[:, L.W_FROM] = np.minimum.reduceat(rows[:, L.W_FROM], first)
    open_ended = np.logical_or.reduceat(rows[:, L.W_UNTIL] == L.NULL, first)
    until = np.maximum.reduceat(rows[:, L.W_UNTIL], first)
    out[:, L.W_UNTIL] = np.where(open_ended, L.NULL, until)
    out[:, L.W_SEQ1] = rows[last, L.W_SEQ1]
    out[:, L.W_SEQ3] = np.maximum.reduceat(rows[:, L.W_SEQ3], first)
    return out
