# SPDX-License-Identifier: Apache-2.0
"""What VFIO does with a memory section that has no manager, and with errors.

How sure: [D], read in QEMU 10.0.2 and 10.2.2, except that a region with a manager takes the other
path, which was seen in recordings.
"""

from replay.models.errors import AbortError, ModelError
from replay.models.memory_region import RegionKind
from replay.models.memory_region_section import MemoryRegionSection
from replay.models.vfio_container import VfioContainer
from replay.models.vfio_dma import unmap_section

__all__ = ("fail_region_add", "map_plain", "unmap_plain")


def map_plain(container: VfioContainer, section: MemoryRegionSection) -> None:
    """Map a section with one call.

    C: the end of ``vfio_listener_region_add()``, hw/vfio/listener.c.
    """
    mr, offset, size, address = section
    container.dma_map(address, size, mr.host + offset, mr.readonly)


def unmap_plain(container: VfioContainer, section: MemoryRegionSection) -> None:
    """Unmap a section with one call; a failure is printed.

    C: the end of ``vfio_listener_region_del()``, hw/vfio/listener.c.
    """
    unmap_section(container, section)


def fail_region_add(
    container: VfioContainer, section: MemoryRegionSection, error: ModelError
) -> None:
    """A section could not be added: fails the device, or QEMU once devices are running.

    A device's own memory (a BAR) is only reported.

    C: the ``fail`` label in ``vfio_listener_region_add()``, hw/vfio/listener.c.

    :raises AbortError: the container is initialized (hw_error)
    """
    if section.mr.kind is RegionKind.RAM_DEVICE:
        return
    if container.initialized:
        raise AbortError(f"DMA mapping failed: {error}", "vfio_listener_region_add") from error
    if container.error is None:
        container.error = error
