"""Feeds a trace to the socket kernel and collects what it tells."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from replay.linger.forgetting import Forgetting, new_sides, new_sockets, new_threads
from replay.linger.kernel import layout as L
from replay.linger.stream import LingerStream, load_kernel

__all__ = ("Closings", "Engine", "Take", "Told", "close_records", "run_engine")

_SMALL = 300_000
"""Events of vsock below which the kernel runs uncompiled: compiling takes longer than they do."""
_OUT = 4096


Take = Callable[[Any, int], None]
"""Takes records, (n, R_COLS), and the time up to which the trace was read."""


@dataclass(frozen=True, kw_only=True)
class Closings:
    """What the kernel told.  ``records``: (n, R_COLS)."""

    records: Any
    last_ns: int


def close_records(
    batches: Iterable[pa.RecordBatch],
    *,
    events: Mapping[str, int],
    recorded: Iterable[str] = (),
    compiled: bool | None = None,
) -> Closings:
    """Run a whole trace through the socket engine and keep everything that it tells."""
    records = [np.zeros((0, L.R_COLS), np.int64)]
    told = run_engine(
        batches,
        lambda some, _: records.append(some),
        events=events,
        recorded=recorded,
        compiled=compiled,
    )
    return Closings(records=np.concatenate(records), last_ns=told.last_ns)


@dataclass(frozen=True, kw_only=True)
class Told:
    """What is known when all was read.

    ``credit_sides``: sides of connections whose credit was seen.  ``eprobe_wrong``: values of
    SO_LINGER that a better probe contradicted.
    """

    last_ns: int
    credit_sides: int
    eprobe_wrong: int


def run_engine(
    batches: Iterable[pa.RecordBatch],
    take: Take,
    *,
    events: Mapping[str, int],
    recorded: Iterable[str] = (),
    compiled: bool | None = None,
) -> Told:
    """Run a whole trace through the socket engine; ``take`` gets its records, some at a time.

    ``events``: rows by event type.  ``recorded``: event types that were recorded, happened or not.
    Memory grows with the sockets that are open or closed in the last minute, not with the trace.
    """
    if compiled is None:
        compiled = sum(n for e, n in events.items() if e.startswith("vsock.")) > _SMALL
    known = {*recorded, *(e for e, n in events.items() if n)}
    engine = Engine(events, known, take, compiled=compiled)
    for record_batch in batches:
        engine.feed(record_batch)
    return engine.finish()


class Engine:
    """The kernel, its tables and the stream that numbers what is in them."""

    def __init__(
        self, events: Mapping[str, int], recorded: set[str], take: Take, *, compiled: bool
    ) -> None:
        self._kernel: Any = load_kernel(compiled=compiled)
        self.stream = LingerStream()
        self._take = take
        g = np.zeros(L.G_COLS, np.int64)
        g[L.G_LOST_UNTIL] = g[L.G_STRAY] = L.NULL
        g[L.G_FREE_OBJS] = -1
        for column, name in (
            (L.G_HAS_SENT, "vsock.sent"),
            (L.G_HAS_DONE, "vsock.done"),
            (L.G_HAS_PACKETS, "vsock.packet_allocated"),
            (L.G_HAS_TRANSPORT, "vsock.transport_release"),
            (L.G_HAS_LINGER, "vsock.linger"),
        ):
            g[column] = name in recorded
        g[L.G_HAS_RELEASE] = bool(
            recorded & {"vsock.release", "vsock.transport_release", "vsock.linger"}
        )
        g[L.G_HAS_CREDIT] = events.get("vsock.credit", 0) > 0
        self._k = L.Tables(
            g=g,
            T=np.zeros((0, L.T_COLS), np.int64),
            Q=np.zeros((0, L.R_COLS), np.int64),
            K=np.zeros((0, L.K_COLS), np.int64),
            S=np.zeros((0, L.S_COLS), np.int64),
            E=np.zeros((0, L.R_COLS), np.int64),
            O=np.zeros((0, L.O_COLS), np.int64),
            F=np.zeros(0, np.int64),
            P=np.zeros(0, np.int64),
            out=np.zeros((_OUT, L.R_COLS), np.int64),
        )

    def feed(self, record_batch: pa.RecordBatch) -> None:
        """Take one batch of the trace."""
        rows = self.stream.batch(record_batch)
        if not rows.shape[1]:
            return
        self._grow(rows.shape[1])
        at, end = 0, rows.shape[1]
        while at < end:
            at = self._kernel.run(self._k, rows, at, end)
            self._drain()
        self._k.g[L.G_LAST_TS] = self.stream.last_ts
        Forgetting(self._kernel, self._k, self.stream, self._drain).forget()

    def finish(self) -> Told:
        """The trace is over: tell what is still open."""
        self._k.g[L.G_LAST_TS] = self.stream.last_ts
        self._grow(0)
        at = 0
        while True:
            at = self._kernel.finish(self._k, at)
            self._drain()
            if at >= len(self._k.S):
                break
        g = self._k.g
        return Told(
            last_ns=self.stream.last_ts,
            credit_sides=int(g[L.G_SIDES_CREDIT]),
            eprobe_wrong=int(g[L.G_EPROBE_WRONG]),
        )

    def _grow(self, rows: int) -> None:
        """Make room for all that the coming rows can name, and note the names of what is new."""
        k, stream = self._k, self.stream
        threads, sockets = len(stream.threads.names), len(stream.sockets.names)
        sides, descriptors = len(stream.sides.names), len(stream.descriptors.names)
        if threads > len(k.T):
            size = max(2 * len(k.T), threads, 64)
            k = k._replace(
                T=_more(k.T, size, new_threads), Q=_more(k.Q, size, lambda n: _nulls(n, L.R_COLS))
            )
        if sockets > len(k.K):
            k = k._replace(K=_more(k.K, max(2 * len(k.K), sockets, 64), new_sockets))
        if sides > len(k.S):
            size = max(2 * len(k.S), sides, 64)
            k = k._replace(
                S=_more(k.S, size, new_sides), E=_more(k.E, size, lambda n: _nulls(n, L.R_COLS))
            )
        objects = int(k.g[L.G_OBJS]) + rows
        if objects > len(k.O):
            k = k._replace(O=_more(k.O, max(2 * len(k.O), objects), lambda n: _nulls(n, L.O_COLS)))
        if descriptors > len(k.F):
            size = max(2 * len(k.F), descriptors, 64)
            k = k._replace(F=_more(k.F, size, _unset), P=_more(k.P, size, _unset))
        self._k = k
        stream.sockets.taken()
        for number in stream.threads.taken():
            k.T[number, L.T_TID] = stream.threads.names[number]
        numbers, pids = stream.processes
        known = pids != L.NULL
        k.T[numbers[known], L.T_PID] = pids[known]
        for number in stream.descriptors.taken():
            k.P[number] = stream.inherited.pop(number)
        fresh = stream.sides.taken()
        if fresh:
            ends = np.array([stream.ends.pop(n) for n in fresh], object)
            cid, port, peer, loop = ends.T
            k.S[fresh, L.S_LCID], k.S[fresh, L.S_LPORT] = cid, port
            k.S[fresh, L.S_RCID], k.S[fresh, L.S_RPORT] = peer >> 32, peer & 0xFFFFFFFF
            k.S[fresh, L.S_LOOP] = loop

    def _drain(self) -> None:
        n = int(self._k.g[L.G_OUT])
        if n:
            self._k.g[L.G_OUT] = 0
            self._take(self._k.out[:n].copy(), self.stream.last_ts)


def _nulls(rows: int, columns: int) -> Any:
    return np.full((rows, columns), L.NULL, np.int64)


def _unset(rows: int) -> Any:
    return np.full(rows, -1, np.int64)


def _more(array: Any, rows: int, new: Callable[[int], Any]) -> Any:
    """A larger copy."""
    return np.concatenate([array, new(rows - len(array))])
