# SPDX-License-Identifier: Apache-2.0
"""The DMA entries of one IOMMU container, in address order.

One entry is one successful map call, whatever its size.  The kernel keeps them in a tree
(type1's ``dma_list``, iommufd's ``area_itree``); here it is a list of short sorted lists.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator
from typing import NamedTuple

__all__ = ("DmaEntries", "DmaEntry", "DmaRange")

CHUNK_MAX = 512


class DmaEntry(NamedTuple):
    """One map call that is still in force."""

    iova: int
    size: int
    vaddr: int
    readonly: bool = False

    @property
    def end(self) -> int:
        """First address after it."""
        return self.iova + self.size


class DmaRange(NamedTuple):
    """Neighbouring entries whose addresses continue on both sides."""

    iova: int
    end: int
    vaddr: int
    entries: int


class DmaEntries:
    """Entries that do not overlap; who adds one makes sure of that with ``overlapping()``."""

    __slots__ = ("_by_iova", "_chunks", "_firsts")

    def __init__(self) -> None:
        self._by_iova: dict[int, DmaEntry] = {}
        self._chunks: list[list[int]] = [[]]
        self._firsts: list[int] = [0]  # lowest address each chunk is responsible for

    def __len__(self) -> int:
        return len(self._by_iova)

    def __iter__(self) -> Iterator[DmaEntry]:
        for chunk in self._chunks:
            for iova in chunk:
                yield self._by_iova[iova]

    def starting_at(self, iova: int) -> DmaEntry | None:
        """The entry that begins at ``iova``."""
        return self._by_iova.get(iova)

    def at(self, address: int) -> DmaEntry | None:
        """The entry that covers ``address``."""
        entry = self._last_below(address + 1)
        return entry if entry is not None and entry[0] + entry[1] > address else None

    def overlapping(self, iova: int, size: int) -> DmaEntry | None:
        """The highest entry that shares an address with ``[iova, iova + size)``."""
        entry = self._last_below(iova + size)
        return entry if entry is not None and entry[0] + entry[1] > iova else None

    def starting_in(self, iova: int, size: int) -> list[DmaEntry]:
        """The entries whose first address is in ``[iova, iova + size)``, ascending."""
        end = iova + size
        found: list[DmaEntry] = []
        index = bisect_right(self._firsts, iova) - 1
        while index < len(self._chunks) and self._firsts[index] < end:
            chunk = self._chunks[index]
            low, high = bisect_left(chunk, iova), bisect_left(chunk, end)
            found.extend(self._by_iova[start] for start in chunk[low:high])
            index += 1
        return found

    def add(self, entry: DmaEntry) -> None:
        """Add an entry that overlaps none."""
        iova = entry[0]
        self._by_iova[iova] = entry
        index = bisect_right(self._firsts, iova) - 1
        chunk = self._chunks[index]
        insort(chunk, iova)
        if len(chunk) > CHUNK_MAX:
            half = len(chunk) // 2
            self._chunks.insert(index + 1, chunk[half:])
            self._firsts.insert(index + 1, chunk[half])
            del chunk[half:]

    def remove(self, entry: DmaEntry) -> None:
        """Take one entry out."""
        iova = entry[0]
        del self._by_iova[iova]
        index = bisect_right(self._firsts, iova) - 1
        chunk = self._chunks[index]
        del chunk[bisect_left(chunk, iova)]
        if not chunk and index:
            del self._chunks[index]
            del self._firsts[index]

    def ranges(self) -> list[DmaRange]:
        """Entries merged where both the IOVA and the host address continue."""
        merged: list[DmaRange] = []
        for iova, size, vaddr, _ in self:
            if merged:
                last = merged[-1]
                if last.end == iova and last.vaddr + (last.end - last.iova) == vaddr:
                    merged[-1] = last._replace(end=iova + size, entries=last.entries + 1)
                    continue
            merged.append(DmaRange(iova, iova + size, vaddr, 1))
        return merged

    def _last_below(self, address: int) -> DmaEntry | None:
        index = bisect_right(self._firsts, address) - 1
        while index >= 0:
            chunk = self._chunks[index]
            position = bisect_left(chunk, address)
            if position:
                return self._by_iova[chunk[position - 1]]
            index -= 1
        return None

    def __repr__(self) -> str:
        return f"DmaEntries({len(self)} in {len(self.ranges())} ranges)"
