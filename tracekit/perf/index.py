"""Which records each CPU has, in order of time, without the records; and the records by it.

18 bytes of memory a record, and while one CPU is being sorted 16 more for each of its records.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from tracekit.compiled.kernels import kernel
from tracekit.ftrace.ring_buffer import MARK_LOST, Records
from tracekit.perf.walk import copy, copy_plain

__all__ = ("CpuIndex", "CpuRecords", "Place")

SPAN = 1 << 20
"""Bytes read at once, of which some may be other CPUs'."""
GAP = 1 << 14
"""Records this far apart are read by themselves."""
WINDOW = 1 << 15
"""Records looked at for one filling."""


class Place(Protocol):
    """Where records lie."""

    def read_into(self, offset: int, target: memoryview) -> None:
        """Fill ``target`` with the bytes at ``offset``."""


class CpuIndex:
    """One CPU's records: time, place and size, gathered in any order; and holes among them."""

    def __init__(self) -> None:
        self._pieces: list[tuple[npt.NDArray[np.int64], ...]] = []
        self._sizes: list[npt.NDArray[np.uint16]] = []
        self._holes: list[tuple[int, int, int]] = []
        self.ts = np.empty(0, np.int64)
        self.at = np.empty(0, np.int64)
        self.size = np.empty(0, np.uint16)
        self.until = np.empty(0, np.int64)
        self.lost = np.empty(0, np.int64)

    def add(
        self, ts: npt.NDArray[np.int64], at: npt.NDArray[np.int64], size: npt.NDArray[np.uint16]
    ) -> None:
        """Take records, in the order that equal times keep."""
        self._pieces.append((ts, at))
        self._sizes.append(size)

    def add_hole(self, begin: int, until: int, count: int) -> None:
        """Events were lost after ``begin`` and before ``until``; ``count`` -1: nobody knows."""
        self._holes.append((begin, max(begin, until), count))

    def finish(self) -> None:
        """Bring the records in order; then they can be read."""
        if self._pieces:
            self.ts = np.concatenate([p[0] for p in self._pieces])
            self.at = np.concatenate([p[1] for p in self._pieces])
            self.size = np.concatenate(self._sizes)
        self._pieces, self._sizes = [], []
        if len(self.ts) > 1 and bool((self.ts[1:] < self.ts[:-1]).any()):
            order = np.argsort(self.ts, kind="stable")
            self.ts, self.at, self.size = self.ts[order], self.at[order], self.size[order]
        if self._holes:
            holes = np.array(sorted(self._holes), np.int64)
            self.until, self.lost = holes[:, 1].copy(), holes[:, 2].copy()
            # Behind the records of the time when the hole begins.  Instead of a place: -1 - number.
            where = np.searchsorted(self.ts, holes[:, 0], side="right")
            self.ts = np.insert(self.ts, where, holes[:, 0])
            self.at = np.insert(self.at, where, -1 - np.arange(len(holes)))
            self.size = np.insert(self.size, where, 0)

    @property
    def earliest(self) -> int:
        """The least time of the records so far; there are some."""
        return min(int(ts.min()) for ts, _ in self._pieces)

    @property
    def latest(self) -> int:
        """The greatest."""
        return max(int(ts.max()) for ts, _ in self._pieces)

    @property
    def largest(self) -> int:
        """Bytes of the largest record."""
        return int(self.size.max()) if len(self.size) else 0


class CpuRecords:
    """One CPU's records, read in order of time."""

    def __init__(self, place: Place, index: CpuIndex, *, small: bool = False) -> None:
        """``small``: copy with the uncompiled kernel."""
        self._place = place
        self._index = index
        self._next = 0
        self._copy = kernel(copy_plain if small else copy, compile=not small)
        self._held = np.empty(0, np.uint8)

    @property
    def unit(self) -> int:
        """Room for the largest record."""
        return max(64, (self._index.largest + 7) & ~7)

    @property
    def finished(self) -> bool:
        """No more records."""
        return self._next >= len(self._index.ts)

    def fill(self, records: Records) -> None:
        """Copy as many of the next records as there is room for."""
        first = self._next
        window = slice(first, first + min(len(records.ts), len(records.until), WINDOW))
        index = self._index
        sizes = index.size[window].astype(np.int64)
        ends = np.cumsum((sizes + 3) & ~3)
        count = int(np.searchsorted(ends, len(records.pages), side="right"))
        at, sizes = index.at[first : first + count], sizes[:count]
        to = ends[:count] - ((sizes + 3) & ~3)
        records.ts[:count] = index.ts[first : first + count]
        records.at[:count] = to
        records.size[:count] = sizes
        holes = np.flatnonzero(at < 0)
        numbers = -1 - at[holes]
        records.at[holes] = MARK_LOST
        records.size[holes] = np.arange(len(holes))
        records.until[: len(holes)] = index.until[numbers]
        records.lost[: len(holes)] = index.lost[numbers]
        records.state[3], records.state[4] = count, len(holes)
        self._next += count
        real = at >= 0
        if len(holes):
            at, sizes, to = at[real], sizes[real], to[real]
        self._read(records.pages, at, sizes, to)

    def _read(
        self,
        pages: npt.NDArray[np.uint8],
        at: npt.NDArray[np.int64],
        sizes: npt.NDArray[np.int64],
        to: npt.NDArray[np.int64],
    ) -> None:
        steps = np.diff(at)
        breaks = np.flatnonzero((steps < 0) | (steps > GAP)) + 1
        for low, high in zip([0, *breaks.tolist()], [*breaks.tolist(), len(at)], strict=True):
            while low < high:
                begin = int(at[low])
                end = low + int(np.searchsorted(at[low:high], begin + SPAN - 0xFFFF, side="right"))
                held = self._room(int((at[low:end] + sizes[low:end]).max()) - begin)
                self._place.read_into(begin, held.data)
                self._copy(held, begin, pages, at[low:end], sizes[low:end], to[low:end])
                low = end

    def _room(self, size: int) -> npt.NDArray[np.uint8]:
        if len(self._held) < size:
            self._held = np.empty(max(size, 1 << 16), np.uint8)
        return self._held[:size]
