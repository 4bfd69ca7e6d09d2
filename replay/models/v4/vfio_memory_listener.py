# SPDX-License-Identifier: Apache-2.0
"""VFIO hears that memory comes and goes (patch 06 of v4).

How sure: [D], read in the series, not run.
"""

from replay.models.errors import UpstreamError
from replay.models.memory_region import RegionKind
from replay.models.memory_region_section import MemoryRegionSection
from replay.models.v4.private_shared_manager import PrivateSharedManager
from replay.models.v4.ram_discard_manager import RamDiscardManager
from replay.models.v4.vfio_listener import VfioPrivateSharedListener, VfioRamDiscardListener
from replay.models.vfio_container import VfioContainer
from replay.models.vfio_region import fail_region_add, map_plain, unmap_plain

__all__ = ("VfioMemoryListener",)

_MAPPED = (RegionKind.RAM, RegionKind.RAM_DEVICE, RegionKind.ROM)


class VfioMemoryListener:
    """Which listener a section gets depends on the type of its manager.

    C: ``vfio_memory_listener``, hw/vfio/common.c.
    """

    def __init__(self, container: VfioContainer) -> None:
        self.container = container

    def region_add(self, section: MemoryRegionSection) -> None:
        """C: ``vfio_listener_region_add()``, hw/vfio/common.c.

        :raises AbortError: mapping failed once the container is initialized
        """
        if section.mr.kind not in _MAPPED:
            return  # vfio_listener_skipped_section()
        manager = section.mr.manager
        if isinstance(manager, RamDiscardManager):
            VfioRamDiscardListener(self.container).register(section)
        elif isinstance(manager, PrivateSharedManager):
            VfioPrivateSharedListener(self.container).register(section)
        else:
            try:
                map_plain(self.container, section)
            except UpstreamError as error:
                fail_region_add(self.container, section, error)

    def region_del(self, section: MemoryRegionSection) -> None:
        """C: ``vfio_listener_region_del()``, hw/vfio/common.c."""
        if section.mr.kind not in _MAPPED:
            return
        manager = section.mr.manager
        if isinstance(manager, RamDiscardManager):
            VfioRamDiscardListener.unregister(self.container, section)
        elif isinstance(manager, PrivateSharedManager):
            VfioPrivateSharedListener.unregister(self.container, section)
        else:
            unmap_plain(self.container, section)

    def __repr__(self) -> str:
        return f"VfioMemoryListener({self.container!r})"
