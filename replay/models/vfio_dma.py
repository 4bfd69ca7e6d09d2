# SPDX-License-Identifier: Apache-2.0
"""How every VFIO listener maps and unmaps, whatever the manager is called."""

from replay.models.errors import UpstreamError
from replay.models.memory_region import MemoryRegion
from replay.models.memory_region_section import U64_MAX, MemoryRegionSection
from replay.models.vfio_container import RegisteredListener, VfioContainer

__all__ = (
    "MAX_MEMSLOTS_WITHOUT_KVM",
    "find_listener",
    "map_in_pieces",
    "needed_dma_mappings",
    "unmap_section",
)

MAX_MEMSLOTS_WITHOUT_KVM = 512


def map_in_pieces(container: VfioContainer, section: MemoryRegionSection, granularity: int) -> None:
    """Map a section in pieces that end at multiples of ``granularity`` within the region.

    Small pieces, so that any later unmap of whole blocks cuts no entry.  When one fails the
    **whole section** is unmapped with one call, not only what was mapped: bug kept, in a container
    with two listeners that takes away what the other one mapped there.

    C: ``vfio_ram_discard_notify_populate()``, hw/vfio/listener.c (common.c up to 10.0).
    """
    mr, start, size, address = section
    end = start + size
    to_iova = address - start
    while start < end:
        following = (start // granularity + 1) * granularity
        if following > end:
            following = end
        try:
            container.dma_map(
                start + to_iova & U64_MAX, following - start, mr.host + start, mr.readonly
            )
        except UpstreamError:
            unmap_section(container, section)
            raise
        start = following


def unmap_section(container: VfioContainer, section: MemoryRegionSection) -> None:
    """Unmap a section with one call.  A failure is printed and otherwise ignored.

    C: ``vfio_ram_discard_notify_discard()``, hw/vfio/listener.c (common.c up to 10.0).
    """
    try:
        container.dma_unmap(section[3], section[2])
    except UpstreamError as error:
        container.reported.append(error)  # error_report() only


def needed_dma_mappings(
    listeners: list[RegisteredListener], *, max_memslots: int = MAX_MEMSLOTS_WITHOUT_KVM
) -> int:
    """How many DMA entries the container might come to need.

    One per block of every listener's section, and one per memory slot that has no listener.
    C computes it in 32 bit, unsigned.

    C: part of ``vfio_ram_discard_register_listener()``, hw/vfio/listener.c.
    """
    needed = 0
    for listener in listeners:
        granularity = listener.granularity
        start = listener.offset_within_address_space // granularity * granularity
        end = listener.offset_within_address_space + listener.size
        end = -(-end // granularity) * granularity
        needed += (end - start) // granularity
    return (needed + max_memslots - len(listeners)) & 0xFFFFFFFF


def find_listener(
    listeners: list[RegisteredListener], mr: MemoryRegion, address: int
) -> RegisteredListener | None:
    """The newest listener of a region at an address, which is how upstream finds one again.

    C: the loop in ``vfio_ram_discard_unregister_listener()``, hw/vfio/listener.c.
    """
    for listener in listeners:
        if listener.mr is mr and listener.offset_within_address_space == address:
            return listener
    return None
