"""The VMs of one process, told apart: from its second one on each has a number of its own.

QEMU has one VM, other VMMs may have several.  An attribute or a slot is of the VM behind its
descriptor.  A container is of the VM in whose slots the user address of its first map lies, at the
distance that the slot has; a container that has mapped nothing is not known to be anybody's.
Discards, and what else says nothing, are of the VM that the thread dealt with last.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from replay.conformance.kernel import layout as K

__all__ = ("Machines",)

NOT_SEEN = -(1 << 62)
Slot = tuple[int, int, int]


class Machines:
    """Gives the rows of a process with several VMs the number of their VM.

    ``number``: makes a new number for a further VM of a process.
    """

    def __init__(self, number: Callable[[int], int]) -> None:
        self._number = number
        self._only = np.zeros(0, np.int64)
        """Of each process: the descriptor of its one VM; NOT_SEEN: none yet."""
        self._vms: dict[int, dict[int, int]] = {}
        """Of each process with several VMs: descriptor -> number."""
        self._slots: dict[int, dict[int, Slot]] = {}
        self._containers: dict[tuple[int, int], int] = {}
        self._nobodys: set[tuple[int, int]] = set()
        """Containers whose maps lie in no slot."""
        self._last: dict[int, int] = {}

    def feed(self, calls: Any) -> Any:
        """The calls, with the VM's number for their process."""
        kinds = calls[:, K.C_KIND]
        of_vm = np.flatnonzero((kinds == K.K_ATTR) | (kinds == K.K_SLOT) | (kinds == K.K_CREATE_VM))
        if not self._vms and not len(of_vm):
            return calls
        processes, fds = calls[of_vm, K.C_PROC], _descriptors(calls[of_vm])
        self._grow(int(processes.max(initial=0)) + 1)
        if not self._vms and np.array_equal(self._only[processes], fds):
            self._remember(calls)
            return calls
        since: dict[int, int] = {}
        """From which call on a process has several."""
        for i, process, fd in zip(of_vm.tolist(), processes.tolist(), fds.tolist(), strict=True):
            if self._only[process] == NOT_SEEN:
                self._only[process] = fd
            elif self._only[process] != fd and process not in self._vms and process not in since:
                since[process] = i
        first = 0 if self._vms else min(since.values(), default=len(calls))
        self._remember(calls[:first])
        for process in since:
            self._vms[process] = {int(self._only[process]): process}
        out: list[list[int]] = []
        for i, row in enumerate(calls[first:].tolist(), first):
            process = row[K.C_PROC]
            if process in self._vms and i >= since.get(process, 0):
                self._tell(row, out)
                continue
            if row[K.C_KIND] == K.K_SLOT:
                self._slot(process, row)
            out.append(row)
        rows = np.array(out, np.int64).reshape(-1, K.C_COLS)
        return np.concatenate([calls[:first], rows]) if first else rows

    def _grow(self, most: int) -> None:
        if most > len(self._only):
            only = np.full(2 * most, NOT_SEEN, np.int64)
            only[: len(self._only)] = self._only
            self._only = only

    def _remember(self, calls: Any) -> None:
        """Slots of the first VM, before a second one is seen."""
        for row in calls[calls[:, K.C_KIND] == K.K_SLOT].tolist():
            self._slot(row[K.C_PROC], row)

    def _slot(self, vm: int, row: list[int]) -> None:
        slots = self._slots.setdefault(vm, {})
        if row[K.C_SIZE] <= 0 or row[K.C_VADDR] == K.NULL or not row[K.C_KNOWN]:
            slots.pop(row[K.C_SPACE], None)
        else:
            slots[row[K.C_SPACE]] = (row[K.C_ADDR], row[K.C_SIZE], row[K.C_VADDR])

    def _tell(self, row: list[int], out: list[list[int]]) -> None:
        process, kind, thread = row[K.C_PROC], row[K.C_KIND], row[K.C_THREAD]
        vms = self._vms[process]
        if kind in (K.K_ATTR, K.K_SLOT, K.K_CREATE_VM):
            fd = _descriptor(row)
            if fd not in vms:
                vms[fd] = self._number(process)
            vm = self._last[thread] = vms[fd]
            if kind == K.K_SLOT:
                self._slot(vm, row)
        elif kind in (K.K_MAP, K.K_UNMAP):
            vm = self._container(process, row, self._last.get(thread, process))
        elif kind == K.K_CONTAINER:
            self._containers.pop((process, row[K.C_SPACE]), None)
            return  # its first map tells whose it is
        elif kind == K.K_CLOSE:
            vm = self._containers.pop((process, row[K.C_SPACE]), process)
        else:
            vm = self._last.get(thread, process)
        row[K.C_PROC] = vm
        out.append(row)

    def _container(self, process: int, row: list[int], otherwise: int) -> int:
        key = (process, row[K.C_SPACE])
        known = self._containers.get(key)
        if known is not None:
            return known
        if row[K.C_KIND] == K.K_UNMAP:  # mapped when there was one VM, or nobody's
            return otherwise if key in self._nobodys else process
        for vm in self._vms[process].values():
            for gpa, size, vaddr in self._slots.get(vm, {}).values():
                inside = gpa <= row[K.C_ADDR] < gpa + size
                if inside and row[K.C_VADDR] - row[K.C_ADDR] == vaddr - gpa:
                    self._containers[key] = vm
                    self._nobodys.discard(key)
                    return vm
        self._nobodys.add(key)
        return otherwise


def _descriptors(rows: Any) -> Any:
    """Of the VM, of rows that name one."""
    space = rows[:, K.C_SPACE]
    return np.where(rows[:, K.C_KIND] == K.K_SLOT, space >> 32, space & 0xFFFFF)


def _descriptor(row: list[int]) -> int:
    space = row[K.C_SPACE]
    return space >> 32 if row[K.C_KIND] == K.K_SLOT else space & 0xFFFFF
