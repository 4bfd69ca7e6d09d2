"""Conversions of v4: a listener changes the attribute, so other calls tell the request."""

from __future__ import annotations

from typing import Any

from tracekit.compiled.kernels import jit

from .conclude import conclude, report
from .expect import differ, reset
from .layout import *
from .memory import request_start
from .pages import classify, forget
from .pending import keep, load, own_calls
from .registration import unregister_runs
from .spans import end_of, plus
from .state import *
from .walk import walk

__all__ = ("finish_v4",)


@jit
def finish_v4(k: Any, th: int, opened: int, reason: int) -> None:
    """The thread's pending calls are a conversion, up to the discard that ends it.

    The request is what QEMU's own trace says, else what the discard tells.  ``opened``, ``reason``
    as for finish_merged().
    """
    s, t, calls, group = k.w.s, k.t, k.w.calls, k.w.group
    n = own_calls(k.w.calls, k.w.group, load(k.t, k.follower, k.w.group, th))
    attr, failed, last = -1, False, -1
    lo, hi = 0, 0
    proc = -1
    for i in range(n):
        row = group[i]
        kind = calls[row, C_KIND]
        proc = calls[row, C_PROC]
        if kind == K_ATTR or kind == K_MAP or kind == K_UNMAP:
            if calls[row, C_KNOWN] == 0 or calls[row, C_SIZE] < 0:
                if opened:
                    return
                k.totals[N_REASON + Y_ARGUMENTS] += 1
                forget(k.table, k.data, proc)
                keep(k.t, k.follower, k.w.group, th, n, n)
                return
            at, end = calls[row, C_ADDR], end_of(calls, row)
            if hi == lo:
                lo, hi = at, end
            lo, hi = min(lo, at), max(hi, end)
            failed = failed or calls[row, C_RET] < 0
        if kind == K_ATTR and attr < 0:
            attr = i
        if kind == K_PUNCH or kind == K_DISCARD:
            last = i
    if opened and last < 0:
        return
    if attr < 0:
        if not opened:
            row = group[n - 1]
            if calls[row, C_KIND] == K_UNMAP and calls[row, C_RET] < 0 and reason == Y_END:
                reset(k.w, n, 0, 0)  # a conversion to private that QEMU did not survive
                report(k, W_ENDS_QEMU, proc, th, calls[row, C_ADDR], calls[row, C_SIZE], 1)
            else:
                unregister_runs(k, proc, n)
            keep(k.t, k.follower, k.w.group, th, n, n)
        return
    private = calls[group[attr], C_FLAG]
    asked = t[th, T_ASKED] == 1 + private and t[th, T_ASKED_ADDR] <= lo
    asked = asked and plus(t[th, T_ASKED_ADDR], t[th, T_ASKED_SIZE]) >= hi
    if asked:
        lo, hi = t[th, T_ASKED_ADDR], plus(t[th, T_ASKED_ADDR], t[th, T_ASKED_SIZE])
        if last >= 0 and calls[group[last], C_FLAG] == 2 and calls[group[last], C_SIZE] != hi - lo:
            if opened:
                return  # the C library gives memory back
    elif last >= 0:
        row = group[last]
        start = request_start(k, proc, row, lo, hi)
        if start >= 0:
            lo, hi = start, plus(start, calls[row, C_SIZE])
        elif calls[row, C_KIND] == K_DISCARD and calls[row, C_FLAG] == 2:
            if opened:
                return  # the C library gives memory back
            last = -1
    size = hi - lo if lo >= 0 else 0
    reset(k.w, n, 0, size)
    if lo < 0 or (last >= 0 and not asked and calls[group[last], C_SIZE] != size):
        s[S_STATUS], s[S_REASON] = UNDECIDED, Y_REQUEST
    elif t[th, T_NEW_CONTAINER]:
        s[S_STATUS], s[S_REASON] = UNDECIDED, Y_CONTAINERS
    elif classify(k.table, k.data, proc, lo // PAGE, hi // PAGE) & 1:
        s[S_STATUS], s[S_REASON] = UNDECIDED, Y_LATE
    else:
        walk(k, proc, private, lo, size)
    told = last >= 0 or asked  # how large the request was
    if s[S_STATUS] == DIVERGED and reason >= 0 and (s[S_AT] >= n or not told):
        s[S_STATUS], s[S_REASON] = UNDECIDED, reason
    if s[S_STATUS] == GOING and s[S_AT] < n:
        if calls[group[s[S_AT]], C_KIND] != K_DISCARD:
            differ(k.w, K_NONE, lo, size, -1)
    if s[S_STATUS] == DIVERGED and failed and not told:
        s[S_STATUS], s[S_REASON] = UNDECIDED, Y_REQUEST  # no discard says how large it was
    t[th, T_NEW_CONTAINER], t[th, T_ASKED] = 0, 0
    conclude(k, proc, th, private, lo, size)
    keep(k.t, k.follower, k.w.group, th, n, n)
