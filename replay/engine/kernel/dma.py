"""DMA maps and unmaps: entries come and go.  TK103, TK105, TK106, TK107, TK109."""

from __future__ import annotations

from typing import Any

from tracekit.compiled.kernels import jit, spliced

from .conversions import valid
from .identity import has_ended, process_of
from .in_hand import fail_in_hand, in_conversion
from .layout import *
from .meanwhile import last_change, overlaps, remember_meanwhile
from .missing import mapped
from .planes import apply_map, attr_bits, map_at, sane, tally, transform_all
from .relations import backing
from .searches import attr_next, count_with, live_anywhere, next_premature, next_with, next_without
from .slots import file_address, live_vms, look_for_viommu, remember_unmap, slots_known
from .watches import end_candidates, last_gap, live_mask, new_row, record, unmapped


@jit
def forget_range(k: Any, proc: int, space: int, p0: int, p1: int) -> None:
    """These pages of a container can be mapped or not."""
    some, _ = apply_map(k, space, p0, p1, X_FORGET, 0)
    if some & M_W104:
        end_candidates(k, 104, proc, space, -1, -1, p0, p1, 1 << 62, False, -1, 0, -1)
    if some & (M_W101 | M_W102):
        end_candidates(k, 101, proc, space, -1, -1, p0, p1, 1 << 62, False, -1, 0, -1)
        end_candidates(k, 102, proc, space, -1, -1, p0, p1, 1 << 62, False, -1, 0, -1)


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
def map_interval(k: Any, thread: int) -> tuple[int, int]:
    """The earliest and the latest moment at which the thread's open map had its effect."""
    t = k.T[thread]
    begins = t[T_FIRST_MAP] if t[T_FIRST_MAP] != NULL else t[T_ENTER]
    return begins, t[T_RET_TS] if t[T_RET] != NULL else k.g[G_LAST_TS]


@jit
def converted_meanwhile(
    k: Any, proc: int, thread: int, p: int, q: int, turned: bool
) -> tuple[int, int]:
    """Did another thread change attributes of page ``p`` while the thread's map was under way?

    0 no, 1 perhaps, 2: they were not private then, as the change to shared came before it, or the
    one to private after it; and up to which page the answer is the same.  ``turned``: these pages
    were not private before the last change.
    """
    begins, ends = map_interval(k, thread)
    answer = k.g[G_N_FULL]
    for other in range(k.g[G_THREADS]):
        t = k.T[other]
        if other == thread or process_of(k, other) != proc:
            continue
        lo, hi, this = 0, 0, 1
        if t[T_STATE] == STATE_FRAME and t[T_OP] == OP_ATTR:
            if k.g[C_HAS_POST] and (t[T_COMMIT] == NULL or t[T_COMMIT] > ends):
                continue  # it had not changed anything yet
            if t[T_RET] != NULL:
                if t[T_RET] < 0:
                    continue
                if t[T_RET_TS] < begins:
                    this = 2
            addr, size, attr = t[T_ADDR], t[T_SIZE], t[T_ATTR]
            if t[T_RANK] != 3 and t[T_TP_ADDR] != NULL:
                addr, size, attr = t[T_TP_ADDR], t[T_TP_SIZE], t[T_TP_ATTR]
            elif t[T_RANK] != 3:
                addr, size, attr = NULL, NULL, NULL
            if attr != NULL and attr & 8:
                continue  # they are private already
            if sane(addr, size):
                lo, hi = addr >> 12, (addr + size) >> 12
            else:
                return 1, q  # its range is not known yet: it may be this one
        if lo <= p < hi:
            answer = max(answer, this)
            q = min(q, hi)
        elif p < lo:
            q = min(q, lo)
    for i in range(k.g[G_N]):
        row = k.S[i]
        if row[N_ENDED] < begins or row[N_BEGAN] > ends or not overlaps(k, i, thread, OP_ATTR):
            continue
        if row[N_P0] <= p < row[N_P1]:
            answer = max(answer, 1)
            q = min(q, row[N_P1])
        elif p < row[N_P0]:
            q = min(q, row[N_P0])
    if turned:
        i, q = last_change(k, thread, begins, p, q)
        if i >= 0 and k.S[i, N_BEGAN] > ends:
            answer = 2
    return answer, q


@spliced
def premature(
    k: Any, thread: int, proc: int, space: int, p0: int, p1: int, delta: int, seq: int
) -> None:
    """TK103: of the pages just mapped, those that are private.

    ``delta``: their vaddr - iova, NULL if not known.
    """
    vms, told, slotless = 0, True, False
    if k.S[space, S_VIOMMU]:
        tally(k, J_103, Y_VIOMMU)
        tally(k, J_111, Y_VIOMMU)
        return
    if k.T[proc, P_GMEM_ATTR]:
        tally(k, J_103, Y_GMEM)
        tally(k, J_111, Y_GMEM)
        return
    several = live_vms(k, proc) > 1
    for vm in range(k.g[G_SPACES]):
        if k.S[vm, S_KIND] != SPACE_VM or k.S[vm, S_PROC] != proc:
            continue
        if k.S[vm, S_DEAD]:
            continue
        vms += 1
        if several:
            if not slots_known(k, vm):
                slotless = True
            if delta != NULL and not premature_in_slots(
                k, thread, proc, space, vm, p0, p1, delta, seq
            ):
                told = False
            continue
        some, every = attr_bits(k, vm, p0, p1)
        if not every & A_K:
            told = False
        if not some & (A_P | A_W):
            continue
        premature_part(k, thread, proc, space, vm, p0, p1, seq)
    reason = Y_LATE
    if vms == 0:
        reason = Y_NO_ATTR
    elif slotless and told:
        reason = Y_SEVERAL
    elif told:
        reason = Y_DECIDED
    tally(k, J_103, reason)
    tally(k, J_111, reason)


@jit
def premature_part(
    k: Any, thread: int, proc: int, space: int, vm: int, p0: int, p1: int, seq: int
) -> None:
    """Of the pages [p0, p1) just mapped, those that are private in the VM."""
    live = live_mask(k)
    premature_doubt(k, thread, proc, space, vm, p0, p1, seq)
    p = next_premature(k, vm, space, p0, p1, live, M_W103, True)
    while p < p1 and k.g[G_WTOP] + 8 < k.W.shape[0]:
        q = next_premature(k, vm, space, p, p1, live, M_W103, False)
        turned = attr_next(k, vm, p, q, A_W, A_W, True) == p
        q = attr_next(k, vm, p, q, A_W, A_W, not turned)
        meanwhile, q = converted_meanwhile(k, proc, thread, p, q, turned)
        if meanwhile < 2:
            apply_map(k, space, p, q, X_SET, M_W103)
        if meanwhile == 1:
            premature_run(k, thread, proc, space, vm, p, q, POSSIBLE, WARNING, seq)
        elif meanwhile == 0:
            premature_run(k, thread, proc, space, vm, p, q, CERTAIN, ERROR, seq)
        p = next_premature(k, vm, space, q, p1, live, M_W103, True)


@jit
def premature_doubt(
    k: Any, thread: int, proc: int, space: int, vm: int, p0: int, p1: int, seq: int
) -> None:
    """Of the pages [p0, p1) just mapped, those that another thread made shared meanwhile."""
    mine = k.T[thread]
    begins, ends = map_interval(k, thread)
    live = live_mask(k)
    p = p0
    while p < p1 and k.g[G_OUT] + 8 < k.W.shape[0]:
        p = next_with(k, space, p, p1, live | M_W103, live)
        p = attr_next(k, vm, p, p1, A_K | A_W, A_K | A_P | A_W, True)
        if p >= p1:
            break
        q = next_without(k, space, p, p1, live | M_W103, live)
        q = attr_next(k, vm, p, q, A_K | A_W, A_K | A_P | A_W, False)
        i, q = last_change(k, thread, begins, p, q)
        if i >= 0 and p < q:
            sev, conf = (ERROR, CERTAIN) if k.S[i, N_BEGAN] > ends else (WARNING, POSSIBLE)
            until = k.S[i, N_ENDED]
            record(
                k, 103, sev, conf, proc, space, thread, p << 12, (q - p) << 12,
                begins, until, mine[T_ENTER_SEQ], seq, 0,
            )  # fmt: skip
            if k.g[C_IN_PLACE]:
                record(
                    k, 111, sev, conf, proc, space, thread, p << 12, (q - p) << 12,
                    begins, until, mine[T_ENTER_SEQ], seq, 103,
                )  # fmt: skip
        p = max(p, q)


@jit
def premature_in_slots(
    k: Any, thread: int, proc: int, space: int, vm: int, p0: int, p1: int, delta: int, seq: int
) -> bool:
    """The same in a process with several VMs: the slots show which pages are this one's.

    False if an attribute of these is unknown.
    """
    told = True
    for i in range(k.g[G_SLOTS]):
        row = k.S[i]
        if row[L_VM] == vm and row[L_VADDR] != NULL and row[L_VADDR] - row[L_GPA] == delta:
            a = max(p0, row[L_GPA] >> 12)
            b = min(p1, (row[L_GPA] + row[L_SIZE]) >> 12)
            if a < b:
                _, every = attr_bits(k, vm, a, b)
                told = told and every & A_K != 0
                premature_part(k, thread, proc, space, vm, a, b, seq)
    return told


@jit
def map_refused(k: Any, thread: int, space: int, known: bool, ret: int, ts: int, seq: int) -> None:
    """A DMA map failed.  TK106, TK107, TK108."""
    t = k.T[thread]
    proc = process_of(k, thread)
    addr, size = t[T_ADDR], t[T_SIZE]
    if not known:
        addr, size = NULL, NULL
    ranged = known and valid(addr, size)
    inside = not known and t[T_CV_DIR] == CV_SHARED
    if ranged:
        inside = in_conversion(k, thread, CV_SHARED, addr >> 12, (addr + size) >> 12)
    tally(k, J_106, Y_DECIDED)
    if ret == -17:
        record(
            k, 106, WARNING, CERTAIN, proc, space, thread, addr, size,
            t[T_ENTER], ts, t[T_ENTER_SEQ], seq, 17,
        )  # fmt: skip
        return
    behind = k.S[space, S_VIOMMU] != 0
    bad = ERROR if inside and not behind else WARNING
    if ret == -28 and t[T_CMD] == 0x3B71:
        record(
            k, 107, bad, CERTAIN, proc, space, thread, addr, size,
            t[T_ENTER], ts, t[T_ENTER_SEQ], seq, 28,
        )  # fmt: skip
    if ranged and inside and not behind:
        if not t[T_CV_ERRNO]:
            end_candidates(
                k, 104, proc, -1, thread, t[T_CV_VM], t[T_CV_LO], t[T_CV_HI], 1 << 62,
                False, thread, 0, -1,
            )  # fmt: skip
        fail_in_hand(k, thread, space, ret, ts)


@spliced
def count_entry(k: Any, space: int, ts: int, seq: int) -> None:
    """One more entry of a container; TK107 asks for those of type1 ones."""
    row = k.S[space]
    if row[S_ENTRIES] == NULL:
        return
    row[S_ENTRIES] += 1
    row[S_PEAK] = max(row[S_PEAK], row[S_ENTRIES])
    if row[S_ENTRIES] == ENTRIES_HIGH and row[S_HIGH] == NULL:
        row[S_HIGH] = ts
        row[S_HIGH_SEQ] = seq


@jit
def judge_entries(k: Any) -> None:
    """TK107: the trace ends; how near did each type1 container come to its limit?"""
    for s in range(k.g[G_SPACES]):
        row = k.S[s]
        if row[S_KIND] != SPACE_CONTAINER or row[S_ID] != NULL or row[S_PROC] < 0:
            continue
        if row[S_ENTRIES] == NULL:
            tally(k, J_107, Y_LOSS if k.g[G_LOST] else Y_LATE)
            continue
        tally(k, J_107, Y_DECIDED)
        if row[S_HIGH] != NULL and row[S_PEAK] <= ENTRY_LIMIT:
            o = k.g[G_OUT]
            record(
                k, 107, WARNING, LIKELY, row[S_PROC], s, row[S_PROC], NULL, NULL,
                row[S_HIGH], NULL, row[S_HIGH_SEQ], -1, 0,
            )  # fmt: skip
            k.W[o, OUT0 + W_REM] = row[S_PEAK]


@spliced
def map_done(k: Any, thread: int, space: int, ret: int, ts: int, seq: int) -> None:
    """A DMA map returned.  TK103, TK106, and TK102 for what is mapped again."""
    t = k.T[thread]
    proc = process_of(k, thread)
    known = arguments_hold(k, thread)
    iommufd = t[T_CMD] != 0x3B71
    if k.g[G_ACTIVE] and known and valid(t[T_ADDR], t[T_SIZE]):
        # mapped again, be it in vain, while what was discarded is still mapped
        end_candidates(
            k, 102, proc, space, -1, -1, t[T_ADDR] >> 12, (t[T_ADDR] + t[T_SIZE]) >> 12,
            t[T_ENTER_SEQ], True, thread, R_MAP, t[T_ENTER_SEQ],
        )  # fmt: skip
    if ret < 0:
        map_refused(k, thread, space, known, ret, ts, seq)
        return
    k.T[proc, P_LAST_MAP_RETURN] = ts
    k.T[proc, P_LAST_MAP_THREAD] = thread
    if iommufd and (t[T_FLAGS] == NULL or not t[T_FLAGS] & 1) and t[T_RANK] != 2:
        known = False  # the kernel chose the iova
    if known and not valid(t[T_ADDR], t[T_SIZE]):
        known = False
    shift = NULL
    if not known:
        tally(k, J_106, Y_UNKNOWN_ARGS)
        k.S[space, S_ENTRIES] = NULL
        if t[T_EV_LO] != NULL:
            apply_map(k, space, t[T_EV_LO], t[T_EV_HI], X_FORGET_ENTRY, 0)
        elif not k.g[C_HAS_MAP]:
            transform_all(k, space, X_FORGET, 0, 0)
        if t[T_EV_LO] == NULL:
            tally(k, J_103, Y_UNKNOWN_ARGS)
            tally(k, J_111, Y_UNKNOWN_ARGS)
            return
        p0, p1 = t[T_EV_LO], t[T_EV_HI]
    else:
        p0, p1 = t[T_ADDR] >> 12, (t[T_ADDR] + t[T_SIZE]) >> 12
        delta = 0
        if t[T_OP] == OP_MAP_FILE:
            if t[T_FILE_FD] >= 0 and 0 <= t[T_OFFSET] <= (1 << 60):
                delta = backing(k, proc, 1, t[T_FILE_FD], t[T_OFFSET] - t[T_ADDR])
                at = file_address(k, proc, t[T_FILE_FD], t[T_OFFSET])
                look_for_viommu(k, proc, space, t[T_ADDR], at)
        elif t[T_VADDR] >= 0:
            shift = t[T_VADDR] - t[T_ADDR]
            delta = backing(k, proc, 0, -1, shift)
            look_for_viommu(k, proc, space, t[T_ADDR], t[T_VADDR])
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
        count_entry(k, space, ts, seq)
        remember_meanwhile(k, thread, OP_MAP, space, p0, p1, t[T_ENTER], ts, seq)
    if k.g[G_ACTIVE]:
        mapped(k, last_gap(k, thread), space, p0, p1, ts, seq, t[T_FIRST_MAP_SEQ])
    premature(k, thread, proc, space, p0, p1, shift, seq)


@jit
def all_remaining(k: Any, thread: int, proc: int, space: int, seq: int) -> None:
    """TK105: everything was to be unmapped, and these pages are still translated."""
    t = k.T[thread]
    whole = M_KI | M_I | M_KE | M_E
    for h in range(k.ck.shape[0] - 1):
        key = k.ck[h, CK_KEY]
        if key == -1 or (key >> 36) != space:
            continue
        base = (key & ((1 << 36) - 1)) << CHUNK_BITS
        end = base + CHUNK
        p = next_with(k, space, base, end, whole, whole)
        while p < end and k.g[G_OUT] + 8 < k.W.shape[0]:
            q = next_without(k, space, p, end, whole, whole)
            record(
                k, 105, ERROR, CERTAIN, proc, space, thread, p << 12, (q - p) << 12,
                t[T_ENTER], NULL, t[T_ENTER_SEQ], seq, 0,
            )  # fmt: skip
            p = next_with(k, space, q, end, whole, whole)


@spliced
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
            if k.g[C_HAS_MAP] and k.g[C_HAS_UNMAP] and not k.S[space, S_MULTI]:
                meanwhile, mapping = mapped_meanwhile(k, thread, proc, space)
                if not meanwhile and not mapping:
                    all_remaining(k, thread, proc, space, seq)
            if k.S[space, S_ENTRIES] != NULL:
                k.S[space, S_ENTRIES] = 0
            remember_unmap(k, thread, space, 0, 1 << 52, 0)
            transform_all(k, space, X_LEAVE, 0, M_KI | M_KE)
            unmapped(k, last_gap(k, thread), space, 0, 1 << 52, ts, seq)
        return
    if not known or not valid(addr, size):
        tally(k, J_105, Y_UNKNOWN_ARGS)
        if ret < 0 and not iommufd:
            return
        k.S[space, S_ENTRIES] = NULL
        if ev_lo != NULL:
            apply_map(k, space, ev_lo, ev_hi, X_FORGET_ENTRY, 0)
            unmapped(k, last_gap(k, thread), space, ev_lo, ev_hi, ts, seq)
        elif not k.g[C_HAS_UNMAP]:
            transform_all(k, space, X_FORGET, 0, 0)
        else:
            transform_all(k, space, X_FORGET_ENTRY, 0, k.S[space, S_DEFAULT] & ~M_KE)
        return
    p0, p1 = addr >> 12, (addr + size) >> 12
    if ret < 0:
        v0, v1 = map_at(k, space, p0), map_at(k, space, p1)
        last = map_at(k, space, p1 - 1)
        begins = M_KE | M_E | M_FIRST
        cut = v0 & begins == M_KE | M_E or (
            v1 & begins == M_KE | M_E and last & (M_KE | M_E) != M_KE
        )
        unsure = not (v0 & M_KE and (v1 | last) & M_KE)
        harmless = iommufd and ret == -2 and not cut
        if not (harmless or k.S[space, S_VIOMMU]) and in_conversion(k, thread, CV_PRIVATE, p0, p1):
            fail_in_hand(k, thread, space, ret, ts)
        tally(k, J_105, Y_DECIDED)
        if cut and ((ret == -22 and not iommufd) or (ret == -2 and iommufd)):
            record(
                k, 105, WARNING, CERTAIN, proc, space, thread, addr, size,
                t[T_ENTER], ts, t[T_ENTER_SEQ], seq, -ret,
            )  # fmt: skip
            if iommufd:
                if ev_lo != NULL:
                    unmapped(k, last_gap(k, thread), space, ev_lo, ev_hi, ts, seq)
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
    whole = M_KI | M_I | M_KE | M_E
    meanwhile, mapping = False, False
    if k.g[C_HAS_MAP]:
        if k.S[space, S_MULTI] or not k.g[C_HAS_UNMAP]:
            apply_map(k, space, p0, p1, X_UNTRANSLATE, 0)
        else:
            meanwhile, mapping = mapped_meanwhile(k, thread, proc, space)
            p = p1 if meanwhile or mapping else next_with(k, space, p0, p1, whole, whole)
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
    cut = map_at(k, space, p1) & (M_KE | M_E | M_FIRST) == M_KE | M_E
    if cut:  # what is left behind the range is an entry of its own
        apply_map(k, space, p1, p1 + 1, X_SET, M_FIRST)
    if k.S[space, S_ENTRIES] != NULL:
        gone = count_with(k, space, p0, p1, M_FIRST)
        k.S[space, S_ENTRIES] = max(k.S[space, S_ENTRIES] - gone + int(cut), 0)
    if k.T[proc, P_HAS_VM]:
        remember_unmap(k, thread, space, p0, p1, 0)
    some, p = 0, p0
    while p < p1:
        q = p1
        if meanwhile:  # what is there was mapped after the unmap
            p = next_without(k, space, p, p1, whole, whole)
            q = next_with(k, space, p, p1, whole, whole)
        these, _ = apply_map(k, space, p, q, X_LEAVE, 0)
        some |= these
        p = q
    lo, hi = p0, p1
    if ev_lo != NULL:
        lo, hi = min(lo, ev_lo), max(hi, ev_hi)
    if some & M_WATCHED or lo < p0 or hi > p1:
        unmapped(k, last_gap(k, thread), space, lo, hi, ts, seq)


@jit
def mapped_meanwhile(k: Any, thread: int, proc: int, space: int) -> tuple[bool, bool]:
    """Did another thread's map return since the thread's open unmap was entered; is one under
    way?"""
    last = k.T[proc, P_LAST_MAP_RETURN]
    done = last != NULL and last >= k.T[thread, T_ENTER]
    done = done and k.T[proc, P_LAST_MAP_THREAD] != thread
    for other in range(k.g[G_THREADS]):
        t = k.T[other]
        if other == thread or t[T_STATE] != STATE_FRAME or t[T_FIRST_MAP] == NULL:
            continue
        if (t[T_OP] == OP_MAP or t[T_OP] == OP_MAP_FILE) and t[T_SPACE] == space:
            return done, True
    return done, False


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
            end_candidates(k, 104, proc, s, -1, -1, 0, 1 << 52, 1 << 62, False, -1, 0, -1)
            transform_all(k, s, X_FORGET_ENTRY, 0, row[S_DEFAULT] & ~M_KE)


@jit
def leaked(k: Any, space: int, thread: int, since: int, seq: int, sev: int, conf: int) -> None:
    """TK109: the container is gone and pages are still translated: one record a run of them."""
    tally(k, J_109, Y_DECIDED)
    for h in range(k.ck.shape[0] - 1):
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
def none_left(k: Any, space: int) -> None:
    """TK109: no page is translated of those that are known."""
    if k.S[space, S_DEFAULT] & M_KI:
        tally(k, J_109, Y_DECIDED)
    else:
        tally(k, J_109, Y_LOSS if k.g[G_LOST] else Y_LATE)


@jit
def domain_freed(k: Any, thread: int, obj: int, ts: int, seq: int) -> None:
    """TK109: a domain ends.  Judged where a probe showed that it was the container's only one.

    Who ends it unmaps before what is left.  A thread whose process is not known to be the
    container's may have done so unnoticed.
    """
    if obj == NULL:
        return
    proc = process_of(k, thread)
    for s in range(k.g[G_SPACES]):
        row = k.S[s]
        if row[S_KIND] == SPACE_CONTAINER and row[S_DOMAIN] == obj and not row[S_MULTI]:
            row[S_DOMAIN] = NULL
            if not k.g[C_HAS_UNMAP]:
                tally(k, J_109, Y_NO_UNMAP)
            elif not live_anywhere(k, s, M_I):
                none_left(k, s)
            elif row[S_PROC] == proc or (row[S_PROC] >= 0 and has_ended(k, row[S_PROC])):
                leaked(k, s, thread, ts, seq, ERROR, CERTAIN)
            else:
                tally(k, J_109, Y_LATE)
                for code in (101, 102, 104):
                    end_candidates(
                        k, code, row[S_PROC], s, -1, -1, 0, 1 << 52, 1 << 62, False, -1, 0, -1
                    )
                transform_all(k, s, X_FORGET, 0, 0)
