# SPDX-License-Identifier: Apache-2.0
"""The kernel's side of an iommufd address space.

How sure: [K], from reading Linux 6.12 and 7.3 (drivers/iommu/iommufd/io_pagetable.c); that an
unmap of nothing is ENOENT was also seen in recordings of a running QEMU.
"""

from replay.models.dma_entries import DmaEntries, DmaEntry
from replay.models.errors import (
    BisectedEntryError,
    EntryExistsError,
    InvalidRangeError,
    NotFoundError,
)
from replay.models.memory_region_section import U64_MAX
from replay.models.shown import shown, size_of

__all__ = ("IommufdIoas",)

ENOENT = 2


class IommufdIoas:
    """Areas without a limit on their number, ``dma_entry_limit`` does not concern it.

    C: ``struct io_pagetable``, drivers/iommu/iommufd/io_pagetable.c.
    """

    def __init__(self, *, iova_alignment: int = 4096) -> None:
        if iova_alignment <= 0 or iova_alignment & (iova_alignment - 1):
            raise ValueError(f"iova_alignment is a power of two, {iova_alignment} is not")
        self.iova_alignment = iova_alignment
        self.entries = DmaEntries()
        self.mapped_bytes = 0

    def map(self, iova: int, size: int, vaddr: int, readonly: bool = False) -> None:
        """Add an area at a fixed address.

        C: ``iommufd_ioas_map()``, drivers/iommu/iommufd/ioas.c.

        :raises InvalidRangeError: empty, unaligned, or wraps
        :raises EntryExistsError: overlaps an area
        """
        self._check(iova, size)
        if self.entries.overlapping(iova, size) is not None:
            raise EntryExistsError(f"map [{iova:#x}, +{size:#x}) overlaps an area")
        self.entries.add(DmaEntry(iova, size, vaddr, readonly))
        self.mapped_bytes += size

    def unmap(self, iova: int, size: int) -> int:
        """Remove the areas in a range; returns the bytes removed.

        Areas go one by one, ascending.  One that sticks out of the range stops the walk with
        ENOENT, and **the areas before it are gone already**: type1 looks first, this does not.
        Nothing in the range is ENOENT as well.

        C: ``iommufd_ioas_unmap()`` and ``iopt_unmap_iova_range()``.

        :raises BisectedEntryError: an area sticks out of the range (ENOENT)
        :raises NotFoundError: no area in the range (ENOENT)
        """
        if iova == 0 and size == U64_MAX:  # the whole address space, an empty one too
            return self._remove_all()
        if size <= 0 or iova + size - 1 > U64_MAX:
            raise InvalidRangeError(f"[{iova:#x}, +{size:#x}) is empty or wraps")
        before = self.entries.at(iova)
        if before is not None and before.iova != iova:
            raise BisectedEntryError(f"unmap [{iova:#x}, +{size:#x}) cuts an area", ENOENT)
        unmapped = 0
        for entry in self.entries.starting_in(iova, size):
            if entry.end > iova + size:
                raise BisectedEntryError(f"unmap [{iova:#x}, +{size:#x}) cuts an area", ENOENT)
            self._remove(entry)
            unmapped += entry.size
        if not unmapped:
            raise NotFoundError(f"unmap [{iova:#x}, +{size:#x}): nothing mapped")
        return unmapped

    def _remove_all(self) -> int:
        unmapped = self.mapped_bytes
        for entry in list(self.entries):
            self._remove(entry)
        return unmapped

    def _remove(self, area: DmaEntry) -> None:
        self.entries.remove(area)
        self.mapped_bytes -= area.size

    def _check(self, iova: int, size: int) -> None:
        if size <= 0 or (iova | size) & (self.iova_alignment - 1):
            raise InvalidRangeError(
                f"[{iova:#x}, +{size:#x}) is empty or not aligned to {self.iova_alignment:#x}"
            )
        if iova + size - 1 > U64_MAX:
            raise InvalidRangeError(f"[{iova:#x}, +{size:#x}) wraps at 2**64")

    def _repr_html_(self) -> str:
        facts = [("areas", f"{len(self.entries):,}"), ("mapped", size_of(self.mapped_bytes))]
        return shown("IommufdIoas", facts, [(r.iova, r.end) for r in self.entries.ranges()])

    def __repr__(self) -> str:
        return f"IommufdIoas({self.entries!r})"
