"""The end of a conversion: it is counted, told if there is something to tell, and remembered."""

from __future__ import annotations

from typing import Any

from tracekit.compiled.kernels import jit

from .backing import is_discarded, made_of
from .expect import differ, reset
from .layout import *
from .pages import assign, find, value_at
from .spans import end_page, first_page, plus
from .state import *
from .walk import settle

__all__ = ("conclude", "is_owed", "report", "report_call")

MOST_SHOWN_PAGES = 1 << 18
"""Pages of a conversion whose states are remembered when it diverges: 1 GiB."""
MOST_KEPT = 64
"""Conversions of one memory that are remembered because they may lack a discard."""


@jit
def report(k: Any, what: int, proc: int, th: int, start: int, size: int, private: int) -> None:
    """One row of what is told, with the first rows of its group."""
    out, rows, s = k.out, k.rows, k.w.s
    n, first = k.n_out[0], k.n_out[1]
    if n >= out.shape[0]:
        return
    out[n, D_WHAT], out[n, D_GEN], out[n, D_PROC], out[n, D_THREAD] = what, k.gen, proc, th
    out[n, D_SPACE] = s[S_SPACE]
    out[n, D_ADDR], out[n, D_SIZE], out[n, D_PRIVATE] = start, size, private
    out[n, D_EXPECTED] = s[S_EXPECTED]
    out[n, D_EXPECTED_ADDR], out[n, D_EXPECTED_SIZE] = s[S_EXPECTED_ADDR], s[S_EXPECTED_SIZE]
    out[n, D_GOT] = k.w.group[s[S_AT]] if s[S_AT] < s[S_N] else -1
    out[n, D_REASON] = s[S_REASON]
    at = made_of(k.p, proc, start, plus(start, size))
    out[n, D_HUGE] = 1 if k.p[proc, at + A_PAGES] == HUGE_PAGES else 0
    count = min(s[S_N], rows.shape[0] - first)
    out[n, D_FIRST], out[n, D_COUNT] = first, count
    for i in range(count):
        rows[first + i] = k.w.group[i]
    k.n_out[0], k.n_out[1] = n + 1, first + count


@jit
def report_call(k: Any, what: int, proc: int, row: int) -> None:
    """One row of what is told of a single call."""
    reset(k.w, 1, 0, 0)
    k.w.group[0] = row
    k.w.s[S_SPACE] = k.w.calls[row, C_SPACE]
    private = 1 if what == W_SLOT_AGAIN else 0
    report(
        k,
        what,
        proc,
        k.w.calls[row, C_THREAD],
        k.w.calls[row, C_ADDR],
        k.w.calls[row, C_SIZE],
        private,
    )


@jit
def _remember(k: Any, proc: int, start: int, size: int) -> None:
    """The states that the pages of the conversion just reported had before it, run by run."""
    snap = k.snap
    at = k.n_out[2]
    page, end = start // PAGE, plus(start, size) // PAGE
    if start < 0 or end - page > MOST_SHOWN_PAGES:
        return
    while page < end and at < snap.shape[0]:
        value = value_at(k.table, k.data, proc, page)
        first = page
        page = find(k.table, k.data, proc, page, end, 15 & ~(1 << value))
        snap[at, 0], snap[at, 1], snap[at, 2], snap[at, 3] = k.n_out[0] - 1, first, page, value
        at += 1
    k.n_out[2] = at


@jit
def _may_diverge(k: Any, proc: int, th: int, start: int, size: int) -> None:
    """The shared side was kept; whether that is right will be known when another is discarded."""
    at = made_of(k.p, proc, start, plus(start, size))
    if k.p[proc, at + A_NUMBER] == 0:
        k.counts[2] += 1
        k.p[proc, at + A_NUMBER] = k.counts[2]
    k.p[proc, at + A_KEPT] += 1
    if k.p[proc, at + A_KEPT] <= MOST_KEPT:
        differ(k.w, K_DISCARD, start, size, -1)
        k.w.s[S_REASON] = k.p[proc, at + A_NUMBER]
        report(k, W_KEPT, proc, th, start, size, 1)
        _remember(k, proc, start, size)
        k.w.s[S_STATUS] = GOING


@jit
def conclude(k: Any, proc: int, th: int, private: int, start: int, size: int) -> None:
    """Count a conversion, tell what is to tell of it, and bring the state up to what was seen."""
    s, calls, group = k.w.s, k.w.calls, k.w.group
    lo, hi = start // PAGE, plus(start, size) // PAGE
    value = PRIVATE if private else SHARED
    if s[S_STATUS] == GOING or s[S_STATUS] == FAILED:
        k.totals[N_CONFORM] += 1
        if s[S_HAZARDS] >> W_KEPT & 1:
            _may_diverge(k, proc, th, start, size)
        elif s[S_TELLING]:
            k.totals[N_TELLING] += 1
        if s[S_HAZARDS] >> W_SHIFTED & 1:
            lo, hi = s[S_APPLIED] // PAGE, plus(s[S_APPLIED], size) // PAGE
        if s[S_APPLIED] or not s[S_HAZARDS] >> W_SHIFTED & 1:
            settle(s, k.table, k.data, k.counts, k.gen, proc, private, lo, hi)
        for what in range(W_RETRY, W_ABSENT_UNMAP + 1):
            if s[S_HAZARDS] >> what & 1:
                report(k, what, proc, th, start, size, private)
        for i in range(s[S_AT]):
            k.used[group[i]] = 1
        return
    if s[S_STATUS] == DIVERGED:
        k.totals[N_DIVERGE] += 1
        report(k, W_DIVERGES, proc, th, start, size, private)
        _remember(k, proc, start, size)
        owed = P_OWED + 2 * (k.p[proc, P_OWED_AT] % MOST_OWED)
        k.p[proc, owed], k.p[proc, owed + 1] = start, plus(start, size)
        k.p[proc, P_OWED_AT] += 1
    else:
        k.totals[N_REASON + s[S_REASON]] += 1
    done = False
    for i in range(s[S_N]):
        row = group[i]
        k.used[row] = 1
        if private and calls[row, C_KIND] == K_DISCARD and calls[row, C_SIZE] == size:
            is_discarded(k, proc, start, size)
        if calls[row, C_KIND] == K_ATTR and calls[row, C_RET] >= 0 and calls[row, C_KNOWN]:
            now = PRIVATE if calls[row, C_FLAG] else SHARED
            first = first_page(calls, row)
            if first >= 0:
                assign(k.table, k.data, k.counts, proc, first, end_page(calls, row), now, 0)
            done = True
    if not done and size > 0 and start >= 0 and s[S_STATUS] == UNDECIDED:
        assign(k.table, k.data, k.counts, proc, lo, hi, value, 0)


@jit
def is_owed(p: Any, proc: int, lo: int, hi: int) -> bool:
    """A call that a diverging conversion left out, made later: told already."""
    for i in range(MOST_OWED):
        at = P_OWED + 2 * i
        if p[proc, at] <= lo and hi <= p[proc, at + 1]:
            return True
    return False
