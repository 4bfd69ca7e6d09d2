# SPDX-License-Identifier: Apache-2.0
"""One state bit per block of a region, and walks over its runs.

A byte stands for a bit, because ``bytearray`` searches at the speed of ``memchr()``; 1 TiB of
guest memory takes 256 MiB.  The merged
code searches to the end of the whole bitmap for every conversion and v4 only inside the range:
that is time, not behaviour, and is not modelled.
"""

from collections.abc import Callable, Iterator

from replay.models.memory_region_section import MemoryRegionSection

__all__ = ("BlockBitmap", "SectionCallback")

#: A replay callback; raising stops the replay, as a non-zero return does upstream.
SectionCallback = Callable[[MemoryRegionSection], None]


class BlockBitmap:
    """``ceil(size / block_size)`` bits, all clear at first.  ``bits`` is one byte each."""

    __slots__ = ("bits", "block_size")

    def __init__(self, size: int, block_size: int) -> None:
        self.block_size = block_size
        self.bits = bytearray(-(-size // block_size))

    def set(self, first: int, count: int) -> None:
        """C: ``bitmap_set()``, util/bitmap.c."""
        self.bits[first : first + count] = b"\1" * count

    def clear(self, first: int, count: int) -> None:
        """C: ``bitmap_clear()``, util/bitmap.c."""
        self.bits[first : first + count] = bytes(count)

    def find_next(self, value: int, start: int) -> int:
        """The first bit with ``value`` from ``start`` on; the number of bits if there is none.

        C: ``find_next_bit()`` and ``find_next_zero_bit()``, util/bitops.c.
        """
        found = self.bits.find(value, start)
        return len(self.bits) if found < 0 else found

    def ranges(self, value: int = 1) -> list[tuple[int, int]]:
        """Byte ranges ``(start, end)`` whose bits have ``value``; the last end is block-rounded."""
        block = self.block_size
        return [(first * block, end * block) for first, end in self._runs(value, 0)]

    def sections(self, section: MemoryRegionSection, value: int) -> Iterator[MemoryRegionSection]:
        """The maximal runs of ``value`` that meet ``section``, each clipped to it, ascending.

        The first run is looked for from the block that holds the start of the section, and the
        walk ends at the first run outside.  Runs come from the bitmap, so the last one may reach
        beyond a region that is no multiple of the block.
        """
        block = self.block_size
        for first, end in self._runs(value, section.offset_within_region // block):
            part = section.intersect_range(first * block, (end - first) * block)
            if part is None:
                return
            yield part

    def _runs(self, value: int, start: int) -> Iterator[tuple[int, int]]:
        total = len(self.bits)
        first = self.find_next(value, start)
        while first < total:
            end = self.find_next(1 - value, first + 1)
            yield first, end
            first = self.find_next(value, end + 1)

    def __repr__(self) -> str:
        ones = self.bits.count(1)
        return f"BlockBitmap({ones} of {len(self.bits)} blocks of {self.block_size:#x} set)"
