"""From events to calls: what docs/judging.md says, event by event."""

from __future__ import annotations

from typing import Any

from tracekit.compiled.kernels import entry, jit, spliced

from .calls import (
    closing,
    container_of_frame,
    continues,
    end_returned,
    frame_for,
    notice_gap,
    op_of_ioctl,
    open_frame,
    return_frame,
    start_run,
    take_arguments,
)
from .conversions import settle_returned
from .discards import begin_backing, discard_entered
from .dma import domain_freed, forget_range, judge_entries
from .identity import add_gmem, is_gmem, process_of, same_object, space_of
from .in_hand import END_TRACE, end_in_hand
from .layout import *
from .lifetimes import (
    in_the_hole,
    judge_exit,
    lost,
    new_program,
    process_exited,
    run_or_exit,
    unmapped_by_nobody,
    unmapped_in,
)
from .missing import drop_all_uncovered
from .planes import apply_map, forget_attributes_of, sane, spans, transform_all
from .relations import backing_known, in_shared_file, relate
from .slots import forget_unmaps
from .watches import forget_watches, unmapped


@spliced
def map_event(k: Any, b: Any, i: int, thread: int) -> None:
    """iommu:map: pages became reachable, if the thread is in a VFIO or iommufd call."""
    t = k.T[thread]
    a, size = b[B_ADDR, i], b[B_SIZE, i]
    if not sane(a, size):
        return
    p0, p1 = a >> 12, (a + size + 4095) >> 12
    proc = process_of(k, thread)
    if spans(a, size) >= MAX_CHUNKS:
        # more than a machine has: whatever it was, nothing is known of the process's mappings now
        for s in range(k.g[G_SPACES]):
            if k.S[s, S_KIND] == SPACE_CONTAINER and k.S[s, S_PROC] == proc:
                transform_all(k, s, X_FORGET, 0, 0)
        return
    if t[T_STATE] == STATE_UNKNOWN:
        for s in range(k.g[G_SPACES]):
            if k.S[s, S_KIND] == SPACE_CONTAINER and k.S[s, S_PROC] == proc:
                forget_range(k, proc, s, p0, p1)
        return
    if t[T_STATE] != STATE_FRAME or t[T_CALL] != EV_IOCTL or (t[T_CMD] & 0xFF00) != 0x3B00:
        return
    space = container_of_frame(k, thread)
    if space < 0:
        for s in range(k.g[G_SPACES]):
            if k.S[s, S_KIND] == SPACE_CONTAINER and k.S[s, S_PROC] == proc:
                forget_range(k, proc, s, p0, p1)
        return
    if t[T_FIRST_MAP] == NULL:
        t[T_FIRST_MAP] = b[B_TS, i]
        t[T_FIRST_MAP_SEQ] = b[B_SEQ, i]
    t[T_EV_LO] = p0 if t[T_EV_LO] == NULL else min(t[T_EV_LO], p0)
    t[T_EV_HI] = p1 if t[T_EV_HI] == NULL else max(t[T_EV_HI], p1)
    if k.g[G_ACTIVE]:
        settle_returned(k, proc, space, p0, p1, b[B_SEQ, i])
    mapping = t[T_OP] == OP_MAP or t[T_OP] == OP_MAP_FILE
    some, _ = apply_map(k, space, p0, p1, X_MAP_EVENT, M_C if mapping else 0)
    if some & M_I:
        k.S[space, S_MULTI] = 1  # a second domain: its unmaps come, or it is freed without any


@spliced
def unmap_event(k: Any, b: Any, i: int, thread: int) -> None:
    """iommu:unmap: pages are being taken away, in an unmap call or at teardown."""
    t = k.T[thread]
    a, size = b[B_ADDR, i], b[B_SIZE, i]
    if not sane(a, size):
        return
    p0, p1 = a >> 12, (a + size + 4095) >> 12
    proc = process_of(k, thread)
    if spans(a, size) >= MAX_CHUNKS:
        # more than a machine has: whatever it was, nothing is known of the process's mappings now
        for s in range(k.g[G_SPACES]):
            if k.S[s, S_KIND] == SPACE_CONTAINER and k.S[s, S_PROC] == proc:
                transform_all(k, s, X_FORGET, 0, 0)
        return
    k.T[proc, P_LAST_UNMAP] = b[B_TS, i]
    framed = t[T_STATE] == STATE_FRAME and t[T_CALL] == EV_IOCTL and (t[T_CMD] & 0xFF00) == 0x3B00
    if framed:
        space = container_of_frame(k, thread)
        if space >= 0:
            t[T_EV_LO] = p0 if t[T_EV_LO] == NULL else min(t[T_EV_LO], p0)
            t[T_EV_HI] = p1 if t[T_EV_HI] == NULL else max(t[T_EV_HI], p1)
            some, _ = apply_map(k, space, p0, p1, X_UNMAP_EVENT, 0)
            if some & M_WATCHED and t[T_OP] != OP_UNMAP:
                unmapped(k, k.T[proc, P_LAST_GAP], space, p0, p1, b[B_TS, i], b[B_SEQ, i])
            return
    owns = False
    for s in range(k.g[G_SPACES]):
        if k.S[s, S_KIND] == SPACE_CONTAINER and k.S[s, S_PROC] == proc:
            owns = True
            unmapped_in(k, b, i, s, p0, p1)
    if not owns and t[T_STATE] != STATE_FRAME:
        unmapped_by_nobody(k, b, i, p0, p1)


@jit
def chunks_needed(k: Any, addr: int, size: int) -> int:
    """How many chunks a range may make; a range no machine has makes none."""
    if not sane(addr, size):
        return 1
    n = spans(addr, size)
    return n if n < MAX_CHUNKS else 1


@spliced
def rows_needed(k: Any, b: Any, i: int) -> int:
    """How many chunks and parts an event may have to spread over what is smaller."""
    t = k.T[b[B_THREAD, i]]
    size = max(b[B_SIZE, i], t[T_SIZE], t[T_TP_SIZE], 0)
    rows = (min(k.g[G_AM], (size >> 21) + 2) + 6) * (k.g[G_CONTAINERS] + 1) + 16
    return min(rows, MOST_ROWS)


@spliced
def room(k: Any, need: int, rows: int) -> int:
    """What must grow before the next event can be taken; GROW_NONE if nothing."""
    g = k.g
    if (g[G_CHUNKS] + need + 8) * 2 > k.ck.shape[0]:
        return GROW_CHUNKS
    if max(g[G_CT] - k.ct.shape[0], g[G_MM] - k.mm.shape[0], g[G_AM] - k.am.shape[0]) + rows >= 0:
        g[G_DENSE] = rows
        return GROW_DENSE
    grows = k.W.shape[0] < MOST_WATCHES
    if grows and g[G_WTOP] + g[G_REMAINING] + g[G_ROWS] + 64 > k.W.shape[0]:
        return GROW_WATCHES
    some = g[G_REMAINING] + g[G_ACTIVE] + g[G_ROWS]
    if g[G_OUT] + (2 * some if g[C_IN_PLACE] else some) + 64 > k.W.shape[0]:
        if grows or g[G_OUT]:  # records that are taken out make room, too
            return GROW_WATCHES
    if g[G_SLOTS] + 4 > k.S.shape[0] or g[G_GMEM] + 4 > k.S.shape[0]:
        return GROW_TABLES
    if g[G_N] + 4 > k.S.shape[0] and g[G_N] + 4 < MOST_MEANWHILE:
        return GROW_TABLES
    if g[G_SPACES] + 4 > k.S.shape[0] or g[G_R] + 4 > k.S.shape[0] or g[G_D] + 4 > k.S.shape[0]:
        return GROW_TABLES
    if g[G_WORK] > g[C_SWITCH]:
        return GROW_SPEED
    return GROW_NONE


@jit
def overflowed(k: Any, records: int) -> None:
    """There was no room: void are the records of this event, and everything is unknown."""
    k.g[G_OUT] = records
    k.g[G_FULL] = 0
    lost(k, NULL, Y_LIMIT)


@jit
def cares(k: Any, thread: int) -> bool:
    """True if something waits for the thread to run its guest."""
    t = k.T[thread]
    return t[T_OPEN_WATCHES] > 0 or t[T_CV_DIR] != CV_NONE or k.g[G_U] > 0


@spliced
def one(k: Any, b: Any, i: int, thread: int, ev: int) -> None:
    """Take one event, the call that it ended being done with."""
    t = k.T[thread]
    ts, seq = b[B_TS, i], b[B_SEQ, i]
    g = k.g
    proc = process_of(k, thread)
    if ev == EV_MAP:
        map_event(k, b, i, thread)
    elif ev == EV_UNMAP:
        unmap_event(k, b, i, thread)
    elif ev == EV_IOCTL:
        op = op_of_ioctl(b[B_CMD, i])
        if not continues(k, b, i, thread, T_ENTERED):
            open_frame(k, b, i, thread, op)
        t[T_ENTERED] = 1
        if op == OP_RUN and cares(k, thread):
            notice_gap(k, proc, ts)
            run_or_exit(k, thread, ts, seq, R_RUN)
    elif ev == EV_CALLEE_RET:
        if t[T_STATE] == STATE_FRAME and t[T_CALL] == EV_IOCTL:
            if t[T_NESTED]:
                t[T_NESTED] -= 1
            else:
                t[T_RET] = b[B_RET, i]
                t[T_RET_TS] = ts
                t[T_RET_GAP] = k.T[proc, P_LAST_GAP]
    elif ev == EV_IOPT_RET:
        if t[T_STATE] == STATE_FRAME and t[T_CALL] == EV_IOCTL and t[T_RET] == NULL:
            t[T_RET] = b[B_RET, i]
            t[T_RET_TS] = ts
            t[T_RET_GAP] = k.T[proc, P_LAST_GAP]
    elif ev == EV_ARGS_EPROBE:
        if not continues(k, b, i, thread, T_EPROBED):
            open_frame(k, b, i, thread, op_of_ioctl(b[B_CMD, i]))
            t[T_CALL] = EV_IOCTL
        t[T_EPROBED] = 1
        take_arguments(k, b, i, thread, 1)
    elif ev == EV_ARGS_TYPE1 or ev == EV_ARGS_KVM or ev == EV_ARGS_IOMMUFD:
        obj = b[B_OBJ, i]
        if obj != NULL and obj != 0 and ev != EV_ARGS_KVM:
            proc = same_object(k, proc, t[T_FD] if t[T_STATE] == STATE_FRAME else NULL, obj)
        if frame_for(k, b, i, thread):
            if ev != EV_ARGS_KVM:
                t[T_OBJECT] = obj
            if b[B_ADDR, i] != NULL:
                take_arguments(k, b, i, thread, 3)
            elif b[B_ID, i] != NULL:
                t[T_ID] = b[B_ID, i]
            elif t[T_OP] == OP_CREATE_GMEM:
                t[T_SIZE] = b[B_SIZE, i]
        elif t[T_STATE] == STATE_FRAME and t[T_CALL] == EV_IOCTL:
            t[T_NESTED] += 1  # VFIO_SET_IOMMU asks the driver about its extensions first
    elif ev == EV_ARGS_IOPT or ev == EV_ARGS_IOPT_FILE:
        if t[T_STATE] == STATE_FRAME and t[T_CALL] == EV_IOCTL:
            op = t[T_OP]
            if op == OP_MAP or op == OP_UNMAP or op == OP_MAP_FILE:
                take_arguments(k, b, i, thread, 2)
    elif ev == EV_ATTR_TP:
        if t[T_STATE] == STATE_FRAME and t[T_OP] == OP_ATTR:
            if t[T_RANK] == 1 and (t[T_ADDR] != b[B_ADDR, i] or t[T_SIZE] != b[B_SIZE, i]):
                k.g[N_EPROBE_OVERRULED] += 1
            t[T_TP_ADDR] = b[B_ADDR, i]
            t[T_TP_SIZE] = b[B_SIZE, i]
            t[T_TP_ATTR] = b[B_ATTR, i]
        elif t[T_STATE] == STATE_NONE and not k.g[C_HAS_IOCTL]:
            # the tracepoint is all there is: it stands for the call
            open_frame(k, b, i, thread, OP_ATTR)
            t[T_CALL] = EV_IOCTL
            t[T_CMD] = 0x4020AED2
            t[T_TP_ADDR] = b[B_ADDR, i]
            t[T_TP_SIZE] = b[B_SIZE, i]
            t[T_TP_ATTR] = b[B_ATTR, i]
        else:
            for s in range(g[G_SPACES]):
                if k.S[s, S_KIND] == SPACE_VM and k.S[s, S_PROC] == proc:
                    forget_attributes_of(k, s)
    elif ev == EV_POST:
        if t[T_STATE] == STATE_FRAME and t[T_OP] == OP_ATTR:
            if t[T_COMMIT] == NULL:
                t[T_COMMIT] = ts
                t[T_COMMIT_SEQ] = seq
            vm = space_of(k, SPACE_VM, proc, t[T_FD], NULL, NULL)
            if b[B_OBJ, i] != NULL:
                k.S[vm, S_KVM] = b[B_OBJ, i]
        elif t[T_STATE] != STATE_FRAME:
            for s in range(g[G_SPACES]):
                if k.S[s, S_KIND] == SPACE_VM and k.S[s, S_PROC] == proc:
                    forget_attributes_of(k, s)
    elif ev == EV_GMEM_FALLOCATE:
        if t[T_STATE] == STATE_FRAME and t[T_CALL] == EV_FALLOCATE:
            add_gmem(k, proc, t[T_FD], NULL)
            t[T_GMEM] = 1
    elif ev == EV_UNMAP_HVA:
        if (
            t[T_STATE] == STATE_FRAME
            and t[T_CALL] == EV_FALLOCATE
            and t[T_OP] == OP_DISCARD
            and t[T_VADDR] == NULL
            and b[B_SIZE, i] == t[T_SIZE]
            and b[B_VADDR, i] >= 0
            and t[T_OFFSET] >= 0
        ):
            # where this part of the file is mapped, had mmap not told
            t[T_VADDR] = b[B_VADDR, i]
            if not backing_known(k, proc, t[T_FD], t[T_OFFSET], t[T_SIZE]):
                relate(k, proc, t[T_FD], b[B_VADDR, i], t[T_SIZE], t[T_OFFSET], 1)
                discard_entered(k, thread, ts, t[T_ENTER_SEQ])
    elif ev == EV_FALLOCATE:
        op = OP_DISCARD if b[B_FLAGS, i] & 2 else OP_POPULATE
        open_frame(k, b, i, thread, op)
        t[T_GMEM] = is_gmem(k, proc, b[B_FD, i])  # the private side: nothing of a device's
        t[T_FLAGS] = b[B_FLAGS, i]
        t[T_OFFSET] = b[B_OFFSET, i]
        t[T_SIZE] = b[B_SIZE, i]
        if not t[T_GMEM]:
            begin_backing(k, thread, op, ts, seq)
    elif ev == EV_MADVISE:
        behaviour = b[B_FLAGS, i]
        op = OP_NONE
        if behaviour == 9 or behaviour == 4:
            op = OP_DISCARD
        elif behaviour == 22 or behaviour == 23:
            op = OP_POPULATE
        open_frame(k, b, i, thread, op)
        t[T_VADDR] = b[B_VADDR, i]
        t[T_SIZE] = b[B_SIZE, i]
        # DONTNEED leaves a shared file's pages where they are
        t[T_GMEM] = behaviour == 4 and in_shared_file(k, proc, b[B_VADDR, i])
        if not t[T_GMEM]:
            begin_backing(k, thread, op, ts, seq)
    elif ev == EV_MMAP:
        open_frame(k, b, i, thread, OP_MMAP)
        t[T_VADDR] = b[B_VADDR, i]
        t[T_SIZE] = b[B_SIZE, i]
        t[T_FLAGS] = b[B_FLAGS, i]
        t[T_FILE_FD] = b[B_FILE_FD, i]
        t[T_OFFSET] = b[B_OFFSET, i]
    elif ev == EV_MUNMAP:
        open_frame(k, b, i, thread, OP_MUNMAP)
        t[T_VADDR] = b[B_VADDR, i]
        t[T_SIZE] = b[B_SIZE, i]
    elif ev == EV_OPEN:
        open_frame(k, b, i, thread, OP_OPEN)
    elif ev == EV_CLOSE:
        open_frame(k, b, i, thread, OP_CLOSE)
    elif ev == EV_RUN:
        t[T_STATE] = STATE_NONE
        if t[T_RUN_OP] != OP_RUN:
            start_run(k, thread, OP_RUN)
        if cares(k, thread):
            notice_gap(k, proc, ts)
            run_or_exit(k, thread, ts, seq, R_RUN)
    elif ev == EV_MEMSLOT:
        if t[T_STATE] == STATE_FRAME and t[T_OP] == OP_SLOT:
            if b[B_ADDR, i] != NULL and t[T_RANK] == 0:
                take_arguments(k, b, i, thread, 3)
            if b[B_FILE_FD, i] != NULL:
                t[T_FILE_FD] = b[B_FILE_FD, i]
                t[T_OFFSET] = b[B_OFFSET, i]
    elif ev == EV_FORK:
        child = b[B_ID, i]
        k.T[child, T_PROC] = proc
        k.T[child, T_STATE] = STATE_NONE
        k.T[child, T_EXITED] = 0
    elif ev == EV_EXEC:
        t[T_STATE] = STATE_NONE
        t[T_CV_DIR] = CV_NONE
        forget_unmaps(k, thread)
        new_program(k, thread)
    elif ev == EV_EXIT:
        t[T_STATE] = STATE_NONE
        notice_gap(k, proc, ts)
        run_or_exit(k, thread, ts, seq, R_EXIT)
        t[T_EXITED] = 1
        if b[B_FLAGS, i] == 1 or (b[B_FLAGS, i] == NULL and proc == thread):
            process_exited(k, proc, ts)
    elif ev == EV_MAP_CALLED:
        if t[T_STATE] == STATE_FRAME and t[T_CALL] == EV_IOCTL and (t[T_CMD] & 0xFF00) == 0x3B00:
            space = container_of_frame(k, thread)
            if space >= 0 and b[B_OBJ, i] != NULL and k.S[space, S_DOMAIN] != b[B_OBJ, i]:
                if k.S[space, S_DOMAIN] != NULL:
                    k.S[space, S_MULTI] = 1
                k.S[space, S_DOMAIN] = b[B_OBJ, i]
    elif ev == EV_DOMAIN_FREED:
        domain_freed(k, thread, b[B_OBJ, i], ts, seq)


@entry
def run(k: Any, b: Any, start: int, end: int) -> tuple[int, int]:
    """Take the events [start, end) of a batch.  Returns (next event, what must grow first)."""
    g = k.g
    for i in range(start, end):
        ev = b[B_EV, i]
        if ev == EV_OTHER:
            continue
        if b[B_SIZE, i] > (1 << 30):
            g[G_NEED] = max(g[G_NEED], chunks_needed(k, b[B_ADDR, i], b[B_SIZE, i]))
        grow = room(k, g[G_NEED], rows_needed(k, b, i))
        if grow != GROW_NONE:
            return i, grow
        records = g[G_OUT]
        g[G_LAST_TS] = b[B_TS, i]
        if ev == EV_LOST:
            end_returned(k, b[B_SEQ, i])
            lost(k, b[B_UNTIL, i], Y_LOSS)
            continue
        thread = b[B_THREAD, i]
        pid = b[B_PROC, i]
        if pid != NULL and k.T[pid, P_PARENT] == pid and k.T[thread, T_PROC] != pid:
            k.T[thread, T_PROC] = pid
        if b[B_TS, i] < g[G_LOSS_UNTIL]:
            in_the_hole(k, b, i, thread, ev)
            continue
        ends, ret, ts = closing(k, b, i, thread, ev)
        if ends:
            if ev == EV_IOCTL_RET and k.T[thread, T_RET] != NULL:
                # its callee returned before; what it begins now was not under way then
                proc = process_of(k, thread)
                notice_gap(k, proc, b[B_TS, i])
                k.T[proc, P_LAST_GAP] = min(k.T[proc, P_LAST_GAP], b[B_TS, i] - 1)
            return_frame(k, thread, ret, ts, b[B_SEQ, i])
        one(k, b, i, thread, ev)
        if g[G_FULL] or g[G_OUT] + 8 >= k.W.shape[0]:
            overflowed(k, records)
    return end, GROW_NONE


@entry
def give_up_planes(k: Any) -> None:
    """The state would be larger than it may be: it begins anew."""
    overflowed(k, k.g[G_OUT])


@entry
def finish(k: Any, ts: int) -> None:
    """The trace ends at ``ts``."""
    records = k.g[G_OUT]
    end_returned(k, -1)
    for p in range(k.g[G_THREADS]):
        if k.T[p, P_PARENT] == p:
            notice_gap(k, p, ts)
            judge_exit(k, p, ts)
    for thread in range(k.g[G_THREADS]):
        end_in_hand(k, thread, NULL, -1, END_TRACE)
    judge_entries(k)
    drop_all_uncovered(k)
    if k.g[G_FULL] or k.g[G_OUT] + 8 >= k.W.shape[0]:
        overflowed(k, records)
    forget_watches(k, Y_END, True)
