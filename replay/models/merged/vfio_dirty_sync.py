# SPDX-License-Identifier: Apache-2.0
"""VFIO's dirty log of a region with a manager, one query for each populated run.

How sure: [D], read in QEMU 10.0.13 and 10.2.2, not run.
"""

from replay.models.dirty_query import DirtyQuery
from replay.models.errors import AbortError, UndefinedBehaviourError
from replay.models.memory_region_section import MemoryRegionSection
from replay.models.merged.ram_discard_manager import RamDiscardManager
from replay.models.vfio_container import VfioContainer
from replay.models.vfio_dma import find_listener

__all__ = ("dirty_queries", "sync_ram_discard_listener_dirty_bitmap")


def dirty_queries(container: VfioContainer, section: MemoryRegionSection) -> list[DirtyQuery]:
    """The queries that the code means to make.

    The address comes from the replayed section.  With the manager of 11.1 that is 0 for every
    run, so these are the wrong addresses there: bug kept.

    C: ``vfio_ram_discard_query_dirty_bitmap()``, hw/vfio/listener.c.

    :raises AbortError: no listener at the section's region and address (hw_error)
    """
    manager = section.mr.manager
    found = find_listener(container.vrdl_list, section.mr, section.offset_within_address_space)
    if found is None or not isinstance(manager, RamDiscardManager):
        raise AbortError("no such listener", "vfio_sync_ram_discard_listener_dirty_bitmap")
    queries: list[DirtyQuery] = []

    def query(run: MemoryRegionSection) -> None:
        queries.append(
            DirtyQuery(run.offset_within_address_space, run.size, run.offset_within_region)
        )

    manager.replay_populated(section, query)
    return queries


def sync_ram_discard_listener_dirty_bitmap(
    container: VfioContainer, section: MemoryRegionSection
) -> None:
    """What the code does: nothing where nothing is populated, and undefined otherwise.

    Bug kept: the replay gets the address of a local pointer to the listener, and the callback
    takes it for the listener itself, so the container it reads from there is none.

    C: ``vfio_sync_ram_discard_listener_dirty_bitmap()``, hw/vfio/listener.c.

    :raises UndefinedBehaviourError: there is at least one run to query
    """
    if dirty_queries(container, section):
        raise UndefinedBehaviourError(
            "the callback reads a pointer's address as a listener",
            "vfio_ram_discard_query_dirty_bitmap",
        )
