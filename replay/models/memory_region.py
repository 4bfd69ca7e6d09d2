# SPDX-License-Identifier: Apache-2.0
"""What sits at an address: RAM, a device, ROM; and who manages its discards."""

from enum import Enum

from replay.models.errors import BusyError
from replay.models.memory_region_section import MemoryRegionSection, check_u64
from replay.models.ram_block import RamBlock

__all__ = ("MemoryRegion", "RegionKind")


class RegionKind(Enum):
    """The kinds that ``kvm_convert_memory()`` tells apart."""

    RAM = "ram"
    MMIO = "mmio"
    ROM = "rom"
    RAM_DEVICE = "ram device"
    ROMD = "romd"


class MemoryRegion:
    """A region of guest memory and, at most, one manager of its state.

    C: ``MemoryRegion``, include/exec/memory.h.
    """

    def __init__(
        self,
        name: str,
        size: int,
        *,
        kind: RegionKind = RegionKind.RAM,
        ram_block: RamBlock | None = None,
        host: int = 0,
        readonly: bool = False,
    ) -> None:
        if check_u64("size", size) == 0:
            raise ValueError("size of a memory region is at least one byte")
        self.name = name
        self.size = size
        self.kind = kind
        self.ram_block = ram_block
        #: Host virtual address of byte 0, what ``memory_region_get_ram_ptr()`` returns.
        self.host = check_u64("host", host)
        self.readonly = readonly
        self.manager: object | None = None

    @classmethod
    def ram(
        cls,
        name: str,
        size: int,
        *,
        guest_memfd: bool = True,
        page_size: int = 4096,
        fd_backed: bool = False,
        host: int = 0,
    ) -> "MemoryRegion":
        """A RAM region with its own block; ``guest_memfd`` says whether it can be private.

        C: ``memory_region_init_ram_guest_memfd()``, system/memory.c.
        """
        block = RamBlock(
            name, size, guest_memfd=guest_memfd, page_size=page_size, fd_backed=fd_backed
        )
        return cls(name, size, ram_block=block, host=host)

    @property
    def has_guest_memfd(self) -> bool:
        """Whether the region can hold private memory.

        C: ``memory_region_has_guest_memfd()``, system/memory.c.
        """
        return self.ram_block is not None and self.ram_block.guest_memfd

    def set_manager(self, manager: object | None) -> None:
        """Give the region its only manager of discards, or take it away with ``None``.

        The second of two managers is refused: virtio-mem and guest_memfd exclude each other on one
        region until several sources came.  Patch 02 of the series made the function return this.

        C: ``memory_region_set_generic_state_manager()`` (v4) and
        ``memory_region_set_ram_discard_manager()`` (merged), system/memory.c.

        :raises BusyError: the region has one already
        """
        if manager is not None and self.manager is not None:
            raise BusyError(f"region {self.name} has a manager already: {self.manager!r}")
        self.manager = manager

    def section(
        self, offset: int = 0, size: int | None = None, *, address: int = 0
    ) -> MemoryRegionSection:
        """A section of this region, by default all of it, at ``address`` of the address space."""
        check_u64("offset", offset)
        check_u64("address", address)
        if size is None:
            size = self.size - offset
        if isinstance(size, bool) or not isinstance(size, int):
            raise TypeError(f"size is a number of bytes (int), not {type(size).__name__}")
        if size < 0:
            raise ValueError(f"size of a section is not negative, {size} is")
        return MemoryRegionSection(self, offset, size, address)

    def __repr__(self) -> str:
        return f"MemoryRegion({self.name!r}, {self.kind.value}, {self.size:#x} bytes)"
