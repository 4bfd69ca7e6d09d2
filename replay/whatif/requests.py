"""What was asked of the host: conversions, and other memory that came and went.

Taken from the calls that conformance takes from a trace (replay/conformance): an attribute change
is a conversion.  Outside of memory that is ever converted a map is memory that comes, and an unmap
memory that goes: a region, or a block that virtio-mem plugs or unplugs.  Maps and unmaps inside
memory that is converted are no requests: they are what a world does about them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum
from typing import Any

import numpy as np

from replay.conformance.calls import COLUMNS, CallStream
from replay.conformance.kernel import layout as K
from replay.engine.engine import worth_compiling
from replay.models.range_set import RangeSet
from tracekit.store import Trace

__all__ = ("Kind", "Request", "Requests", "requests_of")

PAGE = 4096
MOST_ADDRESS = 1 << 52


class Kind(Enum):
    """What is asked for."""

    TO_SHARED = "to shared"
    TO_PRIVATE = "to private"
    ADD = "memory comes"
    """A region, or a block of virtio-mem, in one piece."""
    REMOVE = "memory goes"

    @property
    def converts(self) -> bool:
        return self in (Kind.TO_SHARED, Kind.TO_PRIVATE)


@dataclass(frozen=True)
class Request:
    """One request for ``[gpa, gpa + size)`` bytes at ``ts_ns``, made in pieces of ``each`` bytes if
    that is not 0."""

    kind: Kind
    gpa: int
    size: int
    ts_ns: int = 0
    each: int = 0

    def pieces(self) -> Iterator[Request]:
        """The requests that it stands for."""
        step = self.each or self.size
        for at in range(self.gpa, self.gpa + self.size, step or 1):
            size = min(step, self.gpa + self.size - at)
            yield Request(self.kind, at, size, self.ts_ns)


@dataclass(frozen=True, kw_only=True)
class Requests:
    """What one process (one VM) asked for.

    ``regions``: (gpa, size) of memory that can be converted; all of it is private at first.
    ``containers``: how many of VFIO's listen.  ``unknown``: requests whose arguments nobody
    recorded.
    """

    process: int
    regions: tuple[tuple[int, int], ...]
    requests: tuple[Request, ...]
    containers: int = 1
    unknown: int = 0
    lost: int = 0


def requests_of(
    trace: Trace, *, progress: Callable[[int], None] | None = None
) -> tuple[Requests, ...]:
    """The requests of a trace, process by process, those with most of them first.

    Memory whose first change makes all of it private, before any of it is mapped, was private from
    the start.  Any other was shared: then the first request makes it so.

    :raises TraceFormatError: the trace breaks off or is damaged
    """
    stream = CallStream(trace.manifest.events, compiled=worth_compiling(trace.manifest.rows))
    parts, done = [], 0
    for batch in trace.batches(COLUMNS):
        parts.append(stream.feed(batch))
        done += batch.num_rows
        if progress is not None:
            progress(done)
    parts.append(stream.finish())
    calls = np.concatenate(parts)
    lost = int((calls[:, K.C_KIND] == K.K_LOST).sum())
    found = []
    for process in np.unique(calls[:, K.C_PROC]).tolist():
        own = calls[(calls[:, K.C_PROC] == process) | (calls[:, K.C_KIND] == K.K_LOST)]
        told = _of_process(stream.tids[process], own, lost)
        if told.requests:
            found.append(told)
    return tuple(sorted(found, key=lambda r: (-len(r.requests), r.process)))


def _of_process(tid: int, calls: Any, lost: int) -> Requests:
    kinds = calls[:, K.C_KIND]
    usable = (calls[:, K.C_KNOWN] != 0) & (calls[:, K.C_SIZE] > 0) & (calls[:, K.C_ADDR] >= 0)
    usable &= (calls[:, K.C_ADDR] < MOST_ADDRESS) & (calls[:, K.C_SIZE] < MOST_ADDRESS)
    changes = calls[(kinds == K.K_ATTR) & usable]
    unknown = int(((kinds == K.K_ATTR) & ~usable).sum())
    regions = _regions(changes)
    mapped = calls[(kinds == K.K_MAP) & usable]
    requests = [*_conversions(changes, regions, mapped)]
    ends = np.array([0, *(gpa + size for gpa, size in regions)], np.int64)
    below = _region_of(calls[:, K.C_ADDR] + calls[:, K.C_SIZE] - 1, regions)
    inside = ends[below + 1] > calls[:, K.C_ADDR]
    dma = (kinds == K.K_MAP) | (kinds == K.K_UNMAP)
    spaces, maps = np.unique(calls[(kinds == K.K_MAP) & usable][:, K.C_SPACE], return_counts=True)
    # every container of a VM hears the same; one that maps most stands for all of them
    other = calls[:, K.C_SPACE] != (spaces[maps.argmax()] if len(spaces) else 0)
    everything = (kinds == K.K_UNMAP) & (calls[:, K.C_KNOWN] != 0) & (calls[:, K.C_SIZE] == -1)
    memory = _Memory()
    memory.feed(calls[~(dma & (inside | other | ~(usable | everything)))])
    requests += memory.requests
    return Requests(
        process=tid,
        regions=regions,
        requests=tuple(sorted(requests, key=lambda r: r.ts_ns)),
        containers=max(len(spaces), 1),
        unknown=unknown + int((dma & ~usable & ~everything).sum()),
        lost=lost,
    )


def _regions(changes: Any) -> tuple[tuple[int, int], ...]:
    """Memory whose attributes ever changed, as maximal ranges of pages."""
    ranges = RangeSet()
    good = changes[changes[:, K.C_RET] >= 0]
    for lo, size in zip(good[:, K.C_ADDR].tolist(), good[:, K.C_SIZE].tolist(), strict=True):
        first = lo // PAGE * PAGE
        ranges.add(first, -(-(lo + size) // PAGE) * PAGE - first)
    return tuple((start, end - start) for start, end in ranges.ranges())


def _region_of(addresses: Any, regions: tuple[tuple[int, int], ...]) -> Any:
    """The place of the last region that begins at or below each address; -1: none does."""
    starts = np.array([gpa for gpa, _ in regions], np.int64)
    return np.searchsorted(starts, addresses, side="right") - 1


def _conversions(
    changes: Any, regions: tuple[tuple[int, int], ...], mapped: Any
) -> Iterator[Request]:  # fmt: skip
    private = set()
    good = changes[changes[:, K.C_RET] >= 0]
    places, firsts = np.unique(_region_of(good[:, K.C_ADDR], regions), return_index=True)
    for place, first in zip(places.tolist(), good[firsts], strict=True):
        gpa, size = regions[place]
        whole = (int(first[K.C_ADDR]), int(first[K.C_SIZE])) == (gpa, size)
        before = mapped[mapped[:, K.C_SEQ0] < first[K.C_SEQ0]]
        inside = (before[:, K.C_ADDR] < gpa + size) & (
            before[:, K.C_ADDR] + before[:, K.C_SIZE] > gpa
        )
        if whole and first[K.C_FLAG] == 1 and not inside.any():
            private.add(int(first[K.C_SEQ0]))  # the slot is made: that is no guest's request
        else:
            yield Request(Kind.TO_SHARED, gpa, size, int(first[K.C_TS0]) - 1)
    for row in changes.tolist():
        if row[K.C_SEQ0] not in private:
            kind = Kind.TO_PRIVATE if row[K.C_FLAG] == 1 else Kind.TO_SHARED
            yield Request(kind, row[K.C_ADDR], row[K.C_SIZE], row[K.C_TS0])


class _Memory:
    """Memory that is never converted: what is mapped of it, and the requests that this tells."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self._live: dict[int, dict[int, list[int]]] = {}

    def feed(self, calls: Any) -> None:
        """Take calls, in order."""
        for row in calls.tolist():
            kind = row[K.C_KIND]
            if row[K.C_RET] < 0:
                continue  # a refused call asked for what the host did not have
            if kind == K.K_MAP:
                self._say(Kind.ADD, row)
                self._live.setdefault(row[K.C_SPACE], {})[row[K.C_ADDR]] = row
            elif kind == K.K_UNMAP and row[K.C_SIZE] < 0:
                self._end(row[K.C_SPACE], row[K.C_TS0])
            elif kind == K.K_UNMAP:
                self._unmap(row)
            elif kind == K.K_CLOSE:
                for space in [s for s in self._live if s & 0xFFFFF == row[K.C_SPACE]]:
                    self._end(space, row[K.C_TS0])

    def _unmap(self, row: list[int]) -> None:
        self._say(Kind.REMOVE, row)
        live = self._live.get(row[K.C_SPACE], {})
        lo, hi = row[K.C_ADDR], row[K.C_ADDR] + row[K.C_SIZE]
        for at in [at for at in live if lo <= at < hi]:
            del live[at]

    def _end(self, space: int, ts_ns: int) -> None:
        """The container goes, or all that it has mapped."""
        for row in self._live.pop(space, {}).values():
            self._say(Kind.REMOVE, row, ts_ns)

    def _say(self, kind: Kind, row: list[int], ts_ns: int | None = None) -> None:
        each = row[K.C_SIZE] // row[K.C_COUNT] if row[K.C_COUNT] > 1 else 0
        at = row[K.C_TS0] if ts_ns is None else ts_ns
        self.requests.append(Request(kind, row[K.C_ADDR], row[K.C_SIZE], at, each))
