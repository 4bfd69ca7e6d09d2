# SPDX-License-Identifier: Apache-2.0
"""The kernel's side of a type1 container, interface version 2, which is the one QEMU asks for.

How sure: the order of checks and the error numbers are [K], from reading Linux 6.12 and 7.3
(drivers/vfio/vfio_iommu_type1.c); EEXIST, ENOSPC, EINVAL on a cut and success over holes were
also what the C harness behind the vectors assumed.  7.x answers a range that wraps with
EOVERFLOW; this is 6.12, EINVAL.
"""

from replay.models.dma_entries import DmaEntries, DmaEntry
from replay.models.errors import (
    BisectedEntryError,
    EntryExistsError,
    EntryLimitError,
    InvalidRangeError,
)
from replay.models.memory_region_section import U64_MAX
from replay.models.shown import shown

__all__ = ("DMA_ENTRY_LIMIT", "Type1Iommu")

#: Default of the module parameter ``dma_entry_limit``: 65535 entries, 256 MiB in 4 KiB pieces.
DMA_ENTRY_LIMIT = 65535


class Type1Iommu:
    """DMA entries with a limit on their number.

    ``dma_avail`` is how many more there may be; the limit is copied when the container is opened,
    so writing the module parameter later changes nothing here.  ``pgsize`` is the smallest page of
    the IOMMU; 1 switches the alignment check off.

    C: ``struct vfio_iommu``, drivers/vfio/vfio_iommu_type1.c.
    """

    def __init__(self, dma_entry_limit: int = DMA_ENTRY_LIMIT, *, pgsize: int = 4096) -> None:
        if isinstance(dma_entry_limit, bool) or not isinstance(dma_entry_limit, int):
            raise TypeError("dma_entry_limit is a number of entries (int)")
        if dma_entry_limit < 0:
            raise ValueError(f"dma_entry_limit is 0 or more, not {dma_entry_limit}")
        if pgsize <= 0 or pgsize & (pgsize - 1):
            raise ValueError(f"pgsize is a power of two, {pgsize} is not")
        self.dma_avail = dma_entry_limit
        self.pgsize = pgsize
        self.entries = DmaEntries()

    def map_dma(self, iova: int, size: int, vaddr: int, readonly: bool = False) -> None:
        """Add one entry.

        C: ``vfio_dma_do_map()``, drivers/vfio/vfio_iommu_type1.c.

        :raises InvalidRangeError: empty, unaligned, or wraps
        :raises EntryExistsError: overlaps an entry; looked at before the limit
        :raises EntryLimitError: no entry left
        """
        self._check(iova, size, vaddr)
        other = self.entries.overlapping(iova, size)
        if other is not None:
            raise EntryExistsError(f"map [{iova:#x}, +{size:#x}) overlaps {other!r}")
        if self.dma_avail <= 0:
            raise EntryLimitError(f"map [{iova:#x}, +{size:#x}): no DMA entry left")
        self.dma_avail -= 1
        self.entries.add(DmaEntry(iova, size, vaddr, readonly))

    def unmap_dma(self, iova: int, size: int) -> int:
        """Remove the entries in a range; returns the bytes that were mapped there.

        Nothing mapped is a success of 0 bytes.  A range that begins or ends inside an entry is
        refused before anything is removed.

        C: ``vfio_dma_do_unmap()``, drivers/vfio/vfio_iommu_type1.c.

        :raises InvalidRangeError: empty, unaligned, or wraps
        :raises BisectedEntryError: an end of the range cuts an entry
        """
        self._check(iova, size, 0)
        exact = self.entries.starting_at(iova)
        if exact is not None and exact.size == size:
            return self._remove([exact])  # ours, for speed: nothing else can be in the range
        first = self.entries.at(iova)
        if first is not None and first.iova != iova:
            raise BisectedEntryError(f"unmap [{iova:#x}, +{size:#x}) begins inside an entry")
        last = self.entries.at(iova + size - 1)
        if last is not None and last.end != iova + size:
            raise BisectedEntryError(f"unmap [{iova:#x}, +{size:#x}) ends inside an entry")
        return self._remove(self.entries.starting_in(iova, size))

    def _remove(self, doomed: list[DmaEntry]) -> int:
        unmapped = 0
        for entry in doomed:
            self.entries.remove(entry)
            unmapped += entry.size
        self.dma_avail += len(doomed)
        return unmapped

    def _check(self, iova: int, size: int, vaddr: int) -> None:
        if size <= 0 or (iova | size | vaddr) & (self.pgsize - 1):
            raise InvalidRangeError(
                f"[{iova:#x}, +{size:#x}) is empty or not aligned to {self.pgsize:#x}"
            )
        if iova + size - 1 > U64_MAX:
            raise InvalidRangeError(f"[{iova:#x}, +{size:#x}) wraps at 2**64")

    def _repr_html_(self) -> str:
        facts = [("DMA entries", f"{len(self.entries):,}"), ("left", f"{self.dma_avail:,}")]
        ranges = [(r.iova, r.end) for r in self.entries.ranges()]
        return shown(type(self).__name__, facts, ranges)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.entries!r}, {self.dma_avail} left)"
