"""Backing thrown away or populated again: rule 1, and TK102."""

from __future__ import annotations

from typing import Any

from tracekit.compiled.kernels import jit

from .conversions import settle_returned
from .identity import process_of
from .in_hand import discarded_in_hand
from .layout import *
from .meanwhile import mapped_meanwhile
from .planes import apply_map, mark_live, tally
from .searches import next_with, next_without
from .watches import (
    candidate,
    end_candidates,
    known_mask,
    live_mask,
    make_way,
    next_under_way,
    unwatched,
)


@jit
def watch_request(
    k: Any, thread: int, proc: int, space: int, a: int, b: int, delta: int, ts: int, seq: int
) -> None:
    """TK102's candidates among the pages [a, b), which nothing watches yet: one row of them."""
    count, lo, hi = mark_live(k, space, a, b, live_mask(k), delta, M_W102, M_W102)
    other = next_under_way(k, thread, proc, space, OP_UNMAP, -1)
    while other >= 0:  # what is just being unmapped may still be there
        x0, x1 = k.T[other, T_ADDR] >> 12, (k.T[other, T_ADDR] + k.T[other, T_SIZE]) >> 12
        n, x, y = mark_live(k, space, max(a, x0), min(b, x1), M_E, delta, M_W102, M_W102)
        if n:
            count, lo, hi = count + n, min(lo, x), max(hi, y)
        other = next_under_way(k, thread, proc, space, OP_UNMAP, other)
    if count:
        t = k.T[thread]
        w = k.W[candidate(k, 102, proc, space, thread, lo, hi, count)]
        w[W_FROM] = t[T_ENTER]
        w[W_CREATED] = ts
        w[W_SEQ0] = t[T_ENTER_SEQ]
        w[W_SEQ1] = seq
        w[W_GROUP] = k.g[G_GROUP]
        w[W_VM] = -1


@jit
def backing_range(
    k: Any, thread: int, what: int, kind: int, fd: int, lo: int, hi: int, ts: int, seq: int
) -> int:
    """A range of addresses (kind 0) or of a file (kind 1), as the DMA entries that it backs.

    ``what`` 0: a discard of it was entered (rule 1); 1: it succeeded (TK102's candidates); 2: it is
    populated again.  Returns 0 if no entry has such a backing, 1 if all of it could be told, 2 if
    not.
    """
    proc = process_of(k, thread)
    known_bit = known_mask(k)
    answer = 0
    for d in range(1, k.g[G_D]):
        row = k.S[d]
        if row[D_PROC] != proc or row[D_KIND] != kind or (kind == 1 and row[D_FD] != fd):
            continue
        a, b = lo - row[D_DELTA], hi - row[D_DELTA]
        p0, p1 = (max(a, 0) + 4095) >> 12, b >> 12
        p1 = min(p1, p0 + (MAX_CHUNKS << CHUNK_BITS))
        if p1 <= p0:
            continue
        for s in range(k.g[G_SPACES]):
            if k.S[s, S_KIND] != SPACE_CONTAINER or k.S[s, S_PROC] != proc:
                continue
            if what == 1:
                if p1 - p0 <= CHUNK:
                    _, every = apply_map(k, s, p0, p1, X_NONE, 0)
                    answer = max(answer, 1 if every & known_bit else 2)
                else:
                    answer = max(answer, 1)
                if k.g[G_ACTIVE]:
                    make_way(k, 102, s, p0, p1)
                x, y = unwatched(k, 102, s, p0, p1)
                while x < y:
                    # what another thread mapped meanwhile came before or after: nobody can tell
                    late, y = mapped_meanwhile(k, thread, s, x, y)
                    if not late:
                        watch_request(k, thread, proc, s, x, y, d, ts, seq)
                    x, y = unwatched(k, 102, s, y, p1)
                continue
            bit = M_W101 if what == 0 else M_W102
            mask = bit | M_DELTA
            value = bit | (d << M_DELTA_SHIFT)
            if not k.g[G_ACTIVE]:
                continue
            settle_returned(k, proc, s, p0, p1, seq)
            p = next_with(k, s, p0, p1, mask, value)
            while p < p1:
                q = next_without(k, s, p, p1, mask, value)
                end_candidates(
                    k, 101 if what == 0 else 102, proc, s, -1, -1, p, q, 1 << 62,
                    True, thread, R_DISCARD if what == 0 else R_POPULATE, seq,
                )  # fmt: skip
                p = next_with(k, s, q, p1, mask, value)
    return answer


@jit
def begins_somewhere(addr: int, size: int) -> bool:
    """True for a range that has a beginning; its end may be anywhere, as in a hole to the end."""
    return 0 <= addr <= (1 << 60) and size > 0


@jit
def each_backing(k: Any, thread: int, what: int, ts: int, seq: int) -> int:
    """The thread's discard or populate, through every relation that leads to DMA entries."""
    t = k.T[thread]
    if t[T_CALL] == EV_MADVISE:
        if not begins_somewhere(t[T_VADDR], t[T_SIZE]):
            return 1
        hi = t[T_VADDR] + min(t[T_SIZE], 1 << 60)
        return backing_range(k, thread, what, 0, -1, t[T_VADDR], hi, ts, seq)
    if not begins_somewhere(t[T_OFFSET], t[T_SIZE]):
        return 1
    lo, hi = t[T_OFFSET], t[T_OFFSET] + min(t[T_SIZE], 1 << 60)
    proc = process_of(k, thread)
    answer = backing_range(k, thread, what, 1, t[T_FD], lo, hi, ts, seq)
    for r in range(k.g[G_R]):
        row = k.S[r]
        if row[R_PROC] != proc or row[R_FD] != t[T_FD]:
            continue
        a, b = max(lo, row[R_OFFSET]), min(hi, row[R_OFFSET] + row[R_SIZE])
        if a < b:
            shift = row[R_VADDR] - row[R_OFFSET]
            answer = max(
                answer, backing_range(k, thread, what, 0, -1, a + shift, b + shift, ts, seq)
            )
        elif answer == 0:
            answer = 3  # the file is known, this part of it is not mapped by the process
    return answer


@jit
def discard_entered(k: Any, thread: int, ts: int, seq: int) -> None:
    """Rule 1: a discard of its shared backing ends a conversion."""
    if k.g[G_ACTIVE]:
        each_backing(k, thread, 0, ts, seq)


@jit
def begin_backing(k: Any, thread: int, op: int, ts: int, seq: int) -> None:
    """A discard or a populate of shared backing was entered."""
    if op == OP_DISCARD:
        discard_entered(k, thread, ts, seq)
    elif op == OP_POPULATE and k.g[G_ACTIVE]:
        each_backing(k, thread, 2, ts, seq)  # TK102: the discarded range is populated again


@jit
def discard_done(k: Any, thread: int, ret: int, ts: int, seq: int) -> None:
    """A discard returned: live mappings of what it threw away are TK102's candidates."""
    t = k.T[thread]
    if ret < 0:
        return
    discarded_in_hand(k, thread, ts, seq)
    if t[T_GMEM]:
        return
    proc = process_of(k, thread)
    containers, entries = False, False
    for s in range(k.g[G_SPACES]):
        if k.S[s, S_KIND] == SPACE_CONTAINER and k.S[s, S_PROC] == proc:
            containers = True
            entries = entries or k.S[s, S_ENTRIES] != 0
    if not containers:
        return
    if not entries:
        tally(k, J_102, Y_DECIDED)  # nothing is mapped
        return
    if k.g[G_N_FULL]:
        tally(k, J_102, Y_LATE)  # what was mapped meanwhile, and where, nobody can tell
        return
    k.g[G_GROUP] += 1
    answer = each_backing(k, thread, 1, ts, seq)
    if answer == 1:
        tally(k, J_102, Y_DECIDED)
    elif answer == 2:
        tally(k, J_102, Y_LATE)
    elif answer == 0 and t[T_CALL] == EV_FALLOCATE:
        tally(k, J_102, Y_BACKING)
