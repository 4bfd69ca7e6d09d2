"""Calls of a VMM as the events that a kernel with all probes records of them.

    rendered = Renderer(tid=100)
    rendered.create_vm()
    rendered.attribute(0x100000, 0x200000, private=False)
    write_events(path, rendered.events)

Every call is entry, probe with arguments, what happens inside, the callee's return and the return,
nested on one thread and apart in time.
"""

from __future__ import annotations

from tracekit.events import Event
from tracekit.events.iommu import IommuMap, IommuUnmap
from tracekit.events.kvm import KvmAttributes, KvmGmemFallocate, KvmVmIoctl, KvmVmIoctlReturned
from tracekit.events.process import ProcessExit
from tracekit.events.syscall import (
    FallocateEntered,
    FallocateReturned,
    IoctlEntered,
    IoctlReturned,
    MadviseEntered,
    MadviseReturned,
    MmapEntered,
    MmapReturned,
)
from tracekit.events.vfio import VfioType1Ioctl, VfioType1IoctlReturned

__all__ = ("Renderer",)

KVM_FD, MEMORY_FD, VM_FD, GMEM_FD, VCPU_FD, FIRST_CONTAINER_FD = 5, 4, 6, 7, 10, 20
PAGE = 4096
CREATE_VM, SET_SLOT, SET_ATTRIBUTES, RUN = 0xAE01, 0x40A0AE49, 0x4020AED2, 0xAE80
SET_IOMMU, MAP_DMA, UNMAP_DMA = 0x3B66, 0x3B71, 0x3B72
PUNCH_HOLE, DONTNEED = 3, 4
PHYSICAL = 1 << 40
"""Where the pages of made-up memory are."""


class Renderer:
    """Writes calls down in the order in which they are made; ``events`` holds what was written.

    ``tid`` is the only thread.  ``host`` is the user address of guest address 0.  A call takes
    ``step_ns`` for each of its events.
    """

    def __init__(
        self,
        *,
        tid: int = 100,
        comm: str = "CPU 0/KVM",
        host: int = 0x7F00_0000_0000,
        start_ns: int = 1_000_000_000,
        step_ns: int = 500,
    ) -> None:
        self.events: list[Event] = []
        self.tid, self.comm, self.host = tid, comm, host
        self.now, self.step_ns = start_ns, step_ns

    def wait(self, ns: int) -> None:
        """Let time pass."""
        self.now += ns

    def create_vm(self) -> None:
        """KVM_CREATE_VM; from here on everything about the process is known."""
        self._ioctl(KVM_FD, CREATE_VM, VM_FD)

    def memory(self, size: int) -> None:
        """mmap() of the guest's memory, at ``host``."""
        self._add(MmapEntered, vaddr=0, size=size, flags=1, file_fd=MEMORY_FD, offset=0)
        self._add(MmapReturned, ret=self.host)

    def slot(self, number: int, gpa: int, size: int, *, offset: int = 0, flags: int = 4) -> None:
        """KVM_SET_USER_MEMORY_REGION2; size 0 deletes.  ``offset``: in the RAM block."""
        self._enter(VM_FD, SET_SLOT)
        self._add(
            KvmVmIoctl, cmd=SET_SLOT, object=VM_FD, id=number, gpa=gpa, size=size, flags=flags,
            vaddr=self.host + offset, file_fd=GMEM_FD, offset=offset,
        )  # fmt: skip
        self._add(KvmVmIoctlReturned, ret=0)
        self._add(IoctlReturned, ret=0)

    def container(self, number: int) -> None:
        """VFIO_SET_IOMMU on a new container."""
        self._ioctl(FIRST_CONTAINER_FD + number, SET_IOMMU, 0)

    def attribute(self, gpa: int, size: int, *, private: bool, ret: int = 0) -> None:
        """KVM_SET_MEMORY_ATTRIBUTES."""
        attributes = 8 if private else 0
        self._enter(VM_FD, SET_ATTRIBUTES)
        self._add(
            KvmVmIoctl, cmd=SET_ATTRIBUTES, object=VM_FD, gpa=gpa, size=size,
            attributes=attributes, flags=0,
        )  # fmt: skip
        if ret >= 0:
            self._add(KvmAttributes, gpa=gpa, size=size, attributes=attributes)
        self._add(KvmVmIoctlReturned, ret=ret)
        self._add(IoctlReturned, ret=ret)

    def dma_map(self, container: int, iova: int, size: int, vaddr: int, *, ret: int = 0) -> None:
        """VFIO_IOMMU_MAP_DMA."""
        fd = FIRST_CONTAINER_FD + container
        self._enter(fd, MAP_DMA)
        self._add(
            VfioType1Ioctl, cmd=MAP_DMA, object=fd, argsz=32, flags=3, vaddr=vaddr, iova=iova,
            size=size,
        )  # fmt: skip
        if ret >= 0:
            self._add(IommuMap, iova=iova, size=size, paddr=PHYSICAL + iova)
        self._add(VfioType1IoctlReturned, ret=ret)
        self._add(IoctlReturned, ret=ret)

    def dma_unmap(
        self, container: int, iova: int, size: int, *, unmapped: int | None = None, ret: int = 0
    ) -> None:
        """VFIO_IOMMU_UNMAP_DMA; ``unmapped``: bytes that were there, by default all."""
        fd = FIRST_CONTAINER_FD + container
        self._enter(fd, UNMAP_DMA)
        self._add(
            VfioType1Ioctl, cmd=UNMAP_DMA, object=fd, argsz=24, flags=0, iova=iova, size=size
        )  # fmt: skip
        there = size if unmapped is None else unmapped
        if ret >= 0 and there:
            self._add(IommuUnmap, iova=iova, size=size, unmapped=there)
        self._add(VfioType1IoctlReturned, ret=ret)
        self._add(IoctlReturned, ret=ret)

    def punch_private(self, offset: int, size: int) -> None:
        """fallocate() of the guest_memfd."""
        self._add(FallocateEntered, fd=GMEM_FD, flags=PUNCH_HOLE, offset=offset, size=size)
        self._add(KvmGmemFallocate, object=GMEM_FD, flags=PUNCH_HOLE, offset=offset, size=size)
        self._add(FallocateReturned, ret=0)

    def discard_shared(self, offset: int, size: int, *, fallocate: bool, madvise: bool) -> None:
        """The shared side goes: a hole in its file, madvise(), or both."""
        if fallocate:
            self._add(FallocateEntered, fd=MEMORY_FD, flags=PUNCH_HOLE, offset=offset, size=size)
            self._add(FallocateReturned, ret=0)
        if madvise:
            self._add(MadviseEntered, vaddr=self.host + offset, size=size, flags=DONTNEED)
            self._add(MadviseReturned, ret=0)

    def run(self) -> None:
        """KVM_RUN: the guest goes on."""
        self._ioctl(VCPU_FD, RUN, 0)

    def exit(self) -> None:
        """The thread ends, and with it the process."""
        self._add(ProcessExit)

    def _ioctl(self, fd: int, cmd: int, ret: int) -> None:
        self._enter(fd, cmd)
        self._add(IoctlReturned, ret=ret)

    def _enter(self, fd: int, cmd: int) -> None:
        self._add(IoctlEntered, fd=fd, cmd=cmd)

    def _add(self, kind: type[Event], **columns: object) -> None:
        self.now += self.step_ns
        self.events.append(
            kind(ts_ns=self.now, cpu=0, pid=self.tid, tid=self.tid, comm=self.comm, **columns)  # type: ignore[arg-type]
        )
