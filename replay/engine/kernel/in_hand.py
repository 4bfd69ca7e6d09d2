"""A thread's conversion in hand, and what goes wrong in it: TK107's errors, TK108, TK110."""

from __future__ import annotations

from typing import Any

from tracekit.compiled.kernels import jit

from .identity import process_of
from .layout import *
from .planes import both, sane, tally, wide
from .relations import address_backing
from .searches import attr_next, next_with, next_without
from .slots import forget_unmaps, forget_unmaps_of, live_vms
from .watches import record

END_NOW, END_LOSS, END_TRACE = range(3)
LEFT_UNMAPPED, LEFT_UNCOVERED, LEFT_MAPPED, LEFT_LOST = range(4)


@jit
def take_in_hand(
    k: Any, thread: int, vm: int, direction: int, p0: int, p1: int, commit: int, ts: int
) -> None:
    """The thread's ATTR succeeded (or was refused, after its unmaps)."""
    t = k.T[thread]
    t[T_CV_DIR] = direction
    t[T_CV_R0] = 0
    t[T_CV_R1] = 0
    t[T_CV_VM] = vm
    t[T_CV_LO] = p0
    t[T_CV_HI] = p1
    t[T_CV_COMMIT] = commit
    t[T_CV_DONE] = ts
    t[T_CV_SEQ] = t[T_ENTER_SEQ]
    t[T_CV_DISCARDED] = 0
    t[T_CV_ERRNO] = 0


@jit
def in_conversion(k: Any, thread: int, direction: int, p0: int, p1: int) -> bool:
    """True if the thread has such a conversion in hand over some of these pages."""
    t = k.T[thread]
    return t[T_CV_DIR] == direction and t[T_CV_LO] < p1 and p0 < t[T_CV_HI]


@jit
def fail_in_hand(k: Any, thread: int, space: int, ret: int, ts: int) -> None:
    """A call of the conversion in hand failed: the thread's open one, which returned ``ret``."""
    t = k.T[thread]
    if t[T_CV_ERRNO]:
        return
    t[T_CV_ERRNO] = -ret
    t[T_CV_FAILED] = t[T_ENTER]
    t[T_CV_FAILED_SEQ] = t[T_ENTER_SEQ]
    t[T_CV_FAILED_RET] = ts
    t[T_CV_SPACE] = space


@jit
def is_left(k: Any, v: int, x: int, delta: int, kind: int) -> bool:
    """Is a page (its mapping and its attribute) what a broken conversion must not leave behind?"""
    if delta and v >> M_DELTA_SHIFT != delta:
        return False
    mapped = v & (M_E | M_I) != 0
    known = v & M_KE != 0 and (not k.g[C_HAS_MAP] or v & M_KI != 0)
    if kind == LEFT_UNMAPPED:  # to shared: still shared, and not mapped
        return x & (A_K | A_P) == A_K and known and not mapped
    if kind == LEFT_UNCOVERED:  # the same, in a container that need not have mapped it
        return x & (A_K | A_P) == A_K and known and not mapped and v & M_C != 0
    if kind == LEFT_MAPPED:  # to shared, rolled back: a piece is still mapped
        return mapped and x & A_P != 0
    # to private, rolled back: not mapped again
    return known and not mapped and v & M_C != 0 and not x & A_P


@jit
def left_behind(
    k: Any,
    thread: int,
    space: int,
    a: int,
    b: int,
    kind: int,
    sev: int,
    conf: int,
    ts: int,
    seq: int,
) -> None:
    """Record TK108 for the runs of pages of [a, b) that are left."""
    proc = process_of(k, thread)
    if live_vms(k, proc) < 2:
        left_in(k, thread, space, a, b, 0, kind, sev, conf, ts, seq)
        return
    for i in range(k.g[G_SLOTS]):  # these show which pages are this VM's
        slot = k.S[i]
        if slot[L_VM] == k.T[thread, T_CV_VM] and slot[L_VADDR] != NULL:
            delta = address_backing(k, proc, slot[L_VADDR] - slot[L_GPA])
            if delta > 0:
                p = max(a, slot[L_GPA] >> 12)
                q = min(b, (slot[L_GPA] + slot[L_SIZE]) >> 12)
                left_in(k, thread, space, p, q, delta, kind, sev, conf, ts, seq)


@jit
def left_in(
    k: Any,
    thread: int,
    space: int,
    a: int,
    b: int,
    delta: int,
    kind: int,
    sev: int,
    conf: int,
    ts: int,
    seq: int,
) -> None:
    """The same for those with backing ``delta``; 0: any."""
    t = k.T[thread]
    proc = process_of(k, thread)
    p = next_left(k, space, t[T_CV_VM], a, b, delta, kind, True)
    while p < b and k.g[G_OUT] + 8 < k.W.shape[0]:
        q = next_left(k, space, t[T_CV_VM], p, b, delta, kind, False)
        o = k.g[G_OUT]
        record(
            k, 108, sev, conf, proc, space, thread, p << 12, (q - p) << 12,
            t[T_CV_FAILED], ts, t[T_CV_FAILED_SEQ], seq, t[T_CV_ERRNO],
        )  # fmt: skip
        k.W[o, OUT0 + W_GROUP] = k.g[G_GROUP]
        p = next_left(k, space, t[T_CV_VM], q, b, delta, kind, True)


@jit
def next_left(
    k: Any, space: int, vm: int, p: int, end: int, delta: int, kind: int, wanted: bool
) -> int:
    """First page from ``p`` on that is (``wanted``) or is not left behind; ``end`` if none."""
    while p < end:
        d, v, ad, x, e = both(k, space, vm, p, end)
        if d < 0 and ad < 0:
            if is_left(k, v, x, delta, kind) == wanted:
                return p
        else:
            for i in range(p, e):
                if d >= 0:
                    v = wide(k.mm[d, i & (PART - 1)])
                if ad >= 0:
                    x = wide(k.am[ad, i & (PART - 1)])
                if is_left(k, v, x, delta, kind) == wanted:
                    return i
        p = e
    return end


@jit
def end_in_hand(k: Any, thread: int, ts: int, seq: int, how: int) -> None:
    """The thread's conversion in hand ends at ``ts``: TK108, and D15."""
    t = k.T[thread]
    if t[T_CV_DIR] == CV_NONE:
        return
    if how == END_LOSS:
        k.g[J0 + J_108 * Y_COLS + Y_DECIDED] -= 1
        tally(k, J_108, Y_LOSS)
    elif t[T_CV_ERRNO]:
        proc = process_of(k, thread)
        gap = k.T[proc, P_LAST_GAP]
        silent = t[T_CV_DIR] == CV_PRIVATE and t[T_CV_R0] >= t[T_CV_R1]
        if how == END_NOW:
            all_left_behind(k, thread, proc, ERROR, CERTAIN, ts, seq)
        elif gap != NULL and gap >= t[T_CV_FAILED_RET]:
            all_left_behind(k, thread, proc, WARNING, LIKELY, NULL, -1)
        elif not silent:
            k.g[J0 + J_108 * Y_COLS + Y_DECIDED] -= 1
            tally(k, J_108, Y_END)
    elif t[T_CV_DIR] == CV_PRIVATE and how == END_NOW and not t[T_CV_DISCARDED]:
        kept_both(k, thread, ts, seq)
    if t[T_CV_DIR] == CV_REFUSED:
        forget_unmaps_of(k, thread, 1, 1)
    t[T_CV_DIR] = CV_NONE
    t[T_CV_ERRNO] = 0


@jit
def all_left_behind(k: Any, thread: int, proc: int, sev: int, conf: int, ts: int, seq: int) -> None:
    """Record what the broken conversion left behind in each container of the process."""
    t = k.T[thread]
    lo, hi = t[T_CV_LO], t[T_CV_HI]
    r0, r1 = max(lo, t[T_CV_R0]), min(hi, t[T_CV_R1])
    if r0 >= r1:
        r0, r1 = hi, hi
    k.g[G_GROUP] += 1
    for s in range(k.g[G_SPACES]):
        row = k.S[s]
        if row[S_KIND] != SPACE_CONTAINER or row[S_PROC] != proc or row[S_DEAD] or row[S_VIOMMU]:
            continue
        if t[T_CV_DIR] == CV_SHARED:
            kind = LEFT_UNMAPPED if s == t[T_CV_SPACE] else LEFT_UNCOVERED
            left_behind(k, thread, s, lo, r0, kind, sev, conf, ts, seq)
            left_behind(k, thread, s, r0, r1, LEFT_MAPPED, sev, conf, ts, seq)
            left_behind(k, thread, s, r1, hi, kind, sev, conf, ts, seq)
        elif t[T_CV_DIR] == CV_PRIVATE:
            left_behind(k, thread, s, r0, r1, LEFT_LOST, sev, conf, ts, seq)
        else:
            for i in range(k.g[G_U]):
                mine = k.S[i]
                if mine[U_THREAD] == thread and mine[U_SPACE] == s and mine[U_REFUSED]:
                    a, b = max(mine[U_P0], lo), min(mine[U_P1], hi)
                    left_behind(k, thread, s, a, b, LEFT_LOST, sev, conf, ts, seq)


@jit
def meet_in_hand(k: Any, thread: int, vm: int, private: bool, p0: int, p1: int, ts: int) -> int:
    """Another ATTR of the thread succeeds: what is it to the conversion in hand?

    0: it ends it; 1: it rolls it back; 2: it tries it again, which stays as it is.
    """
    t = k.T[thread]
    broken = t[T_CV_DIR] != CV_NONE and t[T_CV_ERRNO] != 0 and t[T_CV_VM] == vm
    if broken and t[T_CV_LO] < p1 and p0 < t[T_CV_HI]:
        if (t[T_CV_DIR] == CV_SHARED) == private:
            if t[T_CV_R0] >= t[T_CV_R1]:
                t[T_CV_R0], t[T_CV_R1] = p0, p1
            else:
                t[T_CV_R0], t[T_CV_R1] = min(t[T_CV_R0], p0), max(t[T_CV_R1], p1)
            return 1
        if t[T_CV_DIR] != CV_REFUSED:
            return 2
        # refused, and now done, at least at an edge
        if p0 <= t[T_CV_LO]:
            t[T_CV_LO] = p1
        if t[T_CV_HI] <= p1:
            t[T_CV_HI] = p0
        if t[T_CV_LO] < t[T_CV_HI]:
            return 2
        t[T_CV_DIR] = CV_NONE
    end_in_hand(k, thread, ts, t[T_ENTER_SEQ], END_NOW)
    return 0


@jit
def kept_both(k: Any, thread: int, ts: int, seq: int) -> None:
    """D15: the shared side of pages that a device had pinned was not discarded."""
    t = k.T[thread]
    if not k.g[C_HAS_DISCARD] or k.g[C_IN_PLACE]:
        return
    proc = process_of(k, thread)
    several = live_vms(k, proc) > 1
    k.g[G_GROUP] += 1
    for i in range(k.g[G_SLOTS]):
        slot = k.S[i]
        if slot[L_VM] != t[T_CV_VM] or not slot[L_FLAGS] & 4 or huge(k, proc, slot[L_VADDR]):
            continue
        held = M_C
        if several:  # what a device had of another VM is not this one's
            delta = address_backing(k, proc, slot[L_VADDR] - slot[L_GPA])
            if slot[L_VADDR] == NULL or delta <= 0:
                continue
            held |= delta << M_DELTA_SHIFT
        p = max(t[T_CV_LO], slot[L_GPA] >> 12)
        b = min(t[T_CV_HI], (slot[L_GPA] + slot[L_SIZE]) >> 12)
        made = A_K | A_P | A_W
        while p < b and k.g[G_OUT] + 8 < k.W.shape[0]:
            p = attr_next(k, t[T_CV_VM], p, b, made, made, True)
            e = attr_next(k, t[T_CV_VM], p, b, made, made, False)
            p = covered_until(k, proc, p, e, held, False)
            if p >= e:
                continue
            q = covered_until(k, proc, p, e, held, True)
            o = k.g[G_OUT]
            record(
                k, 110, NOTE, LIKELY, proc, t[T_CV_VM], thread, p << 12, (q - p) << 12,
                t[T_CV_COMMIT], ts, t[T_CV_SEQ], seq, 0,
            )  # fmt: skip
            k.W[o, OUT0 + W_GROUP] = k.g[G_GROUP]
            p = q


@jit
def covered_until(k: Any, proc: int, p: int, end: int, held: int, covered: bool) -> int:
    """Up to which page from ``p`` on some (``covered``), or no, container of the process covers.

    ``held``: a covered page's bits, with the backing if only that counts.
    """
    mask = held if held == M_C else M_C | M_DELTA
    if not covered:
        first = end
        for s in range(k.g[G_SPACES]):
            if follows(k, s, proc):
                first = min(first, next_with(k, s, p, end, mask, held))
        return first
    moved = True
    while moved and p < end:
        moved = False
        for s in range(k.g[G_SPACES]):
            if follows(k, s, proc):
                q = next_without(k, s, p, end, mask, held)
                if q > p:
                    p = q
                    moved = True
    return p


@jit
def follows(k: Any, s: int, proc: int) -> bool:
    """True for a live container of the process that is not behind a vIOMMU."""
    row = k.S[s]
    return (
        row[S_KIND] == SPACE_CONTAINER
        and row[S_PROC] == proc
        and not row[S_DEAD]
        and not row[S_VIOMMU]
    )


@jit
def huge(k: Any, proc: int, vaddr: int) -> bool:
    """True if the address was mapped with MAP_HUGETLB."""
    for r in range(k.g[G_R]):
        row = k.S[r]
        if row[R_PROC] == proc and row[R_VADDR] <= vaddr < row[R_VADDR] + row[R_SIZE]:
            return row[R_FLAGS] & 0x40000 != 0
    return False


@jit
def discarded_in_hand(k: Any, thread: int, ts: int, seq: int) -> None:
    """TK110: the thread discarded something; was it the side that its conversion leaves?"""
    t = k.T[thread]
    if t[T_CV_DIR] != CV_SHARED and t[T_CV_DIR] != CV_PRIVATE:
        return
    private_side = t[T_CALL] == EV_FALLOCATE and t[T_GMEM] != 0
    if t[T_CALL] == EV_MADVISE and t[T_GMEM]:
        return  # DONTNEED of a shared file: nothing was discarded
    if not private_side and t[T_CV_DIR] == CV_PRIVATE:
        t[T_CV_DISCARDED] = 1
    if t[T_CV_ERRNO]:
        return
    proc = process_of(k, thread)
    shown = False
    if t[T_CALL] == EV_MADVISE:
        if sane(t[T_VADDR], t[T_SIZE]):
            shown = at_addresses(
                k, thread, t[T_VADDR], t[T_VADDR] + t[T_SIZE], private_side, ts, seq
            )
    elif sane(t[T_OFFSET], t[T_SIZE]):
        lo, hi = t[T_OFFSET], t[T_OFFSET] + t[T_SIZE]
        if private_side:
            for i in range(k.g[G_SLOTS]):
                start = gmem_start(k, proc, t[T_FD], i, t[T_CV_VM])
                if start == NULL:
                    continue
                slot = k.S[i]
                a, b = max(lo, start), min(hi, start + slot[L_SIZE])
                if a < b:
                    shown = True
                    shift = slot[L_GPA] - start
                    wrong_side(k, thread, i, a + shift, b + shift, True, ts, seq)
        else:
            for r in range(k.g[G_R]):
                row = k.S[r]
                if row[R_PROC] != proc or row[R_FD] != t[T_FD]:
                    continue
                a, b = max(lo, row[R_OFFSET]), min(hi, row[R_OFFSET] + row[R_SIZE])
                shift = row[R_VADDR] - row[R_OFFSET]
                if a < b and at_addresses(k, thread, a + shift, b + shift, False, ts, seq):
                    shown = True
    tally(k, J_110, Y_DECIDED if shown else Y_BACKING)


@jit
def gmem_start(k: Any, proc: int, fd: int, i: int, vm: int) -> int:
    """Where slot ``i`` begins in the guest_memfd; NULL if it is not known to be of it."""
    slot = k.S[i]
    if slot[L_VM] != vm or not slot[L_FLAGS] & 4:
        return NULL
    if slot[L_GMEM] != NULL:
        known = slot[L_GMEM] == fd and 0 <= slot[L_OFFSET] <= (1 << 60)
        return slot[L_OFFSET] if known else NULL
    slots, files, size = 0, 0, NULL
    for j in range(k.g[G_SLOTS]):
        if k.S[k.S[j, L_VM], S_PROC] == proc and k.S[j, L_FLAGS] & 4:
            slots += 1
    for j in range(k.g[G_GMEM]):
        if k.S[j, GM_PROC] == proc:
            files += 1
            size = k.S[j, GM_SIZE]
    return 0 if slots == 1 and files == 1 and size == slot[L_SIZE] else NULL


@jit
def at_addresses(
    k: Any, thread: int, lo: int, hi: int, private_side: bool, ts: int, seq: int
) -> bool:
    """The same for user addresses; True if a slot of the conversion's VM shows any of them."""
    t = k.T[thread]
    shown = False
    for i in range(k.g[G_SLOTS]):
        slot = k.S[i]
        if slot[L_VM] != t[T_CV_VM] or slot[L_VADDR] == NULL:
            continue
        a, b = max(lo, slot[L_VADDR]), min(hi, slot[L_VADDR] + slot[L_SIZE])
        if a < b:
            shown = True
            shift = slot[L_GPA] - slot[L_VADDR]
            wrong_side(k, thread, i, a + shift, b + shift, private_side, ts, seq)
    return shown


@jit
def wrong_side(
    k: Any, thread: int, i: int, lo: int, hi: int, private_side: bool, ts: int, seq: int
) -> None:
    """Record what of the guest's [lo, hi), in slot ``i``, was discarded on the side in use."""
    t = k.T[thread]
    if not k.S[i, L_FLAGS] & 4 or private_side != (t[T_CV_DIR] == CV_PRIVATE):
        return
    a, b = max((lo + 4095) >> 12, t[T_CV_LO]), min(hi >> 12, t[T_CV_HI])
    side = A_K | A_P if private_side else A_K
    proc = process_of(k, thread)
    gap = k.T[proc, P_LAST_GAP]
    sev, conf = ERROR, CERTAIN
    if gap != NULL and gap >= t[T_CV_DONE]:
        sev, conf = WARNING, POSSIBLE
    p = attr_next(k, t[T_CV_VM], a, b, side, A_K | A_P, True)
    while p < b and k.g[G_OUT] + 8 < k.W.shape[0]:
        q = attr_next(k, t[T_CV_VM], p, b, side, A_K | A_P, False)
        o = k.g[G_OUT]
        record(
            k, 110, sev, conf, proc, t[T_CV_VM], thread, p << 12, (q - p) << 12,
            t[T_ENTER], ts, t[T_CV_SEQ], t[T_ENTER_SEQ], 0,
        )  # fmt: skip
        k.W[o, OUT0 + W_SEQ2] = seq
        p = attr_next(k, t[T_CV_VM], q, b, side, A_K | A_P, True)


@jit
def enters_guest(k: Any, thread: int, ts: int, seq: int) -> None:
    """The thread runs the guest, or ends."""
    end_in_hand(k, thread, ts, seq, END_NOW)
    forget_unmaps(k, thread)
