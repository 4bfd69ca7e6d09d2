# SPDX-License-Identifier: Apache-2.0
"""VFIO follows conversions (patch 06 of v4) and virtio-mem (QEMU 10.0, on which v4 is based)."""

from replay.models.errors import AbortError
from replay.models.memory_region import MemoryRegion
from replay.models.memory_region_section import MemoryRegionSection
from replay.models.v4.generic_state_manager import GenericStateManager
from replay.models.v4.private_shared_manager import (
    PRIORITY_COMMON,
    PrivateSharedListener,
    PrivateSharedManager,
)
from replay.models.v4.ram_discard_manager import RamDiscardListener
from replay.models.vfio_container import DmaLimitWarning, RegisteredListener, VfioContainer
from replay.models.vfio_dma import (
    MAX_MEMSLOTS_WITHOUT_KVM,
    find_listener,
    map_in_pieces,
    needed_dma_mappings,
)

__all__ = ("VfioPrivateSharedListener", "VfioRamDiscardListener")


def _manager(section: MemoryRegionSection) -> GenericStateManager:
    manager = section.mr.manager
    if not isinstance(manager, GenericStateManager):
        raise ValueError(f"{section.mr!r} has no GenericStateManager to register with")
    return manager


class VfioRamDiscardListener(RamDiscardListener):
    """Maps what virtio-mem plugs, in pieces of its block size.

    How sure: [D], read in QEMU 10.0.2 and the series; only its sibling was run.

    C: ``VFIORamDiscardListener``, hw/vfio/common.c.
    """

    def __init__(self, container: VfioContainer) -> None:
        self.container = container
        self.mr: MemoryRegion
        self.offset_within_address_space = 0
        self.size = 0
        self.granularity = 0

    def notify_to_state_set(self, section: MemoryRegionSection) -> None:
        """C: ``vfio_ram_discard_notify_populate()``, hw/vfio/common.c."""
        map_in_pieces(self.container, section, self.granularity)

    def notify_to_state_clear(self, section: MemoryRegionSection) -> None:
        """C: ``vfio_ram_discard_notify_discard()``, hw/vfio/common.c.

        Since patch 10 it returns the result of the unmap.  A failed unmap still is not fatal:
        virtio-mem ignores what it gets [D].
        """
        self.container.dma_unmap(section.offset_within_address_space, section.size)

    def register(
        self, section: MemoryRegionSection, *, max_memslots: int = MAX_MEMSLOTS_WITHOUT_KVM
    ) -> None:
        """Register for a section, then look whether DMA mappings could run out.

        10.0 only warns; the warning is in ``container.dma_limit_warnings``.

        C: ``vfio_register_ram_discard_listener()``, hw/vfio/common.c.

        :raises AbortError: the section is not aligned to pages, or the granularity is impossible
        """
        function = "vfio_register_ram_discard_listener"
        manager = _manager(section)
        _, offset, size, address = section
        if (offset | size | address) & 4095:
            raise AbortError("section is not aligned to target pages", function)
        granularity = manager.get_min_granularity(section.mr)
        if granularity < self.container.pgsize or granularity & (granularity - 1):
            raise AbortError(f"granularity {granularity:#x}", function)
        _place(self, section, granularity)
        manager.register_listener(self, section)
        self.container.vrdl_list.insert(0, self)
        limit = self.container.dma_max_mappings
        if limit:
            needed = needed_dma_mappings(self.container.vrdl_list, max_memslots=max_memslots)
            if needed > limit:
                self.container.dma_limit_warnings.append(DmaLimitWarning(needed, limit))

    @classmethod
    def unregister(cls, container: VfioContainer, section: MemoryRegionSection) -> None:
        """Unregister the newest listener at the section's region and address.

        C: ``vfio_unregister_ram_discard_listener()``, hw/vfio/common.c.

        :raises AbortError: there is none (hw_error)
        """
        _unregister(container.vrdl_list, section, "vfio_unregister_ram_discard_listener")

    def __repr__(self) -> str:
        return _describe(self, self.section)


class VfioPrivateSharedListener(PrivateSharedListener):
    """Maps what is shared, in pieces of 4 KiB.

    How sure: that alignment and the DMA limit are **not** looked at, unlike in its sibling, is
    [D]: read in the patch; the calls to the container were run.

    C: ``VFIOPrivateSharedListener``, hw/vfio/common.c.
    """

    priority = PRIORITY_COMMON

    def __init__(self, container: VfioContainer) -> None:
        self.container = container
        self.mr: MemoryRegion
        self.offset_within_address_space = 0
        self.size = 0
        self.granularity = 0

    def notify_to_state_set(self, section: MemoryRegionSection) -> None:
        """C: ``vfio_private_shared_notify_to_shared()``, hw/vfio/common.c."""
        map_in_pieces(self.container, section, self.granularity)

    def notify_to_state_clear(self, section: MemoryRegionSection) -> None:
        """Returns the result of the unmap, and the manager aborts when it is a failure.

        C: ``vfio_private_shared_notify_to_private()``, hw/vfio/common.c.
        """
        self.container.dma_unmap(section.offset_within_address_space, section.size)

    def register(self, section: MemoryRegionSection) -> None:
        """Register for a section, without the checks of its sibling.

        C: ``vfio_register_private_shared_listener()``, hw/vfio/common.c.
        """
        manager = _manager(section)
        if not isinstance(manager, PrivateSharedManager):
            raise ValueError(f"{section.mr!r} is not managed by a PrivateSharedManager")
        _place(self, section, manager.get_min_granularity(section.mr))
        manager.register_listener(self, section)
        self.container.vpsl_list.insert(0, self)

    @classmethod
    def unregister(cls, container: VfioContainer, section: MemoryRegionSection) -> None:
        """Unregister the newest listener at the section's region and address.

        C: ``vfio_unregister_private_shared_listener()``, hw/vfio/common.c.

        :raises AbortError: there is none (hw_error)
        """
        _unregister(container.vpsl_list, section, "vfio_unregister_private_shared_listener")

    def __repr__(self) -> str:
        return _describe(self, self.section)


_Listener = VfioRamDiscardListener | VfioPrivateSharedListener


def _place(listener: _Listener, section: MemoryRegionSection, granularity: int) -> None:
    listener.mr = section.mr
    listener.offset_within_address_space = section.offset_within_address_space
    listener.size = section.size
    listener.granularity = granularity


def _unregister(
    listeners: list[RegisteredListener], section: MemoryRegionSection, function: str
) -> None:
    found = find_listener(listeners, section.mr, section.offset_within_address_space)
    if found is None:
        raise AbortError("no such listener", function)
    assert isinstance(found, VfioRamDiscardListener | VfioPrivateSharedListener)
    _manager(section).unregister_listener(found)
    listeners.remove(found)


def _describe(listener: _Listener, section: MemoryRegionSection | None) -> str:
    where = "not registered" if section is None else repr(section)
    return f"{type(listener).__name__}({listener.container.name!r}, {where})"
