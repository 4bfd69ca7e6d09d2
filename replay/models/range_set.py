# SPDX-License-Identifier: Apache-2.0
"""A set of addresses, kept as sorted ranges."""

from bisect import bisect_left, bisect_right

__all__ = ("RangeSet",)


class RangeSet:
    """Ranges that neither meet nor overlap; ``_edges`` is start, end, start, end, ..."""

    __slots__ = ("_edges",)

    def __init__(self) -> None:
        self._edges: list[int] = []

    def add(self, start: int, size: int) -> None:
        """Put ``[start, start + size)`` in."""
        self._replace(start, start + size, True)

    def remove(self, start: int, size: int) -> None:
        """Take ``[start, start + size)`` out."""
        self._replace(start, start + size, False)

    def _replace(self, start: int, end: int, present: bool) -> None:
        if end <= start:
            return
        edges = self._edges
        low, high = bisect_left(edges, start), bisect_right(edges, end)
        # An even index means that the address before the edge is outside every range.
        middle = []
        if (low % 2 == 0) == present:
            middle.append(start)
        if (high % 2 == 0) == present:
            middle.append(end)
        edges[low:high] = middle

    def __contains__(self, address: object) -> bool:
        return isinstance(address, int) and bisect_right(self._edges, address) % 2 == 1

    def overlaps(self, start: int, size: int) -> bool:
        """Whether any address of ``[start, start + size)`` is in."""
        first = bisect_right(self._edges, start)
        return first % 2 == 1 or bisect_left(self._edges, start + size) > first

    def ranges(self) -> list[tuple[int, int]]:
        """``(start, end)`` of each range, ascending."""
        return list(zip(self._edges[::2], self._edges[1::2], strict=True))

    def __repr__(self) -> str:
        ranges = ", ".join(f"[{start:#x}, {end:#x})" for start, end in self.ranges())
        return f"RangeSet({ranges})"
