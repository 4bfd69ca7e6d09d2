# SPDX-License-Identifier: Apache-2.0
"""What migration asks a manager: which pages not to send, protect or touch (10.1 and later).

How sure: [D], read in QEMU 10.2.2, not run.
"""

from replay.models.memory_region import MemoryRegion
from replay.models.memory_region_section import MemoryRegionSection
from replay.models.merged.ram_discard_manager import RamDiscardManager
from replay.models.ram_dirty_bitmap import TARGET_PAGE_SIZE, RamDirtyBitmap

__all__ = ("clear_discarded_pages", "page_is_discarded", "populated_sections")


def clear_discarded_pages(dirty: RamDirtyBitmap) -> int:
    """Take discarded (private) pages out of the dirty bitmap; returns how many were dirty.

    At the start of a migration and when postcopy recovers.

    C: ``ramblock_dirty_bitmap_clear_discarded_pages()``, migration/ram.c.
    """
    manager = dirty.mr.manager
    if not isinstance(manager, RamDiscardManager):
        return 0
    cleared = 0

    def clear(section: MemoryRegionSection) -> None:
        nonlocal cleared
        cleared += dirty.clear_section(section)

    manager.replay_discarded(dirty.mr.section(), clear)
    return cleared


def page_is_discarded(mr: MemoryRegion, offset: int) -> bool:
    """Whether the destination must not ask for a page, because there is none.

    C: ``ramblock_page_is_discarded()``, migration/ram.c.
    """
    manager = mr.manager
    if not isinstance(manager, RamDiscardManager):
        return False
    page = offset // TARGET_PAGE_SIZE * TARGET_PAGE_SIZE
    return not manager.is_populated(mr.section(page, TARGET_PAGE_SIZE))


def populated_sections(mr: MemoryRegion) -> list[MemoryRegionSection]:
    """What a background snapshot reads in and write-protects: the populated runs.

    C: ``populate_read_section()`` and ``uffd_protect_section()``, migration/ram.c.
    """
    manager = mr.manager
    if not isinstance(manager, RamDiscardManager):
        return [mr.section()]
    sections: list[MemoryRegionSection] = []
    manager.replay_populated(mr.section(), sections.append)
    return sections
