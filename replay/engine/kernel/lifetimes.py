"""Loss, exec and exit: where what is known ends."""

from __future__ import annotations

from typing import Any

from tracekit.compiled.kernels import jit

from .calls import notice_gap
from .conversions import settle_returned
from .dma import forget_range, leaked, none_left
from .identity import descriptor_gone, has_ended, process_of
from .in_hand import END_LOSS, end_in_hand, enters_guest
from .layout import *
from .missing import end_missing
from .planes import apply_map, forget_planes, sane, tally
from .relations import unrelate
from .searches import live_anywhere
from .watches import end_candidates, forget_watches, unmapped


@jit
def lost(k: Any, until: int, reason: int) -> None:
    """Everything that a page's state could be is unknown until seen again."""
    undecided = J0 + J_108 * Y_COLS
    before = k.g[undecided + Y_LOSS]
    for t in range(k.g[G_THREADS]):
        end_in_hand(k, t, NULL, -1, END_LOSS)
    if reason != Y_LOSS:
        k.g[undecided + reason] += k.g[undecided + Y_LOSS] - before
        k.g[undecided + Y_LOSS] = before
    forget_watches(k, reason, False)
    forget_planes(k)
    k.g[G_LOST] = 1
    k.g[G_U] = 0
    k.g[G_N] = 0
    k.g[G_N_FULL] = 0
    for t in range(k.g[G_THREADS]):
        k.T[t, T_STATE] = STATE_UNKNOWN
        k.T[t, T_COUNTED] = 0
    for p in range(k.g[G_THREADS]):
        k.T[p, P_OPEN] = 0
        k.T[p, P_BORN] = 0
        k.T[p, P_IOAS_BORN] = 0
        k.T[p, P_LAST_RETURN] = NULL
        k.T[p, P_LAST_MAP_RETURN] = NULL
    k.g[G_LOSS_UNTIL] = max(k.g[G_LOSS_UNTIL], until)


@jit
def run_or_exit(k: Any, thread: int, ts: int, seq: int, rule: int) -> None:
    """Rule 2: the thread enters the guest, or ends; its conversions and requests are over."""
    if k.T[thread, T_OPEN_WATCHES]:
        proc = process_of(k, thread)
        far, ever = 1 << 52, 1 << 62
        for s in range(k.g[G_SPACES]):
            if k.S[s, S_KIND] == SPACE_CONTAINER and k.S[s, S_PROC] == proc:
                settle_returned(k, proc, s, 0, far, seq)
        end_candidates(k, 101, proc, -1, thread, -1, 0, far, ever, True, thread, rule, seq)
        end_candidates(k, 102, proc, -1, thread, -1, 0, far, ever, True, thread, rule, seq)
        end_missing(k, proc, -1, thread, thread, 0, far, ever, rule, seq)
    enters_guest(k, thread, ts, seq)


@jit
def in_the_hole(k: Any, b: Any, i: int, thread: int, ev: int) -> None:
    """Where events are missing only who is who is learnt from those that are there."""
    proc = process_of(k, thread)
    if ev == EV_FORK:
        k.T[b[B_ID, i], T_PROC] = proc
    elif ev == EV_CLOSE:
        descriptor_gone(k, proc, b[B_FD, i])
    elif ev == EV_MUNMAP and sane(b[B_VADDR, i], b[B_SIZE, i]):
        unrelate(k, proc, b[B_VADDR, i], b[B_SIZE, i])


@jit
def unmapped_in(k: Any, b: Any, i: int, space: int, p0: int, p1: int) -> bool:
    """An unmap in no call, of what is translated in this container; False if nothing is."""
    some, _ = apply_map(k, space, p0, p1, X_NONE, 0)
    if not some & M_I:
        return False
    proc = k.S[space, S_PROC]
    notice_gap(k, proc, b[B_TS, i])
    some, _ = apply_map(k, space, p0, p1, X_UNMAP_EVENT, 0)
    if some & M_WATCHED:
        unmapped(k, k.T[proc, P_LAST_GAP], space, p0, p1, b[B_TS, i], b[B_SEQ, i])
    return True


@jit
def unmapped_by_nobody(k: Any, b: Any, i: int, p0: int, p1: int) -> None:
    """An unmap by a thread of no process that has a container.

    The last thread of a process closes its files, and that may be one that the kernel made without
    telling (vhost_task_create()).  So it is of a process whose known threads have all ended; which
    of several, nobody can say.
    """
    found, several = -1, False
    for s in range(k.g[G_SPACES]):
        proc = k.S[s, S_PROC]
        if k.S[s, S_KIND] != SPACE_CONTAINER or proc < 0 or not has_ended(k, proc):
            continue
        some, _ = apply_map(k, s, p0, p1, X_NONE, 0)
        if some & M_I:
            several = several or (found >= 0 and k.S[found, S_PROC] != proc)
            found = s
    if found < 0:
        return
    owner = k.S[found, S_PROC]
    for s in range(k.g[G_SPACES]):
        proc = k.S[s, S_PROC]
        if k.S[s, S_KIND] != SPACE_CONTAINER or proc < 0 or not has_ended(k, proc):
            continue
        if several:
            forget_range(k, proc, s, p0, p1)
        elif proc == owner and unmapped_in(k, b, i, s, p0, p1):
            k.T[proc, P_LAST_UNMAP] = b[B_TS, i]


@jit
def judge_exit(k: Any, proc: int, ts: int) -> None:
    """TK109: the process ended, and its teardown has had the grace to unmap what it had mapped."""
    p = k.T[proc]
    if p[P_EXIT] == NULL or p[P_LEAK_DONE]:
        return
    p[P_LEAK_DONE] = 1
    for s in range(k.g[G_SPACES]):
        if k.S[s, S_KIND] != SPACE_CONTAINER or k.S[s, S_PROC] != proc:
            continue
        if not k.g[C_HAS_UNMAP] or not k.g[C_HAS_MAP]:
            tally(k, J_109, Y_NO_UNMAP)
        elif not live_anywhere(k, s, M_I):
            none_left(k, s)
        elif ts - max(p[P_EXIT], p[P_LAST_UNMAP]) <= k.g[C_GRACE]:
            tally(k, J_109, Y_END)
        else:
            leaked(k, s, proc, p[P_EXIT], -1, WARNING, LIKELY)


@jit
def process_exited(k: Any, proc: int, ts: int) -> None:
    """The process ended, unless a thread of it is known to live (then a forked child did)."""
    if not has_ended(k, proc):
        return
    k.T[proc, P_EXIT] = ts
    k.T[proc, P_LAST_UNMAP] = ts
    for s in range(k.g[G_SPACES]):
        if k.S[s, S_PROC] == proc:
            k.S[s, S_DEAD] = 1


@jit
def new_program(k: Any, thread: int) -> None:
    """exec: the thread is a process of its own, and nothing is left of what its number stood
    for."""
    judge_exit(k, thread, k.g[G_LAST_TS])
    for s in range(k.g[G_SPACES]):
        if k.S[s, S_PROC] == thread:
            k.S[s, S_PROC] = -1
            k.S[s, S_DEAD] = 1
    r = 0
    while r < k.g[G_R]:
        if k.S[r, R_PROC] == thread:
            k.g[G_R] -= 1
            for c in range(R_PROC, R_END):
                k.S[r, c] = k.S[k.g[G_R], c]
        else:
            r += 1
    k.T[thread, T_PROC] = thread
    k.T[thread, T_EXITED] = 0
    p = k.T[thread]
    p[P_PARENT:P_END] = 0
    p[P_PARENT] = thread
    p[P_FRESH] = 1
    p[P_LAST_RETURN] = NULL
    p[P_LAST_GAP] = NULL
    p[P_EXIT] = NULL
    p[P_LAST_MAP_RETURN] = NULL
