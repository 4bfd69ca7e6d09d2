# SPDX-License-Identifier: Apache-2.0
"""Who manages populated and discarded memory, and who listens (QEMU 10.1 to 11.0)."""

from abc import ABC, abstractmethod

from replay.models.block_bitmap import SectionCallback
from replay.models.memory_region import MemoryRegion
from replay.models.memory_region_section import MemoryRegionSection

__all__ = ("RamDiscardListener", "RamDiscardManager")


class RamDiscardListener:
    """Hears of populated and discarded parts of its ``section``.

    Raise ``UpstreamError`` (``ListenerError`` is meant for it) to refuse a populate.  A discard
    cannot be refused: the function is void.

    C: ``RamDiscardListener``, include/system/memory.h.
    """

    #: The section it registered for; ``None`` while it is not registered.
    section: MemoryRegionSection | None = None
    #: Whether one discard of everything, parts included that are discarded already, is fine.
    double_discard_supported: bool = True

    def notify_populate(self, section: MemoryRegionSection) -> None:
        """C: ``NotifyRamPopulate``, include/system/memory.h."""
        raise NotImplementedError

    def notify_discard(self, section: MemoryRegionSection) -> None:
        """C: ``NotifyRamDiscard``, include/system/memory.h."""
        raise NotImplementedError


class RamDiscardManager(ABC):
    """What a listener needs of a manager; a region has at most one.

    C: ``RamDiscardManagerClass``, include/system/memory.h.
    """

    @abstractmethod
    def get_min_granularity(self, mr: MemoryRegion) -> int:
        """C: ``ram_discard_manager_get_min_granularity()``, system/memory.c."""

    @abstractmethod
    def is_populated(self, section: MemoryRegionSection) -> bool:
        """C: ``ram_discard_manager_is_populated()``, system/memory.c."""

    @abstractmethod
    def replay_populated(self, section: MemoryRegionSection, callback: SectionCallback) -> None:
        """C: ``ram_discard_manager_replay_populated()``, system/memory.c."""

    @abstractmethod
    def replay_discarded(self, section: MemoryRegionSection, callback: SectionCallback) -> None:
        """C: ``ram_discard_manager_replay_discarded()``, system/memory.c."""

    @abstractmethod
    def register_listener(self, listener: RamDiscardListener, section: MemoryRegionSection) -> None:
        """C: ``ram_discard_manager_register_listener()``, system/memory.c."""

    @abstractmethod
    def unregister_listener(self, listener: RamDiscardListener) -> None:
        """C: ``ram_discard_manager_unregister_listener()``, system/memory.c."""
