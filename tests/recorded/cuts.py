"""A recording cut after every event: the engine is asked each time, without starting anew.

What an engine says of a cut trace is what it has found so far and what the end of the trace adds.
The end is tried on a copy of the state.  A cut trace may also hold fewer types of events, which the
engine is told at its start: there is one run for each set of types, over the cuts that hold it.
"""

from __future__ import annotations

from collections.abc import Container, Iterator
from itertools import pairwise
from typing import Any

import numpy as np
from recorded.recordings import Stream

from replay.engine.engine import Engine
from replay.engine.kernel import layout as L
from replay.engine.stream import COLUMNS

__all__ = ("Error", "errors_after_events")

Error = tuple[str, int, int]
"""Code, first page, and the page behind the last; -1, 0 for an error without pages."""
TOLD = (
    "iommu.map",
    "iommu.unmap",
    "kvm.attributes_post",
    "ioctl.entered",
    "fallocate.entered",
    "madvise.entered",
    "qemu.iommu_notify",
)
"""Event types of which the engine is told at the start whether the trace holds them."""


def errors_after_events(
    stream: Stream, cuts: Container[int], grace_ns: int
) -> Iterator[tuple[int, set[Error]]]:
    """For each of the ``cuts``: how many events it has, and its errors."""
    names = stream.base["event"].combine_chunks()
    types, numbers = names.dictionary.to_pylist(), names.indices.to_numpy()
    present = set(numbers.tolist())
    firsts = [
        int(np.argmax(numbers == n)) for n, t in enumerate(types) if t in TOLD and n in present
    ]
    bounds = sorted({0, *firsts, len(stream)})
    for start, end in pairwise(bounds):
        yield from _run(stream, start, end, cuts, grace_ns)


def _run(
    stream: Stream, start: int, end: int, cuts: Container[int], grace_ns: int
) -> Iterator[tuple[int, set[Error]]]:
    """The cuts that have ``start`` < n <= ``end`` events, which hold the same types."""
    asked = _Asked(events=stream.cut(start + 1).events(), grace_ns=grace_ns, compiled=True)
    for batch in _batches(stream, 0, start):
        asked.feed(batch)
    n = start
    for batch in _batches(stream, start, end):
        for now in asked.each(batch):
            n += 1
            if n in cuts:
                yield n, asked.errors(now)


def _batches(stream: Stream, start: int, end: int) -> list[Any]:
    part = stream.base.slice(start, end - start).select(COLUMNS)
    batches: list[Any] = part.to_batches(max_chunksize=1 << 16)
    return batches


class _Asked(Engine):
    """An engine that takes single events, and can be asked what it would say at the end."""

    _copy: L.State | None = None
    _told: frozenset[Error] = frozenset()
    """The errors among the records that were looked at, and are kept no longer."""

    def each(self, record_batch: Any) -> Iterator[int]:
        """Take the events of a batch one by one; the time of each."""
        batch = self.stream.batch(record_batch)
        times = batch[L.B_TS].tolist()
        self._know_threads()
        for i, now in enumerate(times):
            at = i
            while at == i:
                at, grow = self._frames.run(self._k, batch, i, i + 1)
                self._drain()
                if grow:
                    self._grow(grow)
            yield now

    def errors(self, now: int) -> set[Error]:
        """The errors that would stand in the result if the trace ended here."""
        end = self._copied()
        self._frames.finish(end, now)
        last = end.W[: int(end.g[L.G_OUT]), L.OUT0 : L.OUT0 + L.W_COLS]
        for rows in self._records:
            self._told |= {_error(row) for row in rows[rows[:, L.W_SEV] == L.ERROR]}
        self._records.clear()
        return self._told | {_error(row) for row in last[last[:, L.W_SEV] == L.ERROR]}

    def _copied(self) -> L.State:
        """The state, in arrays that are used again."""
        k, used = self._k, int(max(self._k.g[L.G_WTOP], self._k.g[L.G_ACTIVE]))
        room = used + int(k.g[L.G_REMAINING] + k.g[L.G_ACTIVE] + k.g[L.G_ROWS]) + 128
        old = self._copy
        fits = old is not None and old.W.shape[0] >= room
        if not fits or any(a.shape != b.shape for a, b in zip(_sized(old), _sized(k), strict=True)):
            made = k._replace(**{n: np.zeros_like(getattr(k, n)) for n in k._fields})
            rows = max(2 * room, k.W.shape[0])
            self._copy = made._replace(W=np.zeros((rows, L.W_WIDTH), np.int64))
        copy = self._copy
        assert copy is not None
        counts = {
            "W": used,
            "ct": int(k.g[L.G_CT]),
            "mm": int(k.g[L.G_MM]),
            "am": int(k.g[L.G_AM]),
        }
        for name in k._fields:
            n = counts.get(name, len(getattr(k, name)))
            getattr(copy, name)[:n] = getattr(k, name)[:n]
        return copy


def _sized(state: L.State | None) -> list[Any]:
    """The arrays whose sizes the kernel goes by, but for the watches."""
    assert state is not None
    return [a for name, a in zip(state._fields, state, strict=True) if name != "W"]


def _error(row: Any) -> Error:
    code = f"TK{int(row[L.W_KIND])}"
    if row[L.W_P0] == L.NULL or row[L.W_P1] == L.NULL:
        return code, -1, 0
    return code, int(row[L.W_P0]), int(row[L.W_P1])
