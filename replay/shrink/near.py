"""Where to look first: the frames near a finding, in steps from few to all.

Each step only says what is worth a try.  Whether a step shows the finding is found out by replaying
it; one that does not is followed by the next.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from replay.shrink.frames import frames_of
from tracekit.findings import Occurrence
from tracekit.store import Trace

__all__ = ("Near",)

_COLUMNS = (
    "seq", "ts_ns", "pid", "tid", "event", "context", "cmd", "iova", "gpa", "vaddr", "offset",
    "size", "object", "local", "peer",
)  # fmt: skip
_MEMORY_CALLS = (0x3B71, 0x3B72, 0x3B85, 0x3B86, 0x3B8F, 0x4020AED2, 0xAE80)
"""ioctls that a VM makes all the time: maps, unmaps, attribute changes, KVM_RUN."""
_BACKING = ("fallocate.entered", "madvise.entered")
_NULL = -(1 << 63)


class Near:
    """The frames of a trace, and how each of its rows stands to one occurrence of a finding.

    ``frame``, ``seq``: each row's frame and number; ``count``: of frames.  Some 60 bytes a row.
    """

    def __init__(self, trace: Trace, target: Occurrence) -> None:
        self._target = target
        names = ("seq", "ts", "thread", "near", "setup")
        columns: dict[str, list[Any]] = {name: [] for name in names}
        self._wanted = np.array(target.events, np.int64)
        self._pages = _pages(target)
        self._vaddrs: set[tuple[int, int]] = set()
        self._objects = self._objects_of(trace)

        def watched() -> Iterator[pa.RecordBatch]:
            for batch in trace.batches(_COLUMNS):
                self._look(batch, columns)
                yield batch

        self.frame = frames_of(watched())
        self.seq, self._ts, self._thread, near, setup = (
            np.concatenate(columns[name]) if columns[name] else np.zeros(0, np.int64)
            for name in names
        )
        self.count = int(self.frame.max()) + 1 if len(self.frame) else 0
        self._near = self._any(near)
        self._busy = self._any(~setup.astype(bool))
        self._first = np.full(self.count, -1, np.int64)
        self._first[self.frame[::-1]] = np.arange(len(self.frame) - 1, -1, -1)

    def steps(self) -> Iterator[Any]:
        """Frames that may suffice, ascending: those at its pages, those that set things up besides,
        all of its threads, all."""
        begins = self._ts[self._first]
        until = self._target.until_ns
        early = begins <= (until if until is not None else self._ts[-1])
        threads = np.unique(self._thread[np.isin(self.seq, self._wanted)])
        ours = np.isin(self._thread[self._first], threads) | (self._thread[self._first] < 0)
        setup = ~self._busy & ours
        last = None
        for chosen in (
            self._near & early,
            (self._near | setup) & early,
            self._near | setup,
            ours & early,
            ours,
            np.ones(self.count, bool),
        ):
            if last is None or not (chosen == last).all():
                last = chosen
                yield np.flatnonzero(chosen)

    def _any(self, rows: Any) -> Any:
        """Which frames hold one of these rows."""
        flags = np.zeros(self.count, bool)
        flags[self.frame[np.asarray(rows, bool)]] = True
        return flags

    def _objects_of(self, trace: Trace) -> Any:
        """Kernel pointers that the evidence of a socket names."""
        if self._target.size is not None:
            return np.zeros(0, np.int64)
        rows = trace.rows(self._wanted.tolist(), ["object"])
        return np.unique(_integers(rows.column("object").combine_chunks()))

    def _look(self, batch: pa.RecordBatch, into: dict[str, list[Any]]) -> None:
        get = {name: batch.column(i) for i, name in enumerate(batch.schema.names)}
        at = {n: _integers(get[n]) for n in ("iova", "gpa", "vaddr", "offset", "size", "object")}
        size = np.maximum(at["size"], 1)
        near = np.isin(np.asarray(get["seq"]), self._wanted)
        lo, hi = self._pages
        if hi > lo:
            for name in ("iova", "gpa"):
                near |= (at[name] != _NULL) & (at[name] < hi) & (at[name] + size > lo)
            self._follow(at, near, lo)
        words = get["event"].dictionary.to_pylist()
        indices = np.asarray(get["event"].indices)
        backing = np.isin(indices, [words.index(w) for w in _BACKING if w in words])
        for lo, hi in (*self._vaddrs, self._pages):
            for name in ("vaddr", "offset"):
                near |= backing & (at[name] != _NULL) & (at[name] < hi) & (at[name] + size > lo)
        if len(self._objects):
            near |= np.isin(at["object"], self._objects) & (at["object"] > _NULL)
        if self._target.local is not None:
            ends = (self._target.local, self._target.peer)
            ports = np.array([port for _, port in filter(None, ends)], np.int64)
            for name in ("local", "peer"):
                near |= np.isin(_integers(get[name]) & 0xFFFFFFFF, ports)
        calls = np.isin(np.asarray(get["cmd"].fill_null(0)), _MEMORY_CALLS)
        run = np.isin(indices, [words.index(w) for w in ("kvm.entry",) if w in words])
        into["seq"].append(np.asarray(get["seq"]))
        into["ts"].append(np.asarray(get["ts_ns"]))
        into["thread"].append(np.asarray(get["tid"].fill_null(-1)))
        into["near"].append(near)
        into["setup"].append(~(calls | backing | run))

    def _follow(self, at: dict[str, Any], near: Any, lo: int) -> None:
        """Learn from maps at which user addresses the pages are."""
        if len(self._vaddrs) >= 16:
            return
        both = near & (at["vaddr"] > 0) & (at["iova"] != _NULL) & (at["size"] > 0)
        for i in np.flatnonzero(both)[:16].tolist():
            start = int(at["vaddr"][i] + max(lo - int(at["iova"][i]), 0))
            self._vaddrs.add((start, start + int(at["size"][i])))


def _pages(o: Occurrence) -> tuple[int, int]:
    start = o.iova if o.iova is not None else o.gpa
    if start is None or not o.size:
        return (0, 0)
    return (_signed(start), _signed(start + o.size))


def _signed(value: int) -> int:
    return min(value, (1 << 63) - 1)


def _integers(array: pa.Array) -> Any:
    """As int64, nulls as the least one."""
    values = np.asarray(array.fill_null(0))
    out = values.view(np.int64) if values.dtype == np.uint64 else values.astype(np.int64)
    return np.where(np.asarray(array.is_null()), _NULL, out) if array.null_count else out
