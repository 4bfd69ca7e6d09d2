# SPDX-License-Identifier: Apache-2.0
"""The dirty bitmap of a RAM block in migration.

How sure: [D], read in QEMU 10.0.13 and 10.2.2, not run.
"""

from replay.models.block_bitmap import BlockBitmap
from replay.models.memory_region import MemoryRegion
from replay.models.memory_region_section import MemoryRegionSection

__all__ = ("TARGET_PAGE_SIZE", "RamDirtyBitmap")

TARGET_PAGE_SIZE = 4096


class RamDirtyBitmap:
    """Every page is dirty when migration starts; ``sync_cleared`` collects ranges whose dirty log
    was cleared in the memory listeners.

    C: ``RAMBlock.bmap``, migration/ram.c.
    """

    def __init__(self, mr: MemoryRegion) -> None:
        self.mr = mr
        self.bitmap = BlockBitmap(mr.size, TARGET_PAGE_SIZE)
        self.bitmap.set(0, len(self.bitmap.bits))
        self.sync_cleared: list[tuple[int, int]] = []

    @property
    def dirty_pages(self) -> int:
        """Pages still to send."""
        return self.bitmap.bits.count(1)

    def clear_section(self, section: MemoryRegionSection) -> int:
        """Pages of a section need not be sent; returns how many were dirty.

        C: ``dirty_bitmap_clear_section()``, migration/ram.c.
        """
        first = section.offset_within_region // TARGET_PAGE_SIZE
        count = section.size // TARGET_PAGE_SIZE
        self.sync_cleared.append((first * TARGET_PAGE_SIZE, count * TARGET_PAGE_SIZE))
        cleared = self.bitmap.bits.count(1, first, first + count)
        self.bitmap.bits[first : first + count] = bytes(
            min(count, max(0, len(self.bitmap.bits) - first))
        )
        return cleared

    def __repr__(self) -> str:
        return f"RamDirtyBitmap({self.mr.name!r}: {self.dirty_pages} pages dirty)"
