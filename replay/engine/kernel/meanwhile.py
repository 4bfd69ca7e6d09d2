"""What threads did while a call of another thread of their process was under way.

A map is compared with the changes of attributes that it overlaps (TK103), and a discard with the
maps (TK102).  A row is kept while such a call is open that was entered before.
"""

from __future__ import annotations

from typing import Any

from tracekit.compiled.kernels import jit

from .identity import process_of
from .layout import *

__all__ = ("forget_meanwhile", "last_change", "mapped_meanwhile", "remember_meanwhile")


@jit
def awaited(k: Any, thread: int, op: int, seq: int) -> bool:
    """Is a call of another thread of the process open that was entered before event ``seq``, and
    that has to know what the thread did by ``op``?"""
    proc = process_of(k, thread)
    for other in range(k.g[G_THREADS]):
        t = k.T[other]
        if other == thread or t[T_STATE] != STATE_FRAME or t[T_ENTER_SEQ] >= seq:
            continue
        waits = (
            t[T_OP] == OP_MAP or t[T_OP] == OP_MAP_FILE
            if op == OP_ATTR
            else (t[T_OP] == OP_DISCARD)
        )
        if waits and process_of(k, other) == proc:
            return True
    return False


@jit
def remember_meanwhile(
    k: Any, thread: int, op: int, space: int, p0: int, p1: int, began: int, ended: int, seq: int
) -> None:
    """The thread has changed attributes (OP_ATTR), or mapped (OP_MAP), as event ``seq`` shows."""
    if seq < 0:  # the trace ends: whatever is open was entered before
        seq = (1 << 62) + k.g[G_N]
    if k.T[process_of(k, thread), P_OPEN] < 2 or not awaited(k, thread, op, seq):
        return
    if k.g[G_N] >= min(MOST_MEANWHILE, k.S.shape[0]):
        k.g[G_N_FULL] = 1
        return
    row = k.S[k.g[G_N]]
    row[N_OP] = op
    row[N_THREAD] = thread
    row[N_SPACE] = space
    row[N_P0] = p0
    row[N_P1] = p1
    row[N_BEGAN] = began
    row[N_ENDED] = ended
    row[N_SEQ] = seq
    k.g[G_N] += 1


@jit
def forget_meanwhile(k: Any) -> None:
    """A map or a discard is over: what no other one waits for is forgotten."""
    i = 0
    while i < k.g[G_N]:
        row = k.S[i]
        if awaited(k, row[N_THREAD], row[N_OP], row[N_SEQ]):
            i += 1
            continue
        k.g[G_N] -= 1
        for c in range(N_OP, TABLE_COLS):
            row[c] = k.S[k.g[G_N], c]
    if k.g[G_N] == 0:
        k.g[G_N_FULL] = 0


@jit
def overlaps(k: Any, i: int, thread: int, op: int) -> bool:
    """Was this done by another thread while the thread's open call was under way?"""
    row = k.S[i]
    return (
        row[N_OP] == op
        and row[N_THREAD] != thread
        and row[N_SEQ] > k.T[thread, T_ENTER_SEQ]
        and process_of(k, row[N_THREAD]) == process_of(k, thread)
    )


@jit
def mapped_meanwhile(k: Any, thread: int, space: int, p: int, end: int) -> tuple[bool, int]:
    """Was page ``p`` mapped during the thread's open discard, and up to which page is the answer
    the same?"""
    for i in range(k.g[G_N]):
        row = k.S[i]
        if row[N_SPACE] != space or not overlaps(k, i, thread, OP_MAP):
            continue
        if row[N_P0] <= p < row[N_P1]:
            return True, min(end, row[N_P1])
        if p < row[N_P0]:
            end = min(end, row[N_P0])
    return False, end


@jit
def last_change(k: Any, thread: int, begins: int, p: int, end: int) -> tuple[int, int]:
    """The change of page ``p``, during the thread's open map and not over at ``begins``, that took
    effect last: its row, -1 if there is none; and up to which page the answer is the same."""
    found, seq = -1, -1
    for i in range(k.g[G_N]):
        row = k.S[i]
        if row[N_ENDED] < begins or not overlaps(k, i, thread, OP_ATTR):
            continue
        if row[N_P0] <= p < row[N_P1]:
            end = min(end, row[N_P1])
            if row[N_SEQ] > seq:
                found, seq = i, row[N_SEQ]
        elif p < row[N_P0]:
            end = min(end, row[N_P0])
    return found, end
