"""Memory slots: whose a container's page is, and where a guest's IOMMU stands between."""

from __future__ import annotations

from typing import Any

from tracekit.compiled.kernels import jit

from .layout import *
from .planes import sane
from .watches import give_up


@jit
def live_vms(k: Any, proc: int) -> int:
    """How many VMs the process has."""
    count = 0
    for s in range(k.g[G_SPACES]):
        if k.S[s, S_KIND] == SPACE_VM and k.S[s, S_PROC] == proc and not k.S[s, S_DEAD]:
            count += 1
    return count


@jit
def set_slot(k: Any, thread: int, vm: int) -> None:
    """A KVM_SET_USER_MEMORY_REGION returned 0: the slot is there, or (size 0) is gone."""
    t = k.T[thread]
    if t[T_RANK] != 3 or t[T_ID] == NULL or t[T_SIZE] == NULL:
        return
    i = 0
    while i < k.g[G_SLOTS]:
        if k.S[i, L_VM] == vm and k.S[i, L_ID] == t[T_ID]:
            k.g[G_SLOTS] -= 1
            for c in range(L_VM, L_END):
                k.S[i, c] = k.S[k.g[G_SLOTS], c]
        else:
            i += 1
    if not sane(t[T_ADDR], t[T_SIZE]) or k.g[G_SLOTS] >= k.S.shape[0]:
        return
    row = k.S[k.g[G_SLOTS]]
    row[L_VM] = vm
    row[L_ID] = t[T_ID]
    row[L_GPA] = t[T_ADDR]
    row[L_SIZE] = t[T_SIZE]
    row[L_VADDR] = t[T_VADDR] if 0 <= t[T_VADDR] <= (1 << 60) else NULL
    row[L_FLAGS] = t[T_FLAGS] if t[T_FLAGS] != NULL else 0
    row[L_GMEM] = t[T_FILE_FD]
    row[L_OFFSET] = t[T_OFFSET]
    k.g[G_SLOTS] += 1


@jit
def slots_known(k: Any, vm: int) -> bool:
    """True if a slot of the VM is known, with its user address."""
    for i in range(k.g[G_SLOTS]):
        if k.S[i, L_VM] == vm and k.S[i, L_VADDR] != NULL:
            return True
    return False


@jit
def slot_over(k: Any, vm: int, p0: int, p1: int) -> int:
    """The VM's slot that holds all of these pages; -1 if none is known."""
    for i in range(k.g[G_SLOTS]):
        row = k.S[i]
        if row[L_VM] == vm and row[L_GPA] >> 12 <= p0 and p1 <= (row[L_GPA] + row[L_SIZE]) >> 12:
            return i
    return -1


@jit
def is_vm_of(k: Any, vm: int, proc: int) -> bool:
    """True if the space is a live VM of the process."""
    row = k.S[vm]
    return row[S_KIND] == SPACE_VM and row[S_PROC] == proc and not row[S_DEAD]


@jit
def look_for_viommu(k: Any, proc: int, space: int, iova: int, vaddr: int) -> None:
    """A map shows guest memory at an address that is not the guest's own: it has a vIOMMU."""
    if k.S[space, S_VIOMMU] or vaddr < 0:
        return
    inside = False
    for i in range(k.g[G_SLOTS]):
        row = k.S[i]
        if not is_vm_of(k, row[L_VM], proc) or row[L_VADDR] == NULL:
            continue
        if row[L_FLAGS] & 4 and row[L_VADDR] <= vaddr < row[L_VADDR] + row[L_SIZE]:
            inside = True
        if row[L_GPA] <= iova < row[L_GPA] + row[L_SIZE]:
            if row[L_VADDR] - row[L_GPA] == vaddr - iova:
                return
    if inside:
        k.S[space, S_VIOMMU] = 1
        give_up(k, proc, space, Y_VIOMMU)


@jit
def file_address(k: Any, proc: int, fd: int, offset: int) -> int:
    """Where the process maps this place of a file; NULL if that is not known."""
    for r in range(k.g[G_R]):
        row = k.S[r]
        if row[R_PROC] == proc and row[R_FD] == fd:
            if row[R_OFFSET] <= offset < row[R_OFFSET] + row[R_SIZE]:
                return row[R_VADDR] + offset - row[R_OFFSET]
    return NULL


@jit
def remember_unmap(k: Any, thread: int, space: int, p0: int, p1: int, refused: int) -> None:
    """The thread unmapped these pages itself, since it last ran the guest or converted; or for the
    change that was refused and is in hand.

    No page of a container is in two rows of a thread of one sort.
    """
    i = 0
    while i < k.g[G_U]:
        row = k.S[i]
        if (
            row[U_THREAD] == thread
            and row[U_SPACE] == space
            and row[U_REFUSED] == refused
            and row[U_P0] <= p1
            and p0 <= row[U_P1]
        ):
            p0, p1 = min(row[U_P0], p0), max(row[U_P1], p1)
            forget_row(k, i)
            i = 0
        else:
            i += 1
    if k.g[G_U] >= MOST_UNMAPS or k.g[G_U] >= k.S.shape[0]:
        return
    row = k.S[k.g[G_U]]
    row[U_THREAD] = thread
    row[U_SPACE] = space
    row[U_P0] = p0
    row[U_P1] = p1
    row[U_REFUSED] = refused
    k.g[G_U] += 1


@jit
def forget_row(k: Any, i: int) -> None:
    """Row ``i`` of the unmaps is over; the last one takes its place."""
    k.g[G_U] -= 1
    for c in range(U_THREAD, U_END):
        k.S[i, c] = k.S[k.g[G_U], c]


@jit
def forget_unmaps(k: Any, thread: int) -> None:
    """The thread ran the guest, converted or ended.  What was unmapped for a change that was
    refused stays as long as that is in hand."""
    refused = 0 if k.T[thread, T_CV_DIR] == CV_REFUSED else 1
    forget_unmaps_of(k, thread, 0, refused)


@jit
def forget_unmaps_of(k: Any, thread: int, first: int, last: int) -> None:
    """Those for which U_REFUSED is in [first, last]."""
    i = 0
    while i < k.g[G_U]:
        if k.S[i, U_THREAD] == thread and first <= k.S[i, U_REFUSED] <= last:
            forget_row(k, i)
        else:
            i += 1


@jit
def unmapped_for(k: Any, thread: int, p0: int, p1: int) -> tuple[int, int]:
    """The thread's change of [p0, p1) is refused: what it unmapped of them belongs to that.

    The first of these pages, and the one after the last; the second is not larger if there are
    none.
    """
    lo, hi = p1, p0
    i = 0
    while i < k.g[G_U]:
        row = k.S[i]
        if row[U_THREAD] != thread or row[U_REFUSED]:
            i += 1
            continue
        space, a, b = row[U_SPACE], max(row[U_P0], p0), min(row[U_P1], p1)
        forget_row(k, i)
        if a < b:
            remember_unmap(k, thread, space, a, b, 1)
            lo, hi = min(lo, a), max(hi, b)
            i = 0
    return lo, hi


@jit
def unmapped_until(k: Any, thread: int, space: int, p: int, end: int) -> tuple[bool, int]:
    """Did the thread itself unmap page ``p``, and up to which page is the answer the same?"""
    for i in range(k.g[G_U]):
        row = k.S[i]
        if row[U_THREAD] != thread or row[U_SPACE] != space:
            continue
        if row[U_P0] <= p < row[U_P1]:
            return True, min(end, row[U_P1])
        if p < row[U_P0]:
            end = min(end, row[U_P0])
    return False, end
