"""Guest memory over time, sampled from the engine's own state: address by time, in bounded memory.

The engine goes through the trace once more and stops at equal steps of time; each time every row
of the picture is summed up.  What comes and goes between two stops does not show here: findings
are drawn over the picture from their own times.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from replay.engine.engine import Engine
from replay.engine.kernel import layout as L
from replay.engine.stream import COLUMNS
from tracekit.report.survey import Survey
from tracekit.store import Trace

__all__ = ("COLUMNS_SHOWN", "Cell", "DmaEntries", "MemoryPicture", "Sampled", "sample_memory")

COLUMNS_SHOWN = 240
"""Moments at which the state is taken."""
_ROWS = 128
_MOST_RANGES = 24
_MOST_PICTURES = 8
_MOST_CONTAINERS = 16
_DENSE_AT_ONCE = 32
"""Chunks of 1 GiB in pieces that are summed up at every moment; with more, at every second ..."""
_CHUNKS_AT_ONCE = 512
_MAPPED = L.M_I | L.M_E


class Cell(IntEnum):
    """What the pages of one row are at one moment."""

    UNKNOWN = 0
    PRIVATE = 1
    SHARED = 2
    MAPPED = 3
    """Most pages are mapped for a device, none of them private."""
    PARTLY_MAPPED = 4
    BOTH = 5
    """At least one page is private and mapped."""


@dataclass(frozen=True, kw_only=True)
class MemoryPicture:
    """One process's guest memory.

    ``rows``: byte ranges [lo, hi) from low to high addresses, not all of one size where there are
    holes between them; ``cells``: uint8 array (moments, rows) of :class:`Cell`.
    """

    pid: int
    rows: tuple[tuple[int, int], ...]
    cells: Any


@dataclass(kw_only=True)
class DmaEntries:
    """One container's entries at each moment; null where the engine does not know them.

    ``limited``: a VFIO type1 container, which the kernel gives a limit; else an IO address space of
    iommufd, which has none.
    """

    pid: int
    number: int
    limited: bool
    entries: list[int | None]
    peak: int = 0

    @property
    def name(self) -> str:
        return f"{'container' if self.limited else 'IO address space'} {self.number}"


@dataclass(kw_only=True)
class Sampled:
    """Everything that was taken at the moments ``at_ns``."""

    at_ns: list[int] = field(default_factory=list)
    pictures: list[MemoryPicture] = field(default_factory=list)
    more_pictures: int = 0
    entries: list[DmaEntries] = field(default_factory=list)
    limit: int = L.ENTRY_LIMIT


class _Watched(Engine):
    """The engine, and a look at its state."""

    @property
    def state(self) -> L.State:
        return self._k


def sample_memory(
    trace: Trace,
    scale: Survey,
    *,
    compiled: bool | None = None,
    progress: Callable[[int], None] | None = None,
) -> Sampled:
    """Run the trace through the engine and take its state at equal steps of time.

    :raises TraceFormatError: the trace breaks off or is damaged
    """
    sampled = Sampled()
    ranges = scale.touched.pages(_MOST_RANGES)
    if not ranges:
        return sampled
    rows = _rows(ranges)
    engine = _Watched(events=trace.manifest.events, compiled=compiled)
    moments = _moments(scale)
    sampled.at_ns = moments.tolist()
    taken = _Taken(rows, len(moments))
    for column, stopped in enumerate(_stops(engine, trace, moments, progress)):
        taken.take(engine, column, stopped)
    sampled.pictures = taken.pictures(engine)
    sampled.more_pictures = len(taken.left_out)
    sampled.entries = [e for e in taken.entries.values() if any(n is not None for n in e.entries)]
    return sampled


def _moments(scale: Survey) -> Any:
    """The ends of equal steps of the time in which memory was converted, mapped or unmapped."""
    first, last = scale.active_ns
    count = int(min(COLUMNS_SHOWN, last - first + 1))
    edges = np.linspace(0, last - first, count + 1)[1:]
    return first + edges.astype(np.int64)


def _stops(
    engine: _Watched, trace: Trace, moments: Any, progress: Callable[[int], None] | None
) -> Iterator[bool]:
    """Feed the trace and stop at each moment; true if anything happened since the one before."""
    column, fed = 0, True
    for batch in trace.batches(COLUMNS):
        ts = np.asarray(batch.column(0))
        at = 0
        while column < len(moments) and len(ts) and moments[column] < ts[-1]:
            end = int(np.searchsorted(ts, moments[column], side="right"))
            if end > at:
                engine.feed(batch.slice(at, end - at))
                at, fed = end, True
            yield fed
            column, fed = column + 1, False
        if at < len(ts):
            engine.feed(_rest(batch, at))
            fed = True
        if progress is not None:
            progress(engine.stream.rows)
    while column < len(moments):
        yield fed
        column, fed = column + 1, False


def _rest(batch: pa.RecordBatch, at: int) -> pa.RecordBatch:
    return batch.slice(at) if at else batch


class _Taken:
    """The picture so far.  Memory: moments x rows for each process that has guest memory."""

    def __init__(self, rows: Any, moments: int) -> None:
        self._edges = rows
        self._moments = moments
        self.cells: dict[int, Any] = {}
        self.entries: dict[int, DmaEntries] = {}
        self._numbers: dict[int, int] = {}
        self.left_out: set[int] = set()

    def take(self, engine: _Watched, column: int, stopped: bool) -> None:
        """Fill in one moment; where nothing happened it is what the one before was."""
        k = engine.state
        dense = int(k.g[L.G_MM] + k.g[L.G_AM])
        chunks = int(k.g[L.G_CHUNKS])
        stride = max(1, -(-dense // _DENSE_AT_ONCE), -(-chunks // _CHUNKS_AT_ONCE))
        if column and (not stopped or column % stride):
            for cells in self.cells.values():
                cells[column] = cells[column - 1]
        else:
            for proc, spaces in _by_process(k).items():
                if proc not in self.cells:
                    if len(self.cells) == _MOST_PICTURES:
                        self.left_out.add(proc)
                        continue
                    shape = (self._moments, len(self._edges))
                    self.cells[proc] = np.zeros(shape, np.uint8)
                self.cells[proc][column] = _summed(k, spaces, self._edges)
        self._count_entries(engine, column)

    def pictures(self, engine: _Watched) -> list[MemoryPicture]:
        """Those with anything in them, by process."""
        found = []
        for proc, cells in self.cells.items():
            used = np.flatnonzero(cells.any(axis=0))
            if len(used):
                edges = [self._edges[int(i)] for i in used]
                rows = tuple((lo << 12, hi << 12) for lo, hi in edges)
                pid = engine.stream.tids[proc] if proc < len(engine.stream.tids) else -1
                found.append(MemoryPicture(pid=pid, rows=rows, cells=cells[:, used]))
        return found

    def _count_entries(self, engine: _Watched, column: int) -> None:
        k = engine.state
        for s in range(int(k.g[L.G_SPACES])):
            row = k.S[s]
            if row[L.S_KIND] != L.SPACE_CONTAINER:
                continue
            one = self.entries.get(s)
            if one is None:
                if len(self.entries) >= _MOST_CONTAINERS:
                    continue
                proc = int(row[L.S_PROC])
                self._numbers[proc] = self._numbers.get(proc, 0) + 1
                pid = engine.stream.tids[proc] if proc < len(engine.stream.tids) else -1
                one = DmaEntries(
                    pid=pid,
                    number=self._numbers[proc],
                    limited=bool(row[L.S_ID] == L.NULL),
                    entries=[None] * column,
                )
                self.entries[s] = one
            known = row[L.S_ENTRIES] != L.NULL and not row[L.S_DEAD]
            one.entries.append(int(row[L.S_ENTRIES]) if known else None)
            one.peak = max(one.peak, int(row[L.S_PEAK]))


def _rows(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Every range cut into rows, as many as its part of all pages is, and at least one."""
    total = sum(hi - lo for lo, hi in ranges)
    rows = []
    for lo, hi in ranges:
        count = min(hi - lo, max(1, round(_ROWS * (hi - lo) / total)))
        edges = [lo + (hi - lo) * i // count for i in range(count + 1)]
        rows += list(pairwise(edges))
    return rows


def _by_process(k: L.State) -> dict[int, tuple[list[int], list[int]]]:
    """By process, its living VMs and containers."""
    found: dict[int, tuple[list[int], list[int]]] = {}
    for s in range(int(k.g[L.G_SPACES])):
        row = k.S[s]
        if not row[L.S_DEAD]:
            kind = 0 if row[L.S_KIND] == L.SPACE_VM else 1
            found.setdefault(int(row[L.S_PROC]), ([], []))[kind].append(s)
    return found


def _summed(k: L.State, spaces: tuple[list[int], list[int]], rows: Any) -> Any:
    """The class of every row: what its pages are now."""
    counts = np.zeros((len(rows), len(Cell)), np.int64)
    chunks = {int(row[L.CK_KEY]): row for row in k.ck[:-1][k.ck[:-1, L.CK_KEY] != -1]}
    vms, containers = spaces
    mine = {*vms, *containers}
    numbers = sorted({key & (1 << 36) - 1 for key in chunks if key >> 36 in mine})
    defaults = [[int(k.S[s, L.S_DEFAULT]) for s in kind] for kind in spaces]
    for i, (lo, hi) in enumerate(rows):
        rest = hi - lo
        first = bisect_left(numbers, lo >> L.CHUNK_BITS)
        for number in numbers[first : bisect_left(numbers, -(-hi // L.CHUNK))]:
            base = number << L.CHUNK_BITS
            start, end = max(lo, base), min(hi, base + L.CHUNK)
            part = slice(start - base, end - base)
            attr = [_plane(k, k.am, chunks, s, number, part) for s in vms]
            maps = [_plane(k, k.mm, chunks, s, number, part) for s in containers]
            _tally(counts[i], attr, maps, end - start)
            rest -= end - start
        if rest:
            _tally(counts[i], defaults[0], defaults[1], rest)
    return _classes(counts)


def _plane(
    k: L.State, dense: Any, chunks: dict[int, Any], space: int, number: int, part: slice
) -> Any:
    """Some pages of one space: an array, or one value that all of them have."""
    row = chunks.get((space << 36) | number)
    if row is None:
        return int(k.S[space, L.S_DEFAULT])
    if row[L.CK_PARTS] < 0:
        return int(row[L.CK_VAL])
    first, last = part.start >> L.PART_BITS, ((part.stop - 1) >> L.PART_BITS) + 1
    values = k.ct[int(row[L.CK_PARTS]), first:last]
    pages = np.repeat(values, L.PART).reshape(len(values), L.PART)
    for i in np.flatnonzero(values < 0):
        pages[i] = dense[~int(values[i])]
    return pages.ravel()[part.start - first * L.PART : part.stop - first * L.PART]


def _tally(counts: Any, attr: list[Any], maps: list[Any], pages: int) -> None:
    private: Any = False
    known: Any = False
    mapped: Any = False
    for value in attr:
        private = private | ((value & (L.A_K | L.A_P)) == (L.A_K | L.A_P))
        known = known | ((value & L.A_K) != 0)
    for value in maps:
        mapped = mapped | ((value & _MAPPED) != 0)
    both = private & mapped

    def count(pages_that: Any) -> int:
        return (
            int(np.count_nonzero(pages_that)) if np.ndim(pages_that) else pages * bool(pages_that)
        )

    n_both, n_mapped, n_private, n_known = map(count, (both, mapped, private, known))
    n_shared_mapped = count(known & mapped) - n_both
    counts[Cell.BOTH] += n_both
    counts[Cell.MAPPED] += n_mapped - n_both
    counts[Cell.PRIVATE] += n_private - n_both
    counts[Cell.SHARED] += n_known - n_private - n_shared_mapped
    counts[Cell.UNKNOWN] += pages - n_known - (n_mapped - n_both - n_shared_mapped)


def _classes(counts: Any) -> Any:
    """One class a row: the worst if any page is in it, else what most pages are."""
    plain = counts[:, [Cell.UNKNOWN, Cell.PRIVATE, Cell.SHARED]]
    out = np.argmax(plain, axis=1).astype(np.uint8)
    mapped = counts[:, Cell.MAPPED]
    out[mapped > 0] = Cell.PARTLY_MAPPED
    out[2 * mapped > counts.sum(axis=1)] = Cell.MAPPED
    out[counts[:, Cell.BOTH] > 0] = Cell.BOTH
    return out
