"""What slots are made of, from the mmap() calls that made the memory at their addresses."""

from __future__ import annotations

from typing import Any

from replay.conformance.kernel import layout as K

__all__ = ("Backings",)

ANONYMOUS, HUGETLB = 0x20, 0x40000
MOST_MAPPINGS, MOST_PROCESSES = 256, 256
"""Of a process, and processes; of more the oldest are forgotten."""

Mapping = tuple[int, int, int]
"""First byte, end, pages."""


class Backings:
    """Takes the mmap() calls out of the calls, and writes into each slot what it is made of."""

    def __init__(self) -> None:
        self._of: dict[int, list[Mapping]] = {}

    def feed(self, calls: Any) -> Any:
        """The calls without mmap()."""
        kinds = calls[:, K.C_KIND]
        mmaps = kinds == K.K_MMAP
        if not self._of and not mmaps.any():
            return calls
        for i in (mmaps | (kinds == K.K_SLOT) | (kinds == K.K_LOST)).nonzero()[0].tolist():
            row = calls[i]
            if kinds[i] == K.K_LOST:
                self._of.clear()
            elif kinds[i] == K.K_SLOT:
                calls[i, K.C_COUNT] = self._pages(row.tolist())
            else:
                self._map(row.tolist())
        return calls[~mmaps]

    def _map(self, row: list[int]) -> None:
        lo, hi, flags = row[K.C_ADDR], row[K.C_ADDR] + row[K.C_SIZE], row[K.C_FLAG]
        known = self._of.pop(row[K.C_PROC], [])
        kept: list[Mapping] = []
        for first, end, pages in known:  # what lay there is gone
            if first < lo:
                kept.append((first, min(end, lo), pages))
            if end > hi:
                kept.append((max(first, hi), end, pages))
        if flags & HUGETLB:
            kept.append((lo, hi, K.HUGE_PAGES))
        elif flags & ANONYMOUS:
            kept.append((lo, hi, K.BASE_PAGES))
        if len(self._of) >= MOST_PROCESSES:
            del self._of[next(iter(self._of))]
        self._of[row[K.C_PROC]] = kept[-MOST_MAPPINGS:]

    def _pages(self, row: list[int]) -> int:
        """Of all of a slot's memory, if one mapping says it."""
        lo, size = row[K.C_VADDR], row[K.C_SIZE]
        for first, end, pages in self._of.get(row[K.C_PROC], ()):
            if size > 0 and first <= lo and lo + size <= end:
                return pages
        return K.ANY_PAGES
