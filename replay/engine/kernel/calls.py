"""Calls open and return on each thread; a returned one becomes a change of the state."""

from __future__ import annotations

from typing import Any

from tracekit.compiled.kernels import jit, spliced

from .conversions import attribute_change, gmem_attributes
from .discards import discard_done
from .dma import destroy_ioas, map_done, unmap_done
from .identity import add_gmem, descriptor_gone, only_container, process_of, space_of
from .layout import *
from .meanwhile import forget_meanwhile
from .missing import drop_dead
from .planes import sane
from .relations import relate, unrelate
from .slots import live_vms, set_slot


@jit
def op_of_ioctl(cmd: int) -> int:
    """The operation that an ioctl command is."""
    if cmd == 0x4020AED2:
        return OP_ATTR
    if cmd == 0x3B71 or cmd == 0x3B85:
        return OP_MAP
    if cmd == 0x3B8F:
        return OP_MAP_FILE
    if cmd == 0x3B72 or cmd == 0x3B86:
        return OP_UNMAP
    if cmd == 0xAE80:
        return OP_RUN
    if cmd == 0xAE01:
        return OP_CREATE_VM
    if cmd == 0xC040AED4:
        return OP_CREATE_GMEM
    if cmd == 0x4020AE46 or cmd == 0x40A0AE49:
        return OP_SLOT
    if cmd == 0x3B80:
        return OP_DESTROY
    if cmd & 0xFFFF == 0xAED2:
        return OP_GMEM_ATTR
    if cmd == 0x3B66:
        return OP_SET_IOMMU
    if cmd == 0x3B81:
        return OP_IOAS_ALLOC
    if (cmd & 0xFF00) == 0x3B00:
        return OP_VFIO_OTHER
    return OP_NONE


@jit
def counts_for_grace(op: int) -> bool:
    """True for the calls whose end starts the grace again."""
    return op == OP_ATTR or op == OP_MAP or op == OP_MAP_FILE or op == OP_UNMAP or op == OP_DISCARD


@jit
def notice_gap(k: Any, proc: int, ts: int) -> None:
    """Rule 4: nothing of the process was under way for longer than the grace.

    A call whose callee has returned is over, though its thread may not have been seen since.
    """
    p = k.T[proc]
    last = p[P_LAST_RETURN]
    if p[P_OPEN] > 0:
        for other in range(k.g[G_THREADS]):
            t = k.T[other]
            if t[T_STATE] == STATE_FRAME and t[T_COUNTED] and process_of(k, other) == proc:
                if t[T_RET] == NULL:
                    return
                last = t[T_RET_TS] if last == NULL else max(last, t[T_RET_TS])
    if last != NULL and ts - last > k.g[C_GRACE]:
        p[P_LAST_GAP] = ts


@jit
def start_run(k: Any, thread: int, op: int) -> None:
    """A run of one sort of call begins: what its calls do to adjacent pages is one occurrence."""
    k.g[G_GROUP] += 1
    k.T[thread, T_RUN] = k.g[G_GROUP]
    k.T[thread, T_RUN_OP] = op


@jit
def open_frame(k: Any, b: Any, i: int, thread: int, op: int) -> None:
    """A call begins on the thread (one that was open has been ended by :func:`closing`)."""
    t = k.T[thread]
    proc = process_of(k, thread)
    if op == OP_MAP or op == OP_MAP_FILE:
        end_returned_unmaps(k, thread, proc, b[B_SEQ, i])
    t[T_STATE] = STATE_FRAME
    t[T_OP] = op
    t[T_CALL] = b[B_EV, i]
    t[T_ENTER] = b[B_TS, i]
    t[T_ENTER_SEQ] = b[B_SEQ, i]
    t[T_FD] = b[B_FD, i]
    t[T_CMD] = b[B_CMD, i]
    t[T_RANK] = 0
    t[T_OBJECT] = NULL
    t[T_RET] = NULL
    t[T_ADDR] = NULL
    t[T_SIZE] = NULL
    t[T_COMMIT] = NULL
    t[T_COMMIT_SEQ] = -1
    t[T_FIRST_MAP] = NULL
    t[T_FIRST_MAP_SEQ] = -1
    t[T_EV_LO] = NULL
    t[T_EV_HI] = NULL
    t[T_TP_ADDR] = NULL
    t[T_ATTR] = NULL
    t[T_VADDR] = NULL
    t[T_OFFSET] = NULL
    t[T_FILE_FD] = NULL
    t[T_ID] = NULL
    t[T_FLAGS] = NULL
    t[T_SPACE] = -1
    t[T_EV_SPACE] = -1
    t[T_COUNTED] = 0
    t[T_ENTERED] = 0
    t[T_EPROBED] = 0
    t[T_NESTED] = 0
    t[T_GMEM] = 0
    run_op = OP_MAP if op == OP_MAP_FILE else op
    if OP_ATTR <= run_op <= OP_DESTROY and run_op != t[T_RUN_OP]:
        start_run(k, thread, run_op)
    if counts_for_grace(op):
        notice_gap(k, proc, b[B_TS, i])
        k.T[proc, P_OPEN] += 1
        t[T_COUNTED] = 1
    elif op == OP_GMEM_ATTR:  # after which nothing is known that could be over
        notice_gap(k, proc, b[B_TS, i])


@spliced
def leave_frame(k: Any, thread: int, ts: int) -> None:
    """The call is over: nothing of it is under way any more."""
    t = k.T[thread]
    t[T_STATE] = STATE_NONE
    if t[T_COUNTED]:
        t[T_COUNTED] = 0
        p = k.T[process_of(k, thread)]
        p[P_OPEN] = max(p[P_OPEN] - 1, 0)
        p[P_LAST_RETURN] = ts if p[P_LAST_RETURN] == NULL else max(p[P_LAST_RETURN], ts)
        if k.g[G_N] and t[T_OP] != OP_ATTR and t[T_OP] != OP_UNMAP:
            forget_meanwhile(k)


@jit
def continues(k: Any, b: Any, i: int, thread: int, seen: int) -> bool:
    """Is the system call's entry (or an eprobe on it) the other one's companion, not a new call?

    Which of the two comes first depends on the order in which the recorder enabled them.
    """
    t = k.T[thread]
    return (
        t[T_STATE] == STATE_FRAME
        and t[T_CALL] == EV_IOCTL
        and t[T_CMD] == b[B_CMD, i]
        and (t[T_FD] == b[B_FD, i] or b[B_FD, i] == NULL or t[T_FD] == NULL)
        and not t[seen]
    )


@spliced
def closing(k: Any, b: Any, i: int, thread: int, ev: int) -> tuple[bool, int, int]:
    """Does the event end the call that is open on its thread?  With which result, and when."""
    t = k.T[thread]
    if t[T_STATE] != STATE_FRAME:
        return False, 0, 0
    if ev == EV_IOCTL_RET:
        return t[T_CALL] == EV_IOCTL, b[B_RET, i], b[B_TS, i]
    if ev == EV_RET:  # the stream puts the code of the call's entry into ``cmd``
        return t[T_CALL] == b[B_CMD, i], b[B_RET, i], b[B_TS, i]
    if ev == EV_ARGS_TYPE1 or ev == EV_ARGS_KVM or ev == EV_ARGS_IOMMUFD:
        # without system calls in the recording a callee's next call is the next one
        again = not k.g[C_HAS_IOCTL] and t[T_CALL] == EV_IOCTL and t[T_RET] != NULL
        return again, t[T_RET], t[T_RET_TS]
    if ev == EV_IOCTL and continues(k, b, i, thread, T_ENTERED):
        return False, 0, 0
    if ev == EV_ARGS_EPROBE and continues(k, b, i, thread, T_EPROBED):
        return False, 0, 0
    if (
        ev == EV_IOCTL
        or ev == EV_ARGS_EPROBE
        or ev == EV_FALLOCATE
        or ev == EV_MADVISE
        or ev == EV_MMAP
        or ev == EV_MUNMAP
        or ev == EV_OPEN
        or ev == EV_CLOSE
        or ev == EV_RUN
        or ev == EV_EXEC
        or ev == EV_EXIT
    ):
        # the thread went on without a return being recorded: the callee's result, else taken as
        # done
        if t[T_RET] != NULL:
            return True, t[T_RET], t[T_RET_TS]
        return True, 0, b[B_TS, i]
    return False, 0, 0


@jit
def container_of_frame(k: Any, thread: int) -> int:
    """The container that the thread's open ioctl is about; -1 if it cannot be told."""
    t = k.T[thread]
    if t[T_SPACE] >= 0:
        return t[T_SPACE]
    proc = process_of(k, thread)
    op = t[T_OP]
    found = -1
    if op == OP_MAP or op == OP_MAP_FILE or op == OP_UNMAP:
        if t[T_CMD] == 0x3B71 or t[T_CMD] == 0x3B72:
            found = space_of(k, SPACE_CONTAINER, proc, t[T_FD], NULL, t[T_OBJECT])
        elif t[T_ID] != NULL:
            found = space_of(k, SPACE_CONTAINER, proc, t[T_FD], t[T_ID], t[T_OBJECT])
        else:
            found = only_container(k, proc)
    elif op == OP_SET_IOMMU:
        found = space_of(k, SPACE_CONTAINER, proc, t[T_FD], NULL, NULL)
    else:
        found = only_container(k, proc)
    t[T_SPACE] = found
    return found


@jit
def return_frame(k: Any, thread: int, ret: int, ts: int, seq: int) -> None:
    """The call returned: what it did becomes the state."""
    t = k.T[thread]
    op = t[T_OP]
    proc = process_of(k, thread)
    if op == OP_ATTR:
        vm = space_of(k, SPACE_VM, proc, t[T_FD], NULL, NULL)
        attribute_change(k, thread, vm, ret, ts, seq)
    elif op == OP_MAP or op == OP_MAP_FILE:
        if not (t[T_CMD] == 0x3B71 and t[T_FLAGS] != NULL and t[T_FLAGS] & 4):
            space = container_of_frame(k, thread)
            if space >= 0:
                map_done(k, thread, space, ret, ts, seq)
    elif op == OP_UNMAP:
        if not (t[T_CMD] == 0x3B72 and t[T_FLAGS] != NULL and t[T_FLAGS] & 4):
            space = container_of_frame(k, thread)
            if space >= 0:
                unmap_done(k, thread, space, ret, ts, seq)
    elif op == OP_DISCARD:
        discard_done(k, thread, ret, ts, seq)
    elif op == OP_CREATE_VM:
        if ret >= 0:
            descriptor_gone(k, proc, ret)
            if live_vms(k, proc) == 0:
                k.T[proc, P_BORN] = 1
            vm = space_of(k, SPACE_VM, proc, ret, NULL, NULL)
            if not k.T[proc, P_GMEM_ATTR]:
                k.S[vm, S_DEFAULT] = A_K
    elif op == OP_CREATE_GMEM:
        if ret > 0:
            add_gmem(k, proc, ret, t[T_SIZE])
    elif op == OP_SLOT:
        if ret >= 0:
            set_slot(k, thread, space_of(k, SPACE_VM, proc, t[T_FD], NULL, NULL))
    elif op == OP_GMEM_ATTR:
        gmem_attributes(k, thread, ret)
    elif op == OP_SET_IOMMU:
        if ret >= 0:
            space = container_of_frame(k, thread)
            if space >= 0 and not k.S[space, S_DEAD]:
                k.S[space, S_DEFAULT] = M_KI | M_KE
                k.S[space, S_ENTRIES] = 0
    elif op == OP_IOAS_ALLOC:
        if ret >= 0:
            k.T[proc, P_IOAS_BORN] = 1
    elif op == OP_DESTROY:
        if ret >= 0 and t[T_ID] != NULL:
            destroy_ioas(k, proc, t[T_FD], t[T_ID])
    elif op == OP_MMAP:
        at = ret
        if at == 0:
            at = t[T_VADDR] if t[T_FLAGS] != NULL and t[T_FLAGS] & 0x10 else 0
        if at > 0 and sane(at, t[T_SIZE]):
            if t[T_FILE_FD] >= 0 and 0 <= t[T_OFFSET] <= (1 << 60):
                relate(k, proc, t[T_FILE_FD], at, t[T_SIZE], t[T_OFFSET], t[T_FLAGS])
            else:
                unrelate(k, proc, at, t[T_SIZE])
    elif op == OP_MUNMAP:
        if ret >= 0 and sane(t[T_VADDR], t[T_SIZE]):
            unrelate(k, proc, t[T_VADDR], t[T_SIZE])
    elif op == OP_OPEN:
        if ret > 0:
            descriptor_gone(k, proc, ret)
            drop_dead(k, proc)
    elif op == OP_CLOSE:
        if ret >= 0:
            descriptor_gone(k, proc, t[T_FD])
            drop_dead(k, proc)
    leave_frame(k, thread, ts)


@jit
def take_arguments(k: Any, b: Any, i: int, thread: int, rank: int) -> None:
    """The call's structure, from a probe; a better probe's word replaces a worse one's."""
    t = k.T[thread]
    op = t[T_OP]
    if rank == 1:
        # an eprobe may have read what was not there: the structure's own size shows it
        size = b[B_ARGSZ, i]
        cmd = t[T_CMD]
        good = True
        if cmd == 0x3B71:
            good = size == 32
        elif cmd == 0x3B72 or cmd == 0x3B86:
            good = size >= 24
        elif cmd == 0x3B85 or cmd == 0x3B8F:
            good = size == 40
        if not good:
            k.g[N_EPROBE_UNKNOWN] += 1
            return
    if rank < t[T_RANK]:
        return
    if t[T_RANK] == 1 and rank > 1 and t[T_ADDR] != NULL and b[B_ADDR, i] != NULL:
        if t[T_ADDR] != b[B_ADDR, i] or t[T_SIZE] != b[B_SIZE, i]:
            k.g[N_EPROBE_OVERRULED] += 1
    t[T_RANK] = rank
    if b[B_ADDR, i] != NULL or op == OP_ATTR:
        t[T_ADDR] = b[B_ADDR, i]
        t[T_SIZE] = b[B_SIZE, i]
        if op != OP_SLOT and sane(t[T_ADDR], t[T_SIZE]):
            rows = min(t[T_SIZE] >> 12, ROWS_A_CALL)  # a row for each run of its pages
            if op == OP_ATTR and not k.g[C_IN_PLACE]:
                rows = min(rows, k.g[G_ACTIVE] + k.g[G_REMAINING])  # between those watched already
            k.g[G_ROWS] = max(k.g[G_ROWS], rows)
    if b[B_VADDR, i] != NULL:
        t[T_VADDR] = b[B_VADDR, i]
    if b[B_OFFSET, i] != NULL:
        t[T_OFFSET] = b[B_OFFSET, i]
    if b[B_FILE_FD, i] != NULL:
        t[T_FILE_FD] = b[B_FILE_FD, i]
    if b[B_ID, i] != NULL:
        t[T_ID] = b[B_ID, i]
    if b[B_FLAGS, i] != NULL and rank != 2:
        t[T_FLAGS] = b[B_FLAGS, i]
    if b[B_ATTR, i] != NULL:
        t[T_ATTR] = b[B_ATTR, i]


@spliced
def frame_for(k: Any, b: Any, i: int, thread: int) -> bool:
    """True if the event's call is open on the thread; opens it where no system call was
    recorded."""
    t = k.T[thread]
    if t[T_STATE] == STATE_UNKNOWN:
        return False
    if t[T_STATE] == STATE_FRAME and t[T_CALL] == EV_IOCTL:
        return t[T_CMD] == b[B_CMD, i] or b[B_CMD, i] == NULL
    if t[T_STATE] == STATE_FRAME or b[B_CMD, i] == NULL:
        return False
    if k.g[C_HAS_IOCTL]:
        return False  # the system call was recorded elsewhere, so this one is over already
    open_frame(k, b, i, thread, op_of_ioctl(b[B_CMD, i]))
    t[T_CALL] = EV_IOCTL
    return True


@jit
def end_returned_unmaps(k: Any, by: int, proc: int, seq: int) -> None:
    """End the unmaps of other threads whose callee has returned: what is mapped now comes after."""
    for thread in range(k.g[G_THREADS]):
        t = k.T[thread]
        if thread == by or t[T_STATE] != STATE_FRAME or t[T_OP] != OP_UNMAP:
            continue
        if t[T_RET] != NULL and process_of(k, thread) == proc:
            return_frame(k, thread, t[T_RET], t[T_RET_TS], seq)


@jit
def end_returned(k: Any, seq: int) -> None:
    """End the calls whose callee has returned, in that order: their exits will not be seen."""
    while True:
        first = -1
        for thread in range(k.g[G_THREADS]):
            t = k.T[thread]
            if t[T_STATE] == STATE_FRAME and t[T_RET] != NULL:
                if first < 0 or t[T_RET_TS] < k.T[first, T_RET_TS]:
                    first = thread
        if first < 0:
            return
        return_frame(k, first, k.T[first, T_RET], k.T[first, T_RET_TS], seq)
