# SPDX-License-Identifier: Apache-2.0
"""VFIO follows conversions and virtio-mem (QEMU 10.1 and later)."""

from replay.models.errors import AbortError, DmaLimitError
from replay.models.memory_region import MemoryRegion
from replay.models.memory_region_section import MemoryRegionSection
from replay.models.merged.ram_discard_manager import RamDiscardListener, RamDiscardManager
from replay.models.vfio_container import VfioContainer
from replay.models.vfio_dma import (
    MAX_MEMSLOTS_WITHOUT_KVM,
    find_listener,
    map_in_pieces,
    needed_dma_mappings,
    unmap_section,
)

__all__ = ("VfioListener",)


class VfioListener(RamDiscardListener):
    """Maps what is populated into a container, in pieces of the manager's granularity.

    C: ``VFIORamDiscardListener``, hw/vfio/listener.c.
    """

    double_discard_supported = True

    def __init__(self, container: VfioContainer) -> None:
        if not isinstance(container, VfioContainer):
            raise TypeError(
                f"expected a Type1Container or an IommufdContainer, not {type(container).__name__}"
            )
        self.container = container
        self.mr: MemoryRegion
        self.offset_within_address_space = 0
        self.size = 0
        self.granularity = 0

    def notify_populate(self, section: MemoryRegionSection) -> None:
        """C: ``vfio_ram_discard_notify_populate()``, hw/vfio/listener.c."""
        map_in_pieces(self.container, section, self.granularity)

    def notify_discard(self, section: MemoryRegionSection) -> None:
        """Bug kept: void, so a failed unmap is printed and the conversion is a success.

        C: ``vfio_ram_discard_notify_discard()``, hw/vfio/listener.c.
        """
        unmap_section(self.container, section)

    def register(
        self, section: MemoryRegionSection, *, max_memslots: int = MAX_MEMSLOTS_WITHOUT_KVM
    ) -> None:
        """Register for a section, then look whether DMA mappings could run out.

        Bug kept: the limit is looked at last, when the listener is registered and has mapped what
        is shared, and a refusal leaves both in place.

        C: ``vfio_ram_discard_register_listener()``, hw/vfio/listener.c.

        :raises AbortError: the section is not aligned to pages, or the granularity is impossible
        :raises ExitError: mapping what is shared already failed
        :raises DmaLimitError: more mappings might be needed than ``dma_max_mappings``
        """
        function = "vfio_ram_discard_register_listener"
        mr, offset, size, address = section
        manager = mr.manager
        if not isinstance(manager, RamDiscardManager):
            raise ValueError(f"{mr!r} has no RamDiscardManager to register with")
        if (offset | size | address) & 4095:
            raise AbortError("section is not aligned to target pages", function)
        granularity = manager.get_min_granularity(mr)
        if granularity < self.container.pgsize or granularity & (granularity - 1):
            raise AbortError(f"granularity {granularity:#x}", function)
        self.mr, self.offset_within_address_space, self.size = mr, address, size
        self.granularity = granularity
        manager.register_listener(self, section)
        self.container.vrdl_list.insert(0, self)
        limit = self.container.dma_max_mappings
        if limit:
            needed = needed_dma_mappings(self.container.vrdl_list, max_memslots=max_memslots)
            if needed > limit:
                raise DmaLimitError(
                    f"{self.container.name}: {needed} DMA mappings might be needed, "
                    f"{limit} are available"
                )

    @classmethod
    def unregister(cls, container: VfioContainer, section: MemoryRegionSection) -> None:
        """Unregister the newest listener at the section's region and address.

        C: ``vfio_ram_discard_unregister_listener()``, hw/vfio/listener.c.

        :raises AbortError: there is none (hw_error)
        """
        mr = section.mr
        found = find_listener(container.vrdl_list, mr, section.offset_within_address_space)
        if found is None:
            raise AbortError("no such listener", "vfio_ram_discard_unregister_listener")
        assert isinstance(found, VfioListener)
        assert isinstance(mr.manager, RamDiscardManager)
        mr.manager.unregister_listener(found)
        container.vrdl_list.remove(found)

    def __repr__(self) -> str:
        where = "not registered" if self.section is None else repr(self.section)
        return f"{type(self).__name__}({self.container.name!r}, {where})"
