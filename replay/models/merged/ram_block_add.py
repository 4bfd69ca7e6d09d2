# SPDX-License-Identifier: Apache-2.0
"""A guest_memfd-backed RAM block comes into being (QEMU 10.1 to 11.0).

How sure: [D], read in QEMU 10.2.2; the counters were run.
"""

from replay.models.coordinated_discard import CoordinatedDiscard, DiscardUser
from replay.models.errors import BusyError
from replay.models.memory_region import MemoryRegion
from replay.models.merged.ram_block_attributes import RamBlockAttributes

__all__ = ("ram_block_add",)


def ram_block_add(mr: MemoryRegion, discard: CoordinatedDiscard) -> RamBlockAttributes:
    """Require coordinated discards, then attach ``RamBlockAttributes`` to the region.

    C: ``ram_block_add()``, system/physmem.c.

    :raises BusyError: somebody disabled all discards, or the region has a manager
    """
    discard.take(DiscardUser.GUEST_MEMFD)
    try:
        return RamBlockAttributes(mr)
    except BusyError:
        discard.release(DiscardUser.GUEST_MEMFD)
        raise
