"""The calls of all threads against what one generation of QEMU would have called.

The models in replay/models are the definition: tests/replay/conformance/ drives both with the same
requests.  A prediction is a walk along the observed calls, each of whose results is what the
model's call would have returned; the walk stops at the first call that differs.
"""

from __future__ import annotations

from typing import Any

from tracekit.compiled.kernels import entry, jit, spliced

from .conclude import is_owed, report_call
from .containers import add_container, drop_container, is_foreign, tell_container
from .layout import *
from .memory import set_slot
from .merged import finish_merged
from .pages import assign, classify, forget
from .pending import append, drop, load
from .registration import (
    are_open,
    begin_container,
    check_registrations,
    hear_map,
    hear_unmap,
    refused_for_limit,
    take,
    tell_dirty,
    unregister_runs,
)
from .spans import covers, end_of, end_page, first_page, minus
from .state import *
from .v4 import finish_v4

__all__ = ("match",)

MOST_BEFORE = 64
"""Calls of a thread that are remembered while it has no conversion open."""


@jit
def _finish(k: Any, th: int, opened: int, reason: int) -> None:
    """The thread's pending calls are all that come, or with ``opened`` may be."""
    if k.t[th, T_HEAD] < 0:
        return
    if k.gen == V4:
        finish_v4(k, th, opened, reason)
    else:
        finish_merged(k, th, opened, reason)


@spliced
def _lose(k: Any) -> None:
    """Events were lost: nothing is known of any page or container, nor whether slots are all there
    are; those that were seen survive, as in docs/judging.md, section 5."""
    for th in range(k.t.shape[0]):
        _finish(k, th, 0, Y_LOSS)
        drop(k.t, th)
        k.t[th, T_SLOT], k.t[th, T_ASKED], k.t[th, T_NEW_CONTAINER] = 0, 0, 0
    forget(k.table, k.data, -1)
    for proc in range(k.p.shape[0]):
        k.p[proc, P_VM], k.p[proc, P_NC], k.p[proc, P_SLOTS_KNOWN] = 0, 0, 0
        k.p[proc, P_DOUBT:P_SLOTS] = 0
        k.p[proc, P_OWED:P_ANYWHERE] = 0


@spliced
def _new_slot(k: Any, proc: int, row: int) -> None:
    """The attribute of a whole slot that was just made: its unknown pages are private."""
    k.totals[N_SLOTS] += 1
    k.used[row] = 3
    lo, hi = first_page(k.w.calls, row), end_page(k.w.calls, row)
    if k.w.calls[row, C_RET] >= 0 and lo >= 0 and hi > lo:
        if classify(k.table, k.data, proc, lo, hi) >> SHARED:
            report_call(k, W_SLOT_AGAIN, proc, row)
        assign(k.table, k.data, k.counts, proc, lo, hi, PRIVATE, 1)


@spliced
def _change_begins(k: Any, proc: int, th: int, row: int) -> None:
    """An attribute change: conversions of the same pages, or of this thread before, are over."""
    calls, t = k.w.calls, k.t
    for other in range(t.shape[0]):
        if other == th or t[other, T_HEAD] < 0:
            continue
        if t[other, T_ATTR] < 0:
            if k.gen == V4 and calls[t[other, T_HEAD], C_PROC] == proc:
                unregister_runs(k, proc, load(k.t, k.follower, k.w.group, other))
            continue
        theirs = t[other, T_ATTR]
        if (
            calls[theirs, C_PROC] == proc
            and calls[theirs, C_ADDR] < end_of(calls, row)
            and calls[row, C_ADDR] < end_of(calls, theirs)
        ):
            _finish(k, other, 0, Y_CONCURRENT)
    if k.gen != V4 and t[th, T_HEAD] >= 0:
        _finish(k, th, 0, -1)
    t[th, T_LO], t[th, T_HI] = calls[row, C_ADDR], end_of(calls, row)
    t[th, T_PRIVATE] = calls[row, C_FLAG]
    if t[th, T_ATTR] < 0:
        if are_open(k.p, proc):
            check_registrations(k, proc, row)
        t[th, T_ATTR] = row
        t[th, T_SPACE] = 0
        before = t[th, T_HEAD] if k.gen == V4 else -1
        while before >= 0:  # unmapped before the attribute changes
            if calls[before, C_KIND] == K_UNMAP and calls[before, C_KNOWN]:
                if covers(calls, row, before):
                    tell_container(k.p, t, proc, th, calls[before, C_SPACE], True)
            before = k.follower[before]


@spliced
def _dma_call(k: Any, proc: int, th: int, row: int) -> bool:
    """A map or unmap: whether it is told already, and no conversion's."""
    calls, p, t = k.w.calls, k.p, k.t
    kind = calls[row, C_KIND]
    outside = t[th, T_ATTR] < 0
    wanted = K_UNMAP if t[th, T_PRIVATE] else K_MAP
    inside = calls[row, C_ADDR] >= t[th, T_LO] and end_of(calls, row) <= t[th, T_HI]
    if not outside and kind == wanted and inside:
        newest_first = kind == K_UNMAP or k.gen != V4
        tell_container(p, t, proc, th, calls[row, C_SPACE], newest_first)
    elif p[proc, P_VM] == 0:
        pass  # it says nothing of how old the container is beside others
    elif outside:
        begin_container(k, proc, calls[row, C_SPACE])
    elif add_container(p, proc, calls[row, C_SPACE]):
        t[th, T_NEW_CONTAINER] = 1
    if kind == K_MAP and calls[row, C_VADDR] != NULL:
        p[proc, P_DELTA] = minus(calls[row, C_VADDR], calls[row, C_ADDR])
        p[proc, P_DELTA + 1] = 1
    if not outside:
        if kind == K_UNMAP:
            is_foreign(k.p, k.w.calls, proc, row)  # whatever was there is gone
        return False
    if hear_map(k, proc, row) if kind == K_MAP else hear_unmap(k, proc, row):
        take(k, row)
        return True
    if k.gen != V4 and kind == K_UNMAP:
        if is_owed(p, proc, calls[row, C_ADDR], end_of(calls, row)):
            k.used[row] = 2
            k.totals[N_OWED] += 1
            return True
    return False


@spliced
def _call(k: Any, proc: int, th: int, row: int) -> None:
    """A call that can be one of a conversion's."""
    calls, t = k.w.calls, k.t
    kind = calls[row, C_KIND]
    t[th, T_SLOT] = 0
    if kind == K_ATTR:
        _change_begins(k, proc, th, row)
    discards = kind == K_PUNCH or kind == K_DISCARD
    if not discards and kind != K_ATTR and calls[row, C_KNOWN]:
        if _dma_call(k, proc, th, row):
            return
    if t[th, T_ATTR] < 0:
        if kind == K_DISCARD and calls[row, C_FLAG] == 2:
            return
        if k.gen == V4 and discards:
            drop(t, th)  # nothing was to change
            return
        if t[th, T_COUNT] >= MOST_BEFORE:
            t[th, T_HEAD] = k.follower[t[th, T_HEAD]]
            t[th, T_COUNT] -= 1
    append(k.t, k.follower, th, row)
    if t[th, T_ATTR] >= 0 and discards:
        _finish(k, th, 1, -1)


@entry
def match(
    calls: Any, first: int, gen: int, discards: Any, p: Any, t: Any, follower: Any, table: Any,
    data: Any, counts: Any, totals: Any, group: Any, s: Any, out: Any, n_out: Any, rows: Any,
    snap: Any, used: Any, last: int,
) -> None:  # fmt: skip
    """Take calls[first:]; those before are pending.  ``last``: the trace ends behind them."""
    k = State(
        Walk(calls, group, s), gen, discards, p, t, follower, table, data, counts, totals, out,
        n_out, rows, snap, used,
    )  # fmt: skip
    for i in range(first, calls.shape[0]):
        kind, th, proc = calls[i, C_KIND], calls[i, C_THREAD], calls[i, C_PROC]
        if kind == K_LOST:
            _lose(k)
        elif kind == K_RUN or kind == K_EXIT:
            _finish(k, th, 0, -1 if kind == K_RUN else Y_END)
            if kind == K_EXIT:
                refused_for_limit(k, proc, i, -1)
            drop(t, th)
            t[th, T_SLOT], t[th, T_NEW_CONTAINER], t[th, T_ASKED] = 0, 0, 0
        elif kind == K_SLOT:
            if calls[i, C_RET] >= 0:
                set_slot(k, proc, i)
                t[th, T_SLOT] = 1
        elif kind == K_CREATE_VM:
            p[proc, P_VM], p[proc, P_SLOTS_KNOWN], p[proc, P_NSLOTS] = 1, 1, 0
            p[proc, P_ANYWHERE:] = 0
        elif kind == K_CONTAINER:
            if calls[i, C_RET] >= 0:
                begin_container(k, proc, calls[i, C_SPACE])
        elif kind == K_CLOSE:
            refused_for_limit(k, proc, i, calls[i, C_SPACE])
            drop_container(p, proc, calls[i, C_SPACE])
        elif kind == K_REQUEST:
            if th:
                t[th, T_ASKED] = 1 + calls[i, C_FLAG]
                t[th, T_ASKED_ADDR], t[th, T_ASKED_SIZE] = calls[i, C_ADDR], calls[i, C_SIZE]
        elif kind == K_DIRTY:
            tell_dirty(k, i)
        elif kind == K_VIRTIO_MEM or kind == K_REGION:
            continue
        elif kind == K_ATTR and t[th, T_SLOT] and calls[i, C_FLAG] and calls[i, C_KNOWN]:
            t[th, T_SLOT] = 0
            _new_slot(k, proc, i)
        else:
            _call(k, proc, th, i)
    if last:
        for th in range(t.shape[0]):
            _finish(k, th, 0, Y_END)
            drop(t, th)
