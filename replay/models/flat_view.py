# SPDX-License-Identifier: Apache-2.0
"""The guest's address space, flattened: which region answers at which address."""

from bisect import bisect_right, insort
from typing import NamedTuple

from replay.models.memory_region import MemoryRegion
from replay.models.memory_region_section import MemoryRegionSection, check_u64

__all__ = ("FlatRange", "FlatView")


class FlatRange(NamedTuple):
    """``size`` bytes at ``address`` that are ``mr`` from ``offset_in_region`` on."""

    address: int
    size: int
    mr: MemoryRegion
    offset_in_region: int


class FlatView:
    """Ranges that do not overlap, ascending; what is in none of them is a hole.

    C: ``FlatView``, system/memory.c.
    """

    def __init__(self) -> None:
        self.ranges: list[FlatRange] = []

    def add(
        self, address: int, mr: MemoryRegion, *, offset: int = 0, size: int | None = None
    ) -> FlatRange:
        """Place ``mr`` (or a piece of it, an alias) at ``address``.

        :raises ValueError: it overlaps a range that is there
        """
        check_u64("address", address)
        if size is None:
            size = mr.size - offset
        new = FlatRange(address, size, mr, offset)
        for other in self.ranges:
            if other.address < address + size and address < other.address + other.size:
                raise ValueError(f"a flat view has no overlaps; {new} overlaps {other}")
        insort(self.ranges, new, key=lambda flat_range: flat_range.address)
        return new

    def find(self, address: int, size: int) -> MemoryRegionSection | None:
        """The part inside ``[address, address + size)`` of the **lowest** range that overlaps it.

        With a hole in front the section starts later than ``address``; a request that runs on into
        the next range gets only the first.

        C: ``memory_region_find()``, system/memory.c.
        """
        index = bisect_right(self.ranges, address, key=lambda flat_range: flat_range.address)
        if index and address < self.ranges[index - 1].address + self.ranges[index - 1].size:
            index -= 1
        if index == len(self.ranges):
            return None
        found = self.ranges[index]
        start = max(address, found.address)
        end = min(address + size, found.address + found.size)
        if end <= start:
            return None
        offset = found.offset_in_region + start - found.address
        return MemoryRegionSection(found.mr, offset, end - start, start)

    def __repr__(self) -> str:
        parts = [f"{r.address:#x}+{r.size:#x} {r.mr.name}" for r in self.ranges]
        return f"FlatView({', '.join(parts) or 'empty'})"
