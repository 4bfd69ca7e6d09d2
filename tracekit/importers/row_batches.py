"""Rows one by one, nearly in time order -> batches in time order, with bounded memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import pyarrow as pa

from tracekit.ftrace.columns import ARROW_SCHEMA

__all__ = ("BATCH_ROWS", "LATENESS_NS", "RowBatches")

BATCH_ROWS = 1 << 16
LATENESS_NS = 100_000_000
"""How much later than its stamp a row may come.  Threads take the time first and write then, and
one was seen to wait 24 ms in between; a clock that was set moves by more, or shows on a thread."""

_MAX_THREADS = 1 << 16

_Row = tuple[int, int, str | None, str, int | None, int | None, dict[str, int | str | None]]


@dataclass
class RowBatches:
    """Puts rows in order.  Give them to :meth:`add` and take what :meth:`full` has to give.

    A row whose time runs back further than threads explain is held at the last good time, behind
    a ``trace.clock_back`` row that says what it carried.
    """

    rows: int = 0
    clock_backs: int = 0
    latest_ns: int | None = None
    _waiting: list[_Row] = field(default_factory=list)
    _number: int = 0
    _floor: int = -(1 << 63)
    _running_back: bool = False
    _threads: dict[int, int] = field(default_factory=dict)

    def add(
        self,
        ts_ns: int,
        source: str | None,
        event: str,
        row: dict[str, int | str | None],
        *,
        pid: int | None = None,
        tid: int | None = None,
    ) -> None:
        """Take one row; ``row`` holds the columns of its event type."""
        held = ts_ns
        if self.latest_ns is not None and ts_ns < self.latest_ns - LATENESS_NS:
            held = self.latest_ns
        if tid is not None:
            held = max(held, self._threads.get(tid, held))
            if len(self._threads) >= _MAX_THREADS and tid not in self._threads:
                self._threads.clear()
            self._threads[tid] = held
        held = max(held, self._floor)
        if held != ts_ns and not self._running_back:
            self.clock_backs += 1
            self._put(held, None, "trace.clock_back", {"until_ns": ts_ns}, None, tid)
        self._running_back = held != ts_ns
        self._put(held, source, event, row, pid, tid)
        if self.latest_ns is None or held > self.latest_ns:
            self.latest_ns = held

    def full(self) -> Iterator[pa.RecordBatch]:
        """Batches of rows that nothing can come before any more, if there are enough for one."""
        if len(self._waiting) < 2 * BATCH_ROWS:
            return
        assert self.latest_ns is not None
        self._waiting.sort(key=_order)
        until = self.latest_ns - LATENESS_NS
        ready = len(self._waiting)
        while ready > BATCH_ROWS and self._waiting[ready - 1][0] > until:
            ready -= 1
        # Where very many rows share so short a time, the first of them go out nevertheless.
        ready = max(ready, BATCH_ROWS)
        while ready > 0:
            size = min(ready, BATCH_ROWS)
            yield self._batch(size)
            ready -= size

    def rest(self) -> Iterator[pa.RecordBatch]:
        """Batches of all that is left."""
        self._waiting.sort(key=_order)
        while self._waiting:
            yield self._batch(min(len(self._waiting), BATCH_ROWS))

    def _put(
        self,
        ts_ns: int,
        source: str | None,
        event: str,
        row: dict[str, int | str | None],
        pid: int | None,
        tid: int | None,
    ) -> None:
        self._waiting.append((ts_ns, self._number, source, event, pid, tid, row))
        self._number += 1

    def _batch(self, size: int) -> pa.RecordBatch:
        rows, self._waiting = self._waiting[:size], self._waiting[size:]
        self._floor = rows[-1][0]
        self.rows += size
        common: dict[str, list[int] | list[int | None] | list[str] | list[str | None]] = {
            "ts_ns": [r[0] for r in rows],
            "source": [r[2] for r in rows],
            "event": [r[3] for r in rows],
            "pid": [r[4] for r in rows],
            "tid": [r[5] for r in rows],
        }
        filled = {name for r in rows for name in r[6]}
        arrays = []
        for column in ARROW_SCHEMA:
            if column.name in common:
                values: list[object] = list(common[column.name])
            elif column.name in filled:
                values = [r[6].get(column.name) for r in rows]
            else:
                arrays.append(pa.nulls(size, column.type))
                continue
            if pa.types.is_dictionary(column.type):
                arrays.append(pa.array(values, pa.utf8()).dictionary_encode())
            else:
                arrays.append(pa.array(values, column.type))
        return pa.RecordBatch.from_arrays(arrays, schema=ARROW_SCHEMA)


def _order(row: _Row) -> tuple[int, int]:
    return row[0], row[1]
