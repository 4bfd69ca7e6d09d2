"""Conversions from 10.1 on: the attribute change tells the request."""

from __future__ import annotations

from typing import Any

from tracekit.compiled.kernels import jit

from .conclude import conclude
from .expect import differ, reset
from .layout import *
from .pages import forget
from .pending import keep, load, own_calls
from .spans import covers
from .state import *
from .walk import walk

__all__ = ("finish_merged",)


@jit
def finish_merged(k: Any, th: int, opened: int, reason: int) -> None:
    """The thread's pending calls are a conversion.

    ``opened``: judge only what is complete.  ``reason``: why what is not complete was cut
    off; -1: it was not.
    """
    s, calls, group = k.w.s, k.w.calls, k.w.group
    n = own_calls(k.w.calls, k.w.group, load(k.t, k.follower, k.w.group, th))
    attr = -1
    for i in range(n):
        if calls[group[i], C_KIND] == K_ATTR:
            attr = i
            break
    if attr < 0:
        return
    row = group[attr]
    proc, start, size = calls[row, C_PROC], calls[row, C_ADDR], calls[row, C_SIZE]
    private = calls[row, C_FLAG]
    if calls[row, C_KNOWN] == 0:
        if opened:
            return
        k.totals[N_REASON + Y_ARGUMENTS] += 1
        forget(k.table, k.data, proc)
        for i in range(n):
            k.used[group[i]] = 1
        keep(k.t, k.follower, k.w.group, th, n, n)
        return
    early = -1
    for i in range(attr):
        wanted = K_UNMAP if private else K_MAP
        if calls[group[i], C_KIND] == wanted and covers(calls, row, group[i]):
            early = i
            break
    reset(k.w, n, opened, size)
    if early >= 0:
        s[S_AT] = early
        differ(k.w, K_ATTR, start, size, -1)
        if opened:
            return
    elif k.t[th, T_NEW_CONTAINER]:
        if opened:
            return
        s[S_STATUS], s[S_REASON] = UNDECIDED, Y_CONTAINERS
    else:
        s[S_AT] = attr
        walk(k, proc, private, start, size)
    if opened and s[S_STATUS] != GOING:
        return
    if s[S_AT] >= n and reason >= 0:  # what is missing may come, or have come
        kept = s[S_STATUS] == GOING and s[S_HAZARDS] >> W_KEPT & 1
        if s[S_STATUS] == DIVERGED or kept:
            s[S_STATUS], s[S_REASON] = UNDECIDED, reason
    k.t[th, T_NEW_CONTAINER] = 0
    if not opened and s[S_STATUS] == FAILED and s[S_AT] < n:
        extra = group[s[S_AT]]
        if calls[extra, C_KIND] == K_UNMAP and covers(calls, row, extra):
            differ(k.w, K_NONE, start, size, -1)  # it undoes more than this generation does
    if s[S_USED] and (s[S_STATUS] == GOING or s[S_STATUS] == FAILED):
        differ(k.w, K_NONE, start, size, -1)  # a run of maps that goes on past the range
    conclude(k, proc, th, private, start, size)
    rest = s[S_AT] if s[S_STATUS] == GOING or s[S_STATUS] == FAILED else n
    while rest < n and calls[group[rest], C_KIND] == K_DISCARD:
        k.used[group[rest]] = 1  # a file's hole, then madvise()
        rest += 1
    keep(k.t, k.follower, k.w.group, th, rest, n)
