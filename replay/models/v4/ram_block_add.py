# SPDX-License-Identifier: Apache-2.0
"""A guest_memfd-backed RAM block comes into being (patches 09 and 13 of v4).

How sure: [D], read in the series; the counters and the refusal of a second manager were run.
"""

from replay.models.coordinated_discard import CoordinatedDiscard, DiscardUser
from replay.models.errors import BusyError
from replay.models.memory_region import MemoryRegion
from replay.models.v4.ram_block_attribute import RamBlockAttribute

__all__ = ("ram_block_add",)


def ram_block_add(mr: MemoryRegion, discard: CoordinatedDiscard) -> RamBlockAttribute:
    """Require coordinated discards, then attach a ``RamBlockAttribute`` to the region.

    C: ``ram_block_add()``, system/physmem.c of the v4 series.

    :raises BusyError: somebody disabled all discards, or the region has a manager
    """
    discard.take(DiscardUser.GUEST_MEMFD)
    try:
        return RamBlockAttribute(mr)
    except BusyError:
        discard.release(DiscardUser.GUEST_MEMFD)
        raise
