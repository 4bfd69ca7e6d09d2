# SPDX-License-Identifier: Apache-2.0
"""The parent of everything that manages a pair of opposite states of memory (patch 04 of v4)."""

from abc import ABC, abstractmethod

from replay.models.block_bitmap import SectionCallback
from replay.models.memory_region import MemoryRegion
from replay.models.memory_region_section import MemoryRegionSection

__all__ = ("GenericStateManager", "StateChangeListener")


class StateChangeListener:
    """Hears of state changes inside its ``section``; subclass it and raise to refuse.

    Both notifications return an int in C; here they raise ``UpstreamError``.  Patch 10 gave
    the clear notification its result; whoever calls it decides whether a failure is fatal.

    C: ``StateChangeListener``, include/exec/memory.h.
    """

    #: The section it registered for; ``None`` while it is not registered.
    section: MemoryRegionSection | None = None

    def notify_to_state_set(self, section: MemoryRegionSection) -> None:
        """Populated, or shared.  C: ``NotifyStateSet``, include/exec/memory.h."""
        raise NotImplementedError

    def notify_to_state_clear(self, section: MemoryRegionSection) -> None:
        """Discarded, or private.  C: ``NotifyStateClear``, include/exec/memory.h."""
        raise NotImplementedError


class GenericStateManager(ABC):
    """What a VFIO listener needs of any manager.

    C: ``GenericStateManagerClass``, include/exec/memory.h.
    """

    @abstractmethod
    def get_min_granularity(self, mr: MemoryRegion) -> int:
        """C: ``generic_state_manager_get_min_granularity()``, system/memory.c."""

    @abstractmethod
    def is_state_set(self, section: MemoryRegionSection) -> bool:
        """C: ``generic_state_manager_is_state_set()``, system/memory.c."""

    @abstractmethod
    def replay_on_state_set(self, section: MemoryRegionSection, callback: SectionCallback) -> None:
        """C: ``generic_state_manager_replay_on_state_set()``, system/memory.c."""

    @abstractmethod
    def replay_on_state_clear(
        self, section: MemoryRegionSection, callback: SectionCallback
    ) -> None:
        """C: ``generic_state_manager_replay_on_state_clear()``, system/memory.c."""

    @abstractmethod
    def register_listener(
        self, listener: StateChangeListener, section: MemoryRegionSection
    ) -> None:
        """C: ``generic_state_manager_register_listener()``, system/memory.c."""

    @abstractmethod
    def unregister_listener(self, listener: StateChangeListener) -> None:
        """C: ``generic_state_manager_unregister_listener()``, system/memory.c."""
