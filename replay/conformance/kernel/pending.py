"""Calls of a thread that are not yet told apart into conversions."""

from __future__ import annotations

from typing import Any

from tracekit.compiled.kernels import jit

from .layout import *
from .spans import covers
from .state import *

__all__ = ("append", "drop", "keep", "load", "own_calls")


@jit
def load(t: Any, follower: Any, group: Any, th: int) -> int:
    """The thread's pending calls into the group; returns their number."""
    n = 0
    row = t[th, T_HEAD]
    while row >= 0:
        group[n] = row
        n += 1
        row = follower[row]
    return n


@jit
def drop(t: Any, th: int) -> None:
    """The thread has no pending calls."""
    t[th, T_HEAD], t[th, T_TAIL], t[th, T_ATTR] = -1, -1, -1
    t[th, T_COUNT] = 0


@jit
def keep(t: Any, follower: Any, group: Any, th: int, first: int, n: int) -> None:
    """The thread's pending rows are group[first:n] from now on."""
    drop(t, th)
    for i in range(first, n):
        append(t, follower, th, group[i])


@jit
def append(t: Any, follower: Any, th: int, row: int) -> None:
    """One more pending call."""
    follower[row] = -1
    if t[th, T_HEAD] < 0:
        t[th, T_HEAD] = row
    else:
        follower[t[th, T_TAIL]] = row
    t[th, T_TAIL] = row
    t[th, T_COUNT] += 1


@jit
def own_calls(calls: Any, group: Any, n: int) -> int:
    """Leave out what came before the conversion and is none of it; returns how many are left."""
    attr = 0
    while attr < n and calls[group[attr], C_KIND] != K_ATTR:
        attr += 1
    if attr == n:
        return n
    row = group[attr]
    wanted = K_UNMAP if calls[row, C_FLAG] else K_MAP
    begin = 0
    while begin < attr:
        if calls[group[begin], C_KIND] == wanted and covers(calls, row, group[begin]):
            break
        begin += 1
    for i in range(begin, n):
        group[i - begin] = group[i]
    return n - begin
