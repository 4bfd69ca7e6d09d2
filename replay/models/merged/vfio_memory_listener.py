# SPDX-License-Identifier: Apache-2.0
"""VFIO hears that memory comes and goes (QEMU 10.1 and later).

How sure: [D], read in QEMU 10.2.2, not run.
"""

from replay.models.errors import DmaLimitError, UpstreamError
from replay.models.memory_region import RegionKind
from replay.models.memory_region_section import MemoryRegionSection
from replay.models.merged.ram_discard_manager import RamDiscardManager
from replay.models.merged.vfio_listener import VfioListener
from replay.models.vfio_container import VfioContainer
from replay.models.vfio_region import fail_region_add, map_plain, unmap_plain

__all__ = ("VfioMemoryListener",)

_MAPPED = (RegionKind.RAM, RegionKind.RAM_DEVICE, RegionKind.ROM)


class VfioMemoryListener:
    """Regions with a manager get a listener, and no trace event; others are mapped at once.

    C: ``vfio_memory_listener``, hw/vfio/listener.c.
    """

    def __init__(self, container: VfioContainer) -> None:
        self.container = container

    def region_add(self, section: MemoryRegionSection) -> None:
        """C: ``vfio_listener_region_add()``, hw/vfio/listener.c.

        :raises ExitError: replaying to the new listener failed
        :raises AbortError: any other failure once the container is initialized
        """
        if section.mr.kind not in _MAPPED:
            return  # vfio_listener_skipped_section()
        try:
            if isinstance(section.mr.manager, RamDiscardManager):
                VfioListener(self.container).register(section)
            else:
                map_plain(self.container, section)
        except (UpstreamError, DmaLimitError) as error:
            fail_region_add(self.container, section, error)

    def region_del(self, section: MemoryRegionSection) -> None:
        """Unregistering unmaps, so there is no unmap of the section besides.

        C: ``vfio_listener_region_del()``, hw/vfio/listener.c.
        """
        if section.mr.kind not in _MAPPED:
            return
        if isinstance(section.mr.manager, RamDiscardManager):
            VfioListener.unregister(self.container, section)
        else:
            unmap_plain(self.container, section)

    def __repr__(self) -> str:
        return f"VfioMemoryListener({self.container!r})"
