"""One VMM process of a recording: its threads, descriptors and kernel objects."""

from __future__ import annotations

from dataclasses import dataclass, field

from tracekit.synth.calls import PAGE

__all__ = ("BACKENDS", "BASE", "FIRMWARE", "Region", "Vmm")

BASE = 0x1_0000_0000
"""Where the first region of memory begins in a guest's address space."""
BACKENDS = ("type1", "iommufd")
KVM_FD, MEMORY_FD, VM_FD, GMEM_FD, VCPU_FD = 5, 4, 6, 7, 100
FIRST_CONTAINER_FD, FIRST_DEVICE_FD = 20, 60
GIB = 1 << 30


@dataclass(frozen=True, kw_only=True)
class Region:
    """Guest memory: ``size`` bytes at ``gpa``, in the process at ``host``.

    ``fd``: its memfd; -1: anonymous memory.  ``gmem``: its guest_memfd; -1: never private.
    """

    gpa: int = BASE
    size: int = 1 << 20
    host: int = 0x7F00_0000_0000
    fd: int = MEMORY_FD
    gmem: int = GMEM_FD


FIRMWARE = Region(gpa=0xFFFC_0000, size=256 << 10, host=0x7D00_0000_0000, fd=-1, gmem=-1)
"""Mapped for every device with one call, as all memory that has no private side."""


@dataclass(frozen=True, kw_only=True)
class Vmm:
    """``tid`` is the main thread, ``vcpus`` the threads of the virtual CPUs.

    ``backend``: type1 or iommufd.  ``domains``: IOMMU domains of each container.  ``paddr``: host
    physical address of guest address 0.
    """

    tid: int = 100
    vcpus: tuple[int, ...] = ()
    comm: str = "qemu-system-x86"
    backend: str = "type1"
    domains: int = 1
    regions: tuple[Region, ...] = field(default_factory=lambda: (Region(),))
    map_file: bool = False
    paddr: int = 1 << 40

    def region_at(self, gpa: int) -> Region:
        """The region that an address lies in; the first for what lies in none."""
        for region in self.regions:
            if region.gpa <= gpa < region.gpa + region.size:
                return region
        return self.regions[0]

    def container_fd(self, space: int) -> int:
        """Descriptor of a container, or of the iommufd."""
        return FIRST_CONTAINER_FD + space

    def vcpu_fd(self, tid: int) -> int:
        """Descriptor of the vCPU that a thread runs."""
        return VCPU_FD + (self.vcpus.index(tid) if tid in self.vcpus else 0)

    def object(self, kind: int, number: int = 0) -> int:
        """A kernel pointer, another one for each kind and number."""
        return 0xFFFF_8881_0000_0000 + self.tid * (PAGE << 8) + kind * (PAGE << 4) + number * 0x400


VM_FILE, GMEM_FILE, VFIO_IOMMU, DOMAIN, IOMMUFD_FILE, IO_PAGETABLE, KVM = range(7)
