"""DMA maps and unmaps: entries come and go.  TK103, TK105, TK106, TK109."""

from __future__ import annotations

from typing import Any

from ._jit import jit
from .conversions import valid
from .identity import process_of
from .layout import *
from .planes import apply_map, attr_bits, map_at, sane, tally, transform_all
from .relations import backing
from .searches import live_anywhere, next_premature, next_with, next_without
from .watches import end_candidates, live_mask, new_row, record, unmapped


@jit
def forget_range(k: Any, proc: int, space: int, p0: int, p1: int) -> None:
    """These pages of a container can be mapped or not."""
    some, _ = apply_map(k, space, p0, p1, X_FORGET, 0)
    if some & (M_W101 | M_W102):
        end_candidates(k, 101, proc, space, -1, p0, p1, 1 << 62, False, 0, 0, 0, -1)
        end_candidates(k, 102, proc, space, -1, p0, p1, 1 << 62, False, 0, 0, 0, -1)


@jit
def arguments_hold(k: Any, thread: int) -> bool:
    """True if the map's or unmap's range is known: told by a probe that the frame does not
    contradict."""
    t = k.T[thread]
    if t[T_RANK] == 0 or t[T_ADDR] == NULL:
        return False
    if not valid(t[T_ADDR], t[T_SIZE]):
        return t[T_RANK] > 1
    if t[T_RANK] == 1 and t[T_EV_LO] != NULL:
        p0, p1 = t[T_ADDR] >> 12, (t[T_ADDR] + t[T_SIZE]) >> 12
        if t[T_EV_LO] < p0 or t[T_EV_HI] > p1:
            k.g[N_EPROBE_UNKNOWN] += 1
            return False
    return True


@jit
def premature_run(
    k: Any,
    thread: int,
    proc: int,
    space: int,
    vm: int,
    p: int,
    q: int,
    conf: int,
    sev: int,
    seq: int,
) -> None:
    """A run of prematurely mapped pages; one that goes on where the thread's last call ended is
    the same."""
    t = k.T[thread]
    row = new_row(k)
    w = k.W[row]
    w[W_KIND] = 103
    w[W_STATE] = W_FLAGGED
    w[W_PROC] = proc
    w[W_SPACE] = space
    w[W_THREAD] = thread
    w[W_P0] = p
    w[W_P1] = q
    w[W_LO] = p
    w[W_HI] = q
    w[W_CONF] = conf
    w[W_SEV] = sev
    w[W_FROM] = t[T_FIRST_MAP] if t[T_FIRST_MAP] != NULL else t[T_ENTER]
    w[W_UNTIL] = NULL
    w[W_SEQ0] = t[T_ENTER_SEQ]
    w[W_SEQ1] = seq
    w[W_SEQ2] = -1
    w[W_SEQ3] = -1
    w[W_VM] = vm
    w[W_RULE] = R_MAP
    w[W_GROUP] = t[T_RUN]


@jit
def converted_meanwhile(k: Any, proc: int, thread: int, p: int, q: int) -> tuple[bool, int]:
    """Did another thread change attributes of page ``p`` while the thread's map was under way?

    And up to which page the answer is the same.
    """
    mine = k.T[thread]
    begins = mine[T_FIRST_MAP] if mine[T_FIRST_MAP] != NULL else mine[T_ENTER]
    doubtful = False
    for other in range(k.T.shape[0]):
        t = k.T[other]
        if other == thread or process_of(k, other) != proc:
            continue
        lo, hi = 0, 0
        if t[T_STATE] == STATE_FRAME and t[T_OP] == OP_ATTR:
            addr, size = t[T_ADDR], t[T_SIZE]
            if t[T_RANK] != 3 and t[T_TP_ADDR] != NULL:
                addr, size = t[T_TP_ADDR], t[T_TP_SIZE]
            elif t[T_RANK] != 3:
                addr, size = NULL, NULL
            if sane(addr, size):
                lo, hi = addr >> 12, (addr + size) >> 12
            else:
                return True, q  # its range is not known yet: it may be this one
        elif t[T_ATTR_RET] != NULL and t[T_ATTR_RET] >= begins:
            lo, hi = t[T_ATTR_LO], t[T_ATTR_HI]
        if lo <= p < hi:
            doubtful = True
            q = min(q, hi)
        elif p < lo:
            q = min(q, lo)
    return doubtful, q


@jit
def premature(k: Any, thread: int, proc: int, space: int, p0: int, p1: int, seq: int) -> None:
    """TK103: of the pages just mapped, those that are private."""
    live = live_mask(k)
    vms, told = 0, True
    for vm in range(k.g[G_SPACES]):
        if k.S[vm, S_KIND] != SPACE_VM or k.S[vm, S_PROC] != proc:
            continue
        vms += 1
        some, every = attr_bits(k, vm, p0, p1)
        if not every & A_K:
            told = False
        if not some & A_P:
            continue
        p = next_premature(k, vm, space, p0, p1, live, M_W103, True)
        while p < p1 and k.g[G_WTOP] + 8 < k.W.shape[0]:
            q = next_premature(k, vm, space, p, p1, live, M_W103, False)
            doubtful, q = converted_meanwhile(k, proc, thread, p, q)
            apply_map(k, space, p, q, X_SET, M_W103)
            if doubtful:
                premature_run(k, thread, proc, space, vm, p, q, POSSIBLE, WARNING, seq)
            else:
                premature_run(k, thread, proc, space, vm, p, q, CERTAIN, ERROR, seq)
            p = next_premature(k, vm, space, q, p1, live, M_W103, True)
    if vms == 0:
        tally(k, J_103, Y_NO_ATTR)
    elif told:
        tally(k, J_103, Y_DECIDED)
    else:
        tally(k, J_103, Y_LATE)


@jit
def map_done(k: Any, thread: int, space: int, ret: int, ts: int, seq: int) -> None:
    """A DMA map returned.  TK103, TK106, and TK102 for what is mapped again."""
    t = k.T[thread]
    proc = process_of(k, thread)
    known = arguments_hold(k, thread)
    iommufd = t[T_CMD] != 0x3B71
    if k.g[G_ACTIVE] and known and valid(t[T_ADDR], t[T_SIZE]):
        # mapped again, be it in vain, while what was discarded is still mapped
        end_candidates(
            k, 102, proc, space, -1, t[T_ADDR] >> 12, (t[T_ADDR] + t[T_SIZE]) >> 12,
            t[T_ENTER_SEQ], True, CERTAIN, ERROR, R_MAP, t[T_ENTER_SEQ],
        )  # fmt: skip
    if ret < 0:
        tally(k, J_106, Y_DECIDED)
        if ret == -17:
            addr, size = t[T_ADDR], t[T_SIZE]
            if not known:
                addr, size = NULL, NULL
            record(
                k, 106, WARNING, CERTAIN, proc, space, thread, addr, size,
                t[T_ENTER], ts, t[T_ENTER_SEQ], seq, 17,
            )  # fmt: skip
        return
    k.T[proc, P_LAST_MAP_RETURN] = ts
    k.T[proc, P_LAST_MAP_THREAD] = thread
    if iommufd and (t[T_FLAGS] == NULL or not t[T_FLAGS] & 1) and t[T_RANK] != 2:
        known = False  # the kernel chose the iova
    if known and not valid(t[T_ADDR], t[T_SIZE]):
        known = False
    if not known:
        tally(k, J_106, Y_UNKNOWN_ARGS)
        if t[T_EV_LO] != NULL:
            apply_map(k, space, t[T_EV_LO], t[T_EV_HI], X_FORGET_ENTRY, 0)
        elif not k.g[C_HAS_MAP]:
            transform_all(k, space, X_FORGET, 0, 0)
        if t[T_EV_LO] == NULL:
            tally(k, J_103, Y_UNKNOWN_ARGS)
            return
        p0, p1 = t[T_EV_LO], t[T_EV_HI]
    else:
        p0, p1 = t[T_ADDR] >> 12, (t[T_ADDR] + t[T_SIZE]) >> 12
        delta = 0
        if t[T_OP] == OP_MAP_FILE:
            if t[T_FILE_FD] >= 0 and 0 <= t[T_OFFSET] <= (1 << 60):
                delta = backing(k, proc, 1, t[T_FILE_FD], t[T_OFFSET] - t[T_ADDR])
        elif t[T_VADDR] >= 0:
            delta = backing(k, proc, 0, -1, t[T_VADDR] - t[T_ADDR])
        p = next_with(k, space, p0, p1, M_E, M_E)
        twice = p < p1
        while p < p1 and k.g[G_OUT] + 8 < k.W.shape[0]:
            q = next_without(k, space, p, p1, M_E, M_E)
            record(
                k, 106, ERROR, CERTAIN, proc, space, thread, p << 12, (q - p) << 12,
                t[T_ENTER], NULL, t[T_ENTER_SEQ], seq, 0,
            )  # fmt: skip
            p = next_with(k, space, q, p1, M_E, M_E)
        _, every = apply_map(k, space, p0, p1, X_ENTER, delta)
        apply_map(k, space, p0, p0 + 1, X_SET, M_FIRST)
        tally(k, J_106, Y_DECIDED if twice or every & M_KE else Y_LATE)
    premature(k, thread, proc, space, p0, p1, seq)


@jit
def unmap_done(k: Any, thread: int, space: int, ret: int, ts: int, seq: int) -> None:
    """A DMA unmap returned.  Ends watches; TK105."""
    t = k.T[thread]
    proc = process_of(k, thread)
    known = arguments_hold(k, thread)
    addr, size = t[T_ADDR], t[T_SIZE]
    iommufd = t[T_CMD] == 0x3B86
    all_of_it = False
    if t[T_RANK] > 0:
        if iommufd:
            all_of_it = addr == 0 and size == -1
        else:
            all_of_it = t[T_FLAGS] != NULL and t[T_FLAGS] & 2 != 0
    ev_lo, ev_hi = t[T_EV_LO], t[T_EV_HI]
    if all_of_it:
        if ret >= 0:
            tally(k, J_105, Y_DECIDED)
            transform_all(k, space, X_LEAVE, 0, M_KI | M_KE)
            unmapped(k, proc, space, 0, 1 << 52, ts, seq)
        return
    if not known or not valid(addr, size):
        tally(k, J_105, Y_UNKNOWN_ARGS)
        if ret < 0 and not iommufd:
            return
        if ev_lo != NULL:
            apply_map(k, space, ev_lo, ev_hi, X_FORGET_ENTRY, 0)
            unmapped(k, proc, space, ev_lo, ev_hi, ts, seq)
        elif not k.g[C_HAS_UNMAP]:
            transform_all(k, space, X_FORGET, 0, 0)
        else:
            transform_all(k, space, X_FORGET_ENTRY, 0, k.S[space, S_DEFAULT] & ~M_KE)
        return
    p0, p1 = addr >> 12, (addr + size) >> 12
    if ret < 0:
        v0, v1 = map_at(k, space, p0), map_at(k, space, p1)
        cut = (v0 & (M_KE | M_E | M_FIRST)) == M_KE | M_E or (
            v1 & (M_KE | M_E | M_FIRST)
        ) == M_KE | M_E
        unsure = not (v0 & M_KE and v1 & M_KE)
        tally(k, J_105, Y_DECIDED)
        if cut and ((ret == -22 and not iommufd) or (ret == -2 and iommufd)):
            record(
                k, 105, WARNING, CERTAIN, proc, space, thread, addr, size,
                t[T_ENTER], ts, t[T_ENTER_SEQ], seq, -ret,
            )  # fmt: skip
            if iommufd:
                if ev_lo != NULL:
                    unmapped(k, proc, space, ev_lo, ev_hi, ts, seq)
                p = p0
                while p < p1:  # what was there is known only where an unmap event told
                    q = next_with(k, space, p, p1, M_I, M_I)
                    e = next_without(k, space, q, p1, M_I, M_I)
                    if q < e:
                        forget_range(k, proc, space, q, e)
                    p = e
                apply_map(k, space, p0, p1, X_FORGET_ENTRY, 0)
        elif ret == -22 and not iommufd and unsure:
            record(
                k, 105, WARNING, LIKELY, proc, space, thread, addr, size,
                t[T_ENTER], ts, t[T_ENTER_SEQ], seq, 22,
            )  # fmt: skip
        return
    tally(k, J_105, Y_DECIDED)
    if k.g[C_HAS_MAP]:
        if k.S[space, S_MULTI] or not k.g[C_HAS_UNMAP]:
            apply_map(k, space, p0, p1, X_UNTRANSLATE, 0)
        else:
            whole = M_KI | M_I | M_KE | M_E
            p = next_with(k, space, p0, p1, whole, whole)
            while p < p1:
                q = next_without(k, space, p, p1, whole, whole)
                record(
                    k, 105, ERROR, CERTAIN, proc, space, thread, p << 12, (q - p) << 12,
                    t[T_ENTER], NULL, t[T_ENTER_SEQ], seq, 0,
                )  # fmt: skip
                p = (
                    next_with(k, space, q, p1, whole, whole)
                    if k.g[G_OUT] + 8 < k.W.shape[0]
                    else p1
                )
    some, _ = apply_map(k, space, p0, p1, X_LEAVE, 0)
    lo, hi = p0, p1
    if ev_lo != NULL:
        lo, hi = min(lo, ev_lo), max(hi, ev_hi)
    if some & M_WATCHED or lo < p0 or hi > p1:
        unmapped(k, proc, space, lo, hi, ts, seq)


@jit
def destroy_ioas(k: Any, proc: int, fd: int, ident: int) -> None:
    """An IO address space is gone, and its number may come back for another one."""
    for s in range(k.g[G_SPACES]):
        row = k.S[s]
        if (
            row[S_KIND] == SPACE_CONTAINER
            and row[S_PROC] == proc
            and row[S_FD] == fd
            and row[S_ID] == ident
            and not row[S_DEAD]
        ):
            row[S_DEAD] = 1
            transform_all(k, s, X_FORGET_ENTRY, 0, row[S_DEFAULT] & ~M_KE)


@jit
def leaked(k: Any, space: int, thread: int, since: int, seq: int, sev: int, conf: int) -> None:
    """TK109: the container is gone and pages are still translated: one record a run of them."""
    tally(k, J_109, Y_DECIDED)
    for h in range(k.ck.shape[0]):
        key = k.ck[h, CK_KEY]
        if key == -1 or (key >> 36) != space:
            continue
        base = (key & ((1 << 36) - 1)) << CHUNK_BITS
        end = base + CHUNK
        p = next_with(k, space, base, end, M_KI | M_I, M_KI | M_I)
        while p < end and k.g[G_OUT] + 8 < k.W.shape[0]:
            q = next_without(k, space, p, end, M_KI | M_I, M_KI | M_I)
            record(
                k, 109, sev, conf, k.S[space, S_PROC], space, thread, p << 12, (q - p) << 12,
                since, NULL, seq, seq, 0,
            )  # fmt: skip
            p = next_with(k, space, q, end, M_KI | M_I, M_KI | M_I)


@jit
def domain_freed(k: Any, thread: int, obj: int, ts: int, seq: int) -> None:
    """TK109: a domain ends.  Judged where a probe showed that it was the container's only one."""
    if obj == NULL:
        return
    for s in range(k.g[G_SPACES]):
        row = k.S[s]
        if row[S_KIND] == SPACE_CONTAINER and row[S_DOMAIN] == obj and not row[S_MULTI]:
            row[S_DOMAIN] = NULL
            if not k.g[C_HAS_UNMAP]:
                tally(k, J_109, Y_NO_UNMAP)
            elif live_anywhere(k, s, M_I):
                leaked(k, s, thread, ts, seq, ERROR, CERTAIN)
            else:
                tally(k, J_109, Y_DECIDED)
