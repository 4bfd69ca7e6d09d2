# SPDX-License-Identifier: Apache-2.0
"""One of several owners of a region's state (QEMU 11.1)."""

from abc import ABC, abstractmethod

from replay.models.block_bitmap import SectionCallback
from replay.models.memory_region import MemoryRegion
from replay.models.memory_region_section import MemoryRegionSection

__all__ = ("RamDiscardSource",)


class RamDiscardSource(ABC):
    """Knows what it populated; the listeners are the manager's.

    C: ``RamDiscardSourceClass``, include/system/ram-discard-manager.h.
    """

    @abstractmethod
    def get_min_granularity(self, mr: MemoryRegion) -> int:
        """C: ``ram_discard_source_get_min_granularity()``, system/ram-discard-manager.c."""

    @abstractmethod
    def is_populated(self, section: MemoryRegionSection) -> bool:
        """C: ``ram_discard_source_is_populated()``, system/ram-discard-manager.c."""

    @abstractmethod
    def replay_populated(self, section: MemoryRegionSection, callback: SectionCallback) -> None:
        """C: ``ram_discard_source_replay_populated()``, system/ram-discard-manager.c."""

    @abstractmethod
    def replay_discarded(self, section: MemoryRegionSection, callback: SectionCallback) -> None:
        """C: ``ram_discard_source_replay_discarded()``, system/ram-discard-manager.c."""

    def unchanged_until(self, offset: int, block: int, end: int) -> int:
        """Where ``is_populated()`` of the next ``block`` bytes may first answer otherwise.

        Ours, for speed: upstream asks block by block.  A source that knows its runs overrides it.
        """
        return min(offset + block, end)
