"""Steps of the walk: the next observed call has to be the one that the model makes."""

from __future__ import annotations

from typing import Any

from tracekit.compiled.kernels import jit

from .layout import *
from .spans import plus
from .state import *

__all__ = ("differ", "expect", "expect_pieces", "next_call", "reset")


@jit
def reset(w: Any, n: int, opened: int, request: int) -> None:
    """A new walk along the first ``n`` rows of the group."""
    for i in range(S_SIZE):
        w.s[i] = 0
    w.s[S_N], w.s[S_OPEN], w.s[S_REQUEST] = n, opened, request


@jit
def next_call(w: Any) -> int:
    """The thread's next call that can be one of the conversion's, or -1."""
    while w.s[S_AT] < w.s[S_N]:
        row = w.group[w.s[S_AT]]
        if (
            w.calls[row, C_KIND] == K_DISCARD
            and w.calls[row, C_FLAG] == 2
            and w.calls[row, C_SIZE] != w.s[S_REQUEST]
        ):
            w.s[S_AT] += 1  # the C library gives memory back
            continue
        return row
    return -1


@jit
def differ(w: Any, kind: int, addr: int, size: int, space: int) -> None:
    """Here the calls and the model part: this one was expected."""
    w.s[S_STATUS] = DIVERGED
    w.s[S_EXPECTED], w.s[S_EXPECTED_ADDR], w.s[S_EXPECTED_SIZE] = kind, addr, size
    w.s[S_SPACE] = space


@jit
def expect(w: Any, kind: int, space: int, addr: int, size: int, flag: int) -> int:
    """The next call has to be this one; returns its result."""
    calls = w.calls
    row = next_call(w)
    if row < 0:
        differ(w, kind, addr, size, space)
        if w.s[S_OPEN]:
            w.s[S_STATUS] = WAITING
        return 0
    if calls[row, C_KIND] == kind and calls[row, C_KNOWN] == 0:
        w.s[S_STATUS], w.s[S_REASON] = UNDECIDED, Y_ARGUMENTS
        return 0
    same = calls[row, C_KIND] == kind and calls[row, C_SIZE] == size and w.s[S_USED] == 0
    if kind == K_MAP or kind == K_UNMAP:
        same = same and calls[row, C_SPACE] == space
    if kind != K_PUNCH and kind != K_DISCARD:
        same = same and calls[row, C_ADDR] == addr
    if kind == K_ATTR:
        same = same and calls[row, C_FLAG] == flag
    if not same:
        differ(w, kind, addr, size, space)
        return 0
    w.s[S_AT] += 1
    w.s[S_TELLING] += kind != K_ATTR
    return calls[row, C_RET]


@jit
def expect_pieces(w: Any, space: int, lo: int, hi: int) -> int:
    """One map for each block of [lo, hi), up to one that fails; returns that one's result."""
    calls = w.calls
    at = lo
    while at < hi:
        row = next_call(w)
        if row < 0:
            differ(w, K_MAP, at, PAGE, space)
            if w.s[S_OPEN]:
                w.s[S_STATUS] = WAITING
            return 0
        if calls[row, C_KIND] == K_MAP and calls[row, C_KNOWN] == 0:
            w.s[S_STATUS], w.s[S_REASON] = UNDECIDED, Y_ARGUMENTS
            return 0
        if (
            calls[row, C_KIND] != K_MAP
            or calls[row, C_SPACE] != space
            or plus(calls[row, C_ADDR], w.s[S_USED]) != at
            or calls[row, C_SIZE] != calls[row, C_COUNT] * PAGE
        ):
            differ(w, K_MAP, at, PAGE, space)
            return 0
        w.s[S_TELLING] += 1
        if calls[row, C_RET] < 0:
            w.s[S_AT] += 1
            return calls[row, C_RET]
        left = calls[row, C_SIZE] - w.s[S_USED]
        taken = min(left, hi - at)
        at += taken
        if taken == left:
            w.s[S_AT] += 1
            w.s[S_USED] = 0
        else:
            w.s[S_USED] += taken
    return 0
