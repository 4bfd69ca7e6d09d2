# SPDX-License-Identifier: Apache-2.0
"""A guest_memfd-backed RAM block comes into being (QEMU 11.1).

How sure: [D], read at the June 2026 commits; the counters were run.
"""

from replay.models.coordinated_discard import CoordinatedDiscard, DiscardUser
from replay.models.memory_region import MemoryRegion
from replay.models.sources.ram_block_attributes import RamBlockAttributes

__all__ = ("ram_block_add",)


def ram_block_add(mr: MemoryRegion, discard: CoordinatedDiscard) -> RamBlockAttributes:
    """Require coordinated discards, then add ``RamBlockAttributes`` as a source of the region.

    C: ``ram_block_add()``, system/physmem.c.

    :raises BusyError: somebody disabled all discards
    """
    discard.take(DiscardUser.GUEST_MEMFD)
    return RamBlockAttributes(mr)
