"""A change of memory attributes: candidates of TK101 and TK104, TK103's end, TK202."""

from __future__ import annotations

from typing import Any

from tracekit.compiled.kernels import jit

from .identity import process_of
from .in_hand import END_NOW, end_in_hand, in_conversion, meet_in_hand, take_in_hand
from .layout import *
from .meanwhile import remember_meanwhile
from .missing import end_missing, mark_missing, settle_maps, shared_no_more
from .planes import apply_map, forget_attributes_of, mark_stale, sane, set_attr, spans, tally
from .relations import address_backing
from .slots import forget_unmaps, live_vms, slots_known, unmapped_for, unmapped_until
from .watches import (
    candidate,
    end_candidates,
    end_premature,
    give_up,
    in_flight,
    known_mask,
    live_mask,
    make_way,
    next_under_way,
    record,
    unmapped,
    unwatched,
)


@jit
def valid(addr: int, size: int) -> bool:
    """True for a range of whole pages that exists on some machine."""
    return sane(addr, size) and (addr | size) & 4095 == 0 and spans(addr, size) < MAX_CHUNKS


@jit
def settle_returned(k: Any, proc: int, space: int, p0: int, p1: int, seq: int) -> None:
    """Settle what an unmap took out whose callee has returned, though its exit has not been seen.

    Another thread is about to do something to these pages; the unmap came before it.
    """
    for other in range(k.g[G_THREADS]):
        t = k.T[other]
        if t[T_STATE] != STATE_FRAME or t[T_OP] != OP_UNMAP or t[T_RET] == NULL or t[T_RET] < 0:
            continue
        if process_of(k, other) == proc:
            unmapped(k, t[T_RET_GAP], space, p0, p1, t[T_RET_TS], seq)


@jit
def attribute_change(k: Any, thread: int, vm: int, ret: int, ts: int, seq: int) -> None:
    """KVM_SET_MEMORY_ATTRIBUTES returned.  Rule 3, TK101's candidates, TK103's end, TK202."""
    t = k.T[thread]
    proc = process_of(k, thread)
    addr, size, attr = t[T_ADDR], t[T_SIZE], t[T_ATTR]
    known = t[T_RANK] == 3
    if not known and t[T_TP_ADDR] != NULL:
        addr, size, attr = t[T_TP_ADDR], t[T_TP_SIZE], t[T_TP_ATTR]
        known = True
    if ret < 0:
        tally(k, J_202, Y_DECIDED)
        if ret == -22:
            record(
                k, 202, WARNING, CERTAIN, proc, vm, thread, addr, size,
                t[T_ENTER], ts, t[T_ENTER_SEQ], seq, 22,
            )  # fmt: skip
        refused(k, thread, vm, addr, size, attr, known, ret, ts)
        return
    if not known or attr == NULL:
        k.g[N_ATTR_UNKNOWN] += 1
        tally(k, J_101, Y_UNKNOWN_ARGS)
        tally(k, J_111, Y_UNKNOWN_ARGS)
        tally(k, J_104, Y_UNKNOWN_ARGS)
        tally(k, J_108, Y_UNKNOWN_ARGS)
        tally(k, J_202, Y_UNKNOWN_ARGS)
        end_in_hand(k, thread, t[T_ENTER], t[T_ENTER_SEQ], END_NOW)
        forget_unmaps(k, thread)
        forget_attributes_of(k, vm)
        return
    tally(k, J_202, Y_DECIDED)
    tally(k, J_108, Y_DECIDED)
    if not valid(addr, size):
        record(
            k, 202, ERROR, CERTAIN, proc, vm, thread, addr, size,
            t[T_ENTER], ts, t[T_ENTER_SEQ], seq, 0,
        )  # fmt: skip
        end_in_hand(k, thread, t[T_ENTER], t[T_ENTER_SEQ], END_NOW)
        forget_unmaps(k, thread)
        forget_attributes_of(k, vm)
        return
    if k.T[proc, P_GMEM_ATTR]:
        # what is private is not up to this call any more, or not to it alone
        k.g[J0 + J_108 * Y_COLS + Y_DECIDED] -= 1
        tally(k, J_108, Y_GMEM)
        tally(k, J_101, Y_GMEM)
        tally(k, J_111, Y_GMEM)
        tally(k, J_104, Y_GMEM)
        end_in_hand(k, thread, t[T_ENTER], t[T_ENTER_SEQ], END_NOW)
        forget_unmaps(k, thread)
        return
    p0, p1 = addr >> 12, (addr + size) >> 12
    private = attr & 8 != 0
    commit = t[T_COMMIT] if t[T_COMMIT] != NULL else ts
    commit_seq = t[T_COMMIT_SEQ] if t[T_COMMIT] != NULL else seq
    real = not k.g[C_HAS_POST] or t[T_COMMIT] != NULL
    several = live_vms(k, proc) > 1
    only = vm if several else -1
    before = t[T_ENTER_SEQ]
    if k.g[G_ACTIVE]:
        for s in range(k.g[G_SPACES]):
            if k.S[s, S_KIND] == SPACE_CONTAINER and k.S[s, S_PROC] == proc:
                settle_returned(k, proc, s, p0, p1, before)
        if private:
            settle_maps(k, proc, before)
        own = 104 if private else 101
        end_candidates(k, own, proc, -1, thread, only, p0, p1, before, False, thread, 0, -1)
        end_candidates(k, 101, proc, -1, -1, only, p0, p1, before, True, thread, R_ATTR, before)
        end_missing(k, proc, only, -1, thread, p0, p1, before, R_ATTR, before)
        if private:
            shared_no_more(k, proc, only, p0, p1, commit, commit_seq)
        else:
            if not several:
                for s in range(k.g[G_SPACES]):
                    if k.S[s, S_KIND] == SPACE_CONTAINER and not k.S[s, S_VIOMMU]:
                        end_candidates(
                            k, 102, proc, s, -1, -1, p0, p1, before, True, thread, R_ATTR, before
                        )
            end_premature(k, proc, only, p0, p1, commit, commit_seq)
    met = meet_in_hand(k, thread, vm, private, p0, p1, t[T_ENTER])
    k.g[G_GROUP] += 1
    code = J_101 if private else J_104
    total, told, containers, behind = 0, True, 0, 0
    for s in range(k.g[G_SPACES]):
        if k.S[s, S_KIND] != SPACE_CONTAINER or k.S[s, S_PROC] != proc:
            continue
        if not private and k.S[s, S_DEAD]:
            continue
        containers += 1
        if k.S[s, S_VIOMMU]:
            behind += 1
            continue
        if private:
            uncover(k, thread, s, p0, p1)
        if not real:
            continue
        if met == 1:
            # the pages of the broken conversion are TK108's
            n, sure = watch(
                k, thread, vm, s, private, several, p0, min(p1, t[T_CV_LO]), commit, commit_seq, ts
            )
            m, also = watch(
                k, thread, vm, s, private, several, max(p0, t[T_CV_HI]), p1, commit, commit_seq, ts
            )
            total += n + m
            told = told and sure and also
        else:
            n, sure = watch(k, thread, vm, s, private, several, p0, p1, commit, commit_seq, ts)
            total += n
            told = told and sure
    if containers == 0 and not k.T[proc, P_BORN]:
        told = False
    reason = Y_LATE
    if several and not slots_known(k, vm):
        reason = Y_SEVERAL
    elif behind and behind == containers:
        reason = Y_VIOMMU
    elif total or told:
        reason = Y_DECIDED
    tally(k, code, reason)
    if private:
        tally(k, J_111, reason)
    set_attr(k, vm, p0, p1, A_K | A_P if private else A_K)
    if met == 0:
        take_in_hand(k, thread, vm, CV_PRIVATE if private else CV_SHARED, p0, p1, commit, ts)
        t[T_CV_DISCARDED] = not real  # it made nothing private, so there is nothing to discard
    forget_unmaps(k, thread)
    if not real:
        return
    began = t[T_COMMIT] if t[T_COMMIT] != NULL else t[T_ENTER]
    ended = t[T_RET_TS] if t[T_RET] != NULL else ts
    remember_meanwhile(k, thread, OP_ATTR, vm, p0, p1, began, ended, seq)


@jit
def refused(
    k: Any, thread: int, vm: int, addr: int, size: int, attr: int, known: bool, ret: int, ts: int
) -> None:
    """The change was refused: what the thread had unmapped for it is to be mapped again (TK108)."""
    t = k.T[thread]
    proc = process_of(k, thread)
    if known:
        tally(k, J_108, Y_GMEM if k.T[proc, P_GMEM_ATTR] else Y_DECIDED)
    again = known and attr != NULL and attr & 8 != 0 and valid(addr, size)
    again = again and not k.T[proc, P_GMEM_ATTR]
    p0, p1 = addr >> 12, (addr + size) >> 12
    in_vain = again and t[T_CV_VM] == vm and in_conversion(k, thread, CV_REFUSED, p0, p1)
    if not in_vain:
        end_in_hand(k, thread, t[T_ENTER], t[T_ENTER_SEQ], END_NOW)
    lo, hi = unmapped_for(k, thread, p0, p1) if again else (0, 0)
    if lo < hi and in_vain:
        t[T_CV_LO], t[T_CV_HI] = min(t[T_CV_LO], lo), max(t[T_CV_HI], hi)
    elif lo < hi:
        take_in_hand(k, thread, vm, CV_REFUSED, lo, hi, t[T_ENTER], ts)
        t[T_CV_ERRNO] = -ret
        t[T_CV_FAILED] = t[T_ENTER]
        t[T_CV_FAILED_SEQ] = t[T_ENTER_SEQ]
        t[T_CV_FAILED_RET] = ts
        t[T_CV_SPACE] = -1
    else:
        forget_unmaps(k, thread)


@jit
def uncover(k: Any, thread: int, space: int, p0: int, p1: int) -> None:
    """Pages became private that nobody had mapped: the container does not follow them."""
    p = p0
    while p < p1:
        mine, q = unmapped_until(k, thread, space, p, p1)
        if not mine:
            apply_map(k, space, p, q, X_UNCOVER, 0)
        p = q


@jit
def watch(
    k: Any,
    thread: int,
    vm: int,
    space: int,
    private: bool,
    several: bool,
    p0: int,
    p1: int,
    commit: int,
    commit_seq: int,
    ts: int,
) -> tuple[int, bool]:
    """Open the container's candidates in [p0, p1); how many pages, and whether all was known."""
    total, told = 0, True
    if p0 >= p1:
        return total, told
    if not several:
        return watch_part(k, thread, vm, space, private, p0, p1, p0, p1, -1, commit, commit_seq, ts)
    proc = process_of(k, thread)
    for i in range(k.g[G_SLOTS]):
        row = k.S[i]
        if row[L_VM] != vm or row[L_VADDR] == NULL:
            continue
        a = max(p0, row[L_GPA] >> 12)
        b = min(p1, (row[L_GPA] + row[L_SIZE]) >> 12)
        delta = address_backing(k, proc, row[L_VADDR] - row[L_GPA])
        if a < b and delta > 0:
            n, sure = watch_part(
                k, thread, vm, space, private, a, b, p0, p1, delta, commit, commit_seq, ts
            )
            total += n
            told = told and sure
    return total, told


@jit
def watch_part(
    k: Any,
    thread: int,
    vm: int,
    space: int,
    private: bool,
    a: int,
    b: int,
    p0: int,
    p1: int,
    delta: int,
    commit: int,
    commit_seq: int,
    ts: int,
) -> tuple[int, bool]:
    """The same for the pages [a, b) of the conversion of [p0, p1) that have this backing.

    What an earlier conversion still watches stays its own.
    """
    kind = 101 if private else 104
    if k.g[G_ACTIVE]:
        make_way(k, kind, space, a, b)
    total, told = 0, True
    x, y = unwatched(k, kind, space, a, b)
    while x < y:
        n, sure = watch_stretch(
            k, thread, vm, space, private, x, y, p0, p1, delta, commit, commit_seq, ts
        )
        total += n
        told = told and sure
        x, y = unwatched(k, kind, space, y, b)
    return total, told


@jit
def watch_stretch(
    k: Any,
    thread: int,
    vm: int,
    space: int,
    private: bool,
    a: int,
    b: int,
    p0: int,
    p1: int,
    delta: int,
    commit: int,
    commit_seq: int,
    ts: int,
) -> tuple[int, bool]:
    """The same for the pages [a, b), which nothing watches yet: one row of them."""
    t = k.T[thread]
    proc = process_of(k, thread)
    told = True
    if private:
        count, lo, hi = mark_stale(k, vm, space, a, b, live_mask(k), delta, M_W101)
        other = next_under_way(k, thread, proc, space, OP_UNMAP, -1)
        while other >= 0:  # what is just being unmapped may still be there
            x0, x1 = k.T[other, T_ADDR] >> 12, (k.T[other, T_ADDR] + k.T[other, T_SIZE]) >> 12
            n, x, y = mark_stale(k, vm, space, max(a, x0), min(b, x1), M_E, delta, M_W101)
            if n:
                count, lo, hi = count + n, min(lo, x), max(hi, y)
            other = next_under_way(k, thread, proc, space, OP_UNMAP, other)
    else:
        unknown_too = k.g[C_HAS_POST] != 0 and t[T_COMMIT] != NULL
        count, lo, hi, told = mark_missing(k, vm, space, a, b, unknown_too, M_E | M_I, delta)
        other = next_under_way(k, thread, proc, space, OP_MAP, -1)
        while other >= 0:  # what is just being mapped may not yet be there
            x0, x1 = k.T[other, T_ADDR] >> 12, (k.T[other, T_ADDR] + k.T[other, T_SIZE]) >> 12
            n, x, y, _ = mark_missing(k, vm, space, max(a, x0), min(b, x1), unknown_too, M_E, delta)
            if n:
                count, lo, hi = count + n, min(lo, x), max(hi, y)
            other = next_under_way(k, thread, proc, space, OP_MAP, other)
    if count:
        row = candidate(k, 101 if private else 104, proc, space, thread, lo, hi, count)
        w = k.W[row]
        w[W_FROM] = commit
        w[W_CREATED] = ts
        w[W_SEQ0] = t[T_ENTER_SEQ]
        w[W_SEQ1] = commit_seq
        w[W_GROUP] = k.g[G_GROUP]
        w[W_VM] = vm
        w[W_LO] = p0
        w[W_HI] = p1
        since = commit_seq if commit_seq >= 0 else 1 << 62
        w[W_ERRNO] = private and in_flight(k, thread, proc, 101, lo, hi, since)[0]
    elif private:
        _, every = apply_map(k, space, a, b, X_NONE, 0)
        told = every & known_mask(k) != 0
    return count, told


@jit
def gmem_attributes(k: Any, thread: int, ret: int) -> None:
    """A guest_memfd's own attributes changed: those of the VM say nothing any more."""
    if ret < 0:
        return
    proc = process_of(k, thread)
    k.T[proc, P_GMEM_ATTR] = 1
    tally(k, J_101, Y_GMEM)
    tally(k, J_111, Y_GMEM)
    tally(k, J_104, Y_GMEM)
    give_up(k, proc, -1, Y_GMEM)
    for other in range(k.g[G_THREADS]):
        if k.T[other, T_CV_DIR] != CV_NONE and process_of(k, other) == proc:
            k.T[other, T_CV_DIR] = CV_NONE
            k.T[other, T_CV_ERRNO] = 0
            k.g[J0 + J_108 * Y_COLS + Y_DECIDED] -= 1
            tally(k, J_108, Y_GMEM)
    for s in range(k.g[G_SPACES]):
        if k.S[s, S_KIND] == SPACE_VM and k.S[s, S_PROC] == proc:
            forget_attributes_of(k, s)
