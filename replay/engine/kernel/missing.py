"""TK104: what became shared and was not mapped."""

from __future__ import annotations

from typing import Any

from tracekit.compiled.kernels import jit

from .identity import process_of
from .layout import *
from .planes import apply_map, both, dense_map, put_map, sane, spans, wide
from .searches import next_with, next_without
from .slots import live_vms, slot_over
from .watches import close_part, drop_at, drop_row, end_candidates, put_out, set_remaining


@jit
def mark_missing(
    k: Any, vm: int, space: int, a: int, b: int, unknown_too: bool, held: int, delta: int
) -> tuple[int, int, int, bool]:
    """Mark the pages of [a, b) that are private (or unknown) and known not to be mapped.

    ``held``: the bits of which any says that a page is mapped.  How many, the first and the one
    after the last; and whether every page's mapping was known.
    """
    has_map = k.g[C_HAS_MAP] != 0
    known = M_KE | M_KI if has_map else M_KE
    count, lo, hi, told = 0, b, a, True
    p = a
    while p < b:
        d, v, ad, x, e = both(k, space, vm, p, b)
        if d < 0 and (v & (held | M_W104) or (delta >= 0 and (v >> M_DELTA_SHIFT) != delta)):
            p = e
            continue
        if ad < 0 and x & (A_K | A_P) == A_K:
            p = e
            continue
        if d < 0 and ad < 0:
            if v & known != known or (not x & A_K and not unknown_too):
                told = False
            else:
                put_map(k, space, p, e, v | M_W104)
                count += e - p
                lo = min(lo, p)
                hi = e
            p = e
            continue
        for i in range(p, e):
            if d >= 0:
                v = wide(k.mm[d, i & (PART - 1)])
            if v & (held | M_W104) or (delta >= 0 and (v >> M_DELTA_SHIFT) != delta):
                continue
            if ad >= 0:
                x = wide(k.am[ad, i & (PART - 1)])
            if x & (A_K | A_P) == A_K:
                continue
            if v & known != known or (not x & A_K and not unknown_too):
                told = False
                continue
            if d < 0:
                d = dense_map(k, space, p)
            k.mm[d, i & (PART - 1)] = v | M_W104
            count += 1
            lo = min(lo, i)
            hi = i + 1
        p = e
    return count, lo, hi, told


@jit
def mapped(k: Any, gap: int, space: int, a: int, b: int, ts: int, seq: int, first_seq: int) -> None:
    """Pages of [a, b) were mapped by a call that returned at ``ts``: they are missing no more.

    ``gap``: when rule 4 last held before.
    ``first_seq``: the call's first iommu:map; -1 if there was none.
    """
    i = 0
    top = k.g[G_ACTIVE]
    while i < top:
        row = k.W[i, ACTIVE]
        w = k.W[row]
        if w[W_KIND] != 104 or w[W_SPACE] != space or w[W_P0] >= b or a >= w[W_P1]:
            i += 1
            continue
        lo, hi = max(a, w[W_P0]), min(b, w[W_P1])
        if w[W_STATE] == W_CANDIDATE:
            over = w[W_CREATED] <= gap
            taken = 0
            p = next_with(k, space, lo, hi, M_W104, M_W104)
            while p < hi:
                q = next_without(k, space, p, hi, M_W104, M_W104)
                if over:
                    late(k, row, p, q, ts, seq)
                apply_map(k, space, p, q, X_CLEAR, M_W104)
                taken += q - p
                p = next_with(k, space, q, hi, M_W104, M_W104)
            set_remaining(k, row, w[W_REM] - taken)
            if w[W_REM] == 0:
                drop_at(k, i, top)
                top -= 1
                continue
            i += 1
            continue
        if first_seq > w[W_SEQ2] and w[W_CONF] == POSSIBLE:
            w[W_CONF] = CERTAIN  # it was under way, but began to map when all was over
            w[W_SEV] = ERROR
        gone = False
        p = next_with(k, space, max(lo, w[W_LO]), min(hi, w[W_HI]), M_W104, M_W104)
        while p < min(hi, w[W_HI]):
            q = next_without(k, space, p, min(hi, w[W_HI]), M_W104, M_W104)
            gone = close_part(k, row, p, q, ts, seq)
            if gone:
                break
            p = next_with(k, space, q, min(hi, w[W_HI]), M_W104, M_W104)
        if gone:
            drop_at(k, i, top)
            top -= 1
            continue
        i += 1


@jit
def late(k: Any, row: int, p: int, q: int, ts: int, seq: int) -> None:
    """The candidate's pages [p, q) were mapped after the conversion was provisionally over."""
    space = k.W[row, W_SPACE]
    full = covers_in_full(k, row)
    while p < q:
        e = q
        if not full:
            p = next_with(k, space, p, q, M_C, M_C)
            if p >= q:
                return
            e = next_without(k, space, p, q, M_C, M_C)
        o = k.g[G_OUT]
        put_out(k, row, p, e)
        k.W[o, OUT0 + W_CONF] = LIKELY
        k.W[o, OUT0 + W_SEV] = WARNING
        k.W[o, OUT0 + W_RULE] = R_GRACE
        k.W[o, OUT0 + W_UNTIL] = ts
        k.W[o, OUT0 + W_SEQ3] = seq
        p = e


@jit
def covers_in_full(k: Any, row: int) -> bool:
    """Does the container hold all shared pages of the candidate's slot, but for what is missing?"""
    w = k.W[row]
    vm, space = w[W_VM], w[W_SPACE]
    slot = slot_over(k, vm, w[W_LO], w[W_HI])
    if live_vms(k, w[W_PROC]) > 1:
        return False
    if slot < 0 or spans(k.S[slot, L_GPA], k.S[slot, L_SIZE]) >= MAX_CHUNKS:
        return False
    p = k.S[slot, L_GPA] >> 12
    end = (k.S[slot, L_GPA] + k.S[slot, L_SIZE]) >> 12
    some = False
    while p < end:
        d, v, ad, x, e = both(k, space, vm, p, end)
        if ad < 0 and x & (A_K | A_P) != A_K:
            p = e
            continue
        if ad < 0 and d < 0 and (e <= w[W_LO] or w[W_HI] <= p):
            if v & (M_E | M_I):
                some = True
            elif not v & M_W104:
                return False
            p = e
            continue
        for i in range(p, e):
            if w[W_LO] <= i < w[W_HI]:
                continue
            if ad >= 0:
                x = wide(k.am[ad, i & (PART - 1)])
            if x & (A_K | A_P) != A_K:
                continue
            if d >= 0:
                v = wide(k.mm[d, i & (PART - 1)])
            if v & (M_E | M_I):
                some = True
            elif not v & M_W104:
                return False
        p = e
    return some


@jit
def drop_uncovered(k: Any, row: int, a: int, b: int) -> None:
    """Take the candidate's pages of [a, b) out that the container had no duty to.

    Whether it covers them in full stands in the row.
    """
    if k.W[row, W_ERRNO]:
        return
    w = k.W[row]
    space = w[W_SPACE]
    taken = 0
    p = next_with(k, space, a, b, M_W104 | M_C, M_W104)
    while p < b:
        q = next_without(k, space, p, b, M_W104 | M_C, M_W104)
        apply_map(k, space, p, q, X_CLEAR, M_W104)
        taken += q - p
        p = next_with(k, space, q, b, M_W104 | M_C, M_W104)
    set_remaining(k, row, w[W_REM] - taken)


@jit
def drop_all_uncovered(k: Any) -> None:
    """The trace ends: what is left of the candidates is what the containers had a duty to."""
    i = 0
    for j in range(k.g[G_ACTIVE]):
        row = k.W[j, ACTIVE]
        if k.W[row, W_KIND] == 104 and k.W[row, W_STATE] == W_CANDIDATE:
            k.W[row, W_ERRNO] = covers_in_full(k, row)
    while i < k.g[G_ACTIVE]:
        row = k.W[i, ACTIVE]
        w = k.W[row]
        if w[W_KIND] == 104 and w[W_STATE] == W_CANDIDATE:
            if w[W_CREATED] <= k.T[w[W_PROC], P_LAST_GAP]:
                drop_uncovered(k, row, w[W_P0], w[W_P1])
                if w[W_REM] == 0:
                    drop_row(k, i)
                    continue
        i += 1


@jit
def drop_dead(k: Any, proc: int) -> None:
    """Drop what was waited for in containers of the process that are gone."""
    if not k.g[G_ACTIVE]:
        return
    for s in range(k.g[G_SPACES]):
        row = k.S[s]
        if row[S_PROC] == proc and row[S_KIND] == SPACE_CONTAINER and row[S_DEAD]:
            end_candidates(k, 104, proc, s, -1, -1, 0, 1 << 52, 1 << 62, False, -1, 0, -1)


@jit
def settle_maps(k: Any, proc: int, seq: int) -> None:
    """Settle what maps put in whose callee has returned, though their exits were not seen."""
    if not k.g[G_ACTIVE]:
        return
    for other in range(k.g[G_THREADS]):
        t = k.T[other]
        if t[T_STATE] != STATE_FRAME or (t[T_OP] != OP_MAP and t[T_OP] != OP_MAP_FILE):
            continue
        if t[T_RET] == NULL or t[T_RET] < 0 or t[T_SPACE] < 0 or process_of(k, other) != proc:
            continue
        if t[T_RANK] > 1 and sane(t[T_ADDR], t[T_SIZE]):
            p0, p1 = t[T_ADDR] >> 12, (t[T_ADDR] + t[T_SIZE]) >> 12
            mapped(k, t[T_RET_GAP], t[T_SPACE], p0, p1, t[T_RET_TS], seq, t[T_FIRST_MAP_SEQ])


@jit
def end_missing(
    k: Any,
    proc: int,
    vm: int,
    thread: int,
    by: int,
    a: int,
    b: int,
    before: int,
    rule: int,
    seq: int,
) -> None:
    """Rules 2 and 3: what the conversions of ``thread`` (-1: any) left unmapped is a violation.

    ``vm`` -1: any VM.  ``by``: the thread that ends them, whose own calls are none under way.
    """
    settle_maps(k, proc, seq)
    for j in range(k.g[G_ACTIVE]):
        row = k.W[j, ACTIVE]
        w = k.W[row]
        if w[W_KIND] == 104 and w[W_STATE] == W_CANDIDATE and w[W_PROC] == proc:
            w[W_ERRNO] = covers_in_full(k, row)
    i = 0
    while i < k.g[G_ACTIVE]:
        row = k.W[i, ACTIVE]
        w = k.W[row]
        if (
            w[W_STATE] == W_CANDIDATE
            and w[W_KIND] == 104
            and w[W_PROC] == proc
            and (thread < 0 or w[W_THREAD] == thread)
            and (vm < 0 or w[W_VM] == vm)
            and w[W_P0] < b
            and a < w[W_P1]
            and w[W_SEQ0] < before
        ):
            drop_uncovered(k, row, max(a, w[W_P0]), min(b, w[W_P1]))
            if w[W_REM] == 0:
                drop_row(k, i)
                continue
        i += 1
    end_candidates(k, 104, proc, -1, thread, vm, a, b, before, True, by, rule, seq)


@jit
def shared_no_more(k: Any, proc: int, vm: int, a: int, b: int, ts: int, seq: int) -> None:
    """The pages [a, b) became private at ``ts``: no mapping of them is missing any more."""
    i = 0
    top = k.g[G_ACTIVE]
    while i < top:
        row = k.W[i, ACTIVE]
        w = k.W[row]
        if (
            w[W_KIND] == 104
            and w[W_STATE] == W_FLAGGED
            and w[W_PROC] == proc
            and (vm < 0 or w[W_VM] == vm)
            and w[W_LO] < b
            and a < w[W_HI]
        ):
            if close_part(k, row, max(a, w[W_LO]), min(b, w[W_HI]), ts, seq):
                drop_at(k, i, top)
                top -= 1
                continue
        i += 1
