"""A change of memory attributes: TK101's candidates, TK103's end, TK202."""

from __future__ import annotations

from typing import Any

from ._jit import jit
from .identity import process_of
from .layout import *
from .planes import apply_map, mark_stale, sane, set_attr, spans, tally
from .watches import (
    candidate,
    end_candidates,
    end_premature,
    known_mask,
    live_mask,
    record,
    unmapped,
)


@jit
def valid(addr: int, size: int) -> bool:
    """True for a range of whole pages that exists on some machine."""
    return sane(addr, size) and (addr | size) & 4095 == 0 and spans(addr, size) < MAX_CHUNKS


@jit
def in_flight(k: Any, proc: int, thread: int, op: int, p0: int, p1: int) -> bool:
    """True if another thread of the process has such a call open over some of these pages."""
    for t in range(k.T.shape[0]):
        row = k.T[t]
        if t == thread or row[T_STATE] != STATE_FRAME or row[T_OP] != op:
            continue
        if process_of(k, t) != proc:
            continue
        if not sane(row[T_ADDR], row[T_SIZE]):
            return True
        if (row[T_ADDR] >> 12) < p1 and p0 < ((row[T_ADDR] + row[T_SIZE]) >> 12):
            return True
    return False


@jit
def settle_returned(k: Any, proc: int, space: int, p0: int, p1: int, seq: int) -> None:
    """Settle what an unmap took out whose callee has returned, though its exit has not been seen.

    Another thread is about to do something to these pages; the unmap came before it.
    """
    for other in range(k.T.shape[0]):
        t = k.T[other]
        if t[T_STATE] != STATE_FRAME or t[T_OP] != OP_UNMAP or t[T_RET] == NULL or t[T_RET] < 0:
            continue
        if process_of(k, other) == proc:
            unmapped(k, proc, space, p0, p1, t[T_RET_TS], seq)


@jit
def forget_attributes(k: Any, vm: int) -> None:
    """A change of unknown range: nothing is known of the VM's attributes any more."""
    k.S[vm, S_DEFAULT] = 0
    for h in range(k.ck.shape[0]):
        if k.ck[h, CK_KEY] != -1 and (k.ck[h, CK_KEY] >> 36) == vm:
            k.ck[h, CK_VAL] = 0
            k.ck[h, CK_SLOT] = -1


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
        return
    if not known or attr == NULL:
        k.g[N_ATTR_UNKNOWN] += 1
        tally(k, J_101, Y_UNKNOWN_ARGS)
        tally(k, J_202, Y_UNKNOWN_ARGS)
        forget_attributes(k, vm)
        return
    tally(k, J_202, Y_DECIDED)
    if not valid(addr, size):
        record(
            k, 202, ERROR, CERTAIN, proc, vm, thread, addr, size,
            t[T_ENTER], ts, t[T_ENTER_SEQ], seq, 0,
        )  # fmt: skip
        forget_attributes(k, vm)
        return
    p0, p1 = addr >> 12, (addr + size) >> 12
    private = attr & 8 != 0
    commit = t[T_COMMIT] if t[T_COMMIT] != NULL else ts
    commit_seq = t[T_COMMIT_SEQ] if t[T_COMMIT] != NULL else seq
    real = not k.g[C_HAS_POST] or t[T_COMMIT] != NULL
    before = t[T_ENTER_SEQ]
    if k.g[G_ACTIVE]:
        for s in range(k.g[G_SPACES]):
            if k.S[s, S_KIND] == SPACE_CONTAINER and k.S[s, S_PROC] == proc:
                settle_returned(k, proc, s, p0, p1, before)
        conf, sev = CERTAIN, ERROR
        if in_flight(k, proc, thread, OP_UNMAP, p0, p1):
            conf, sev = POSSIBLE, WARNING
        if not private:
            end_candidates(k, 101, proc, -1, thread, p0, p1, before, False, 0, 0, 0, -1)
        end_candidates(k, 101, proc, -1, -1, p0, p1, before, True, conf, sev, R_ATTR, before)
        if not private:
            end_candidates(k, 102, proc, -1, -1, p0, p1, before, True, conf, sev, R_ATTR, before)
            end_premature(k, proc, p0, p1, commit, commit_seq)
    if private:
        live, known_bit = live_mask(k), known_mask(k)
        total, told, containers = 0, True, 0
        k.g[G_GROUP] += 1
        for s in range(k.g[G_SPACES]):
            if k.S[s, S_KIND] != SPACE_CONTAINER or k.S[s, S_PROC] != proc:
                continue
            containers += 1
            count, lo, hi = 0, 0, 0
            if real:
                count, lo, hi = mark_stale(k, vm, s, p0, p1, live, False, M_W101)
            if count:
                row = candidate(k, 101, proc, s, thread, lo, hi, count)
                w = k.W[row]
                w[W_FROM] = commit
                w[W_CREATED] = ts
                w[W_SEQ0] = t[T_ENTER_SEQ]
                w[W_SEQ1] = commit_seq
                w[W_GROUP] = k.g[G_GROUP]
                w[W_VM] = vm
                total += count
            elif real:
                _, every = apply_map(k, s, p0, p1, X_NONE, 0)
                if not every & known_bit:
                    told = False
        if containers == 0 and not k.T[proc, P_BORN]:
            told = False
        if total or told:
            tally(k, J_101, Y_DECIDED)
        else:
            tally(k, J_101, Y_LATE)
    set_attr(k, vm, p0, p1, A_K | A_P if private else A_K)
    t[T_ATTR_LO] = p0
    t[T_ATTR_HI] = p1
    t[T_ATTR_BEGAN] = t[T_ENTER]
    t[T_ATTR_RET] = ts
