"""Feeds a trace to the socket kernel and collects what it tells."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from replay.engine.kept import Kept, State
from replay.linger.forgetting import Forgetting, new_sides, new_sockets, new_threads
from replay.linger.kernel import layout as L
from replay.linger.stream import LingerStream, load_kernel

__all__ = (
    "Closings",
    "Engine",
    "Take",
    "Told",
    "close_records",
    "engine_for",
    "is_large",
    "run_engine",
)

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
    engine = engine_for(take, events=events, recorded=recorded, compiled=compiled)
    for record_batch in batches:
        engine.feed(record_batch)
    return engine.finish()


def engine_for(
    take: Take,
    *,
    events: Mapping[str, int],
    recorded: Iterable[str] = (),
    compiled: bool | None = None,
) -> Engine:
    """The engine of :func:`run_engine`, to be fed."""
    if compiled is None:
        compiled = is_large(events)
    known = {*recorded, *(e for e, n in events.items() if n)}
    return Engine(events, known, take, compiled=compiled)


def is_large(events: Mapping[str, int]) -> bool:
    """Whether a trace with so many events is done sooner by the compiled kernel."""
    return sum(n for e, n in events.items() if e.startswith("vsock.")) > _SMALL


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

    def kept_state(self) -> State:
        """All that the engine knows so far, as copies; before :meth:`finish`."""
        k, stream = self._k, self.stream
        threads, sides = len(stream.threads.names), len(stream.sides.names)
        descriptors = len(stream.descriptors.names)
        return {
            "g": k.g.copy(),
            "T": k.T[:threads].copy(),
            "Q": k.Q[:threads].copy(),
            "K": k.K[: len(stream.sockets.names)].copy(),
            "S": k.S[:sides].copy(),
            "E": k.E[:sides].copy(),
            "O": k.O[: int(k.g[L.G_OBJS])].copy(),
            "F": k.F[:descriptors].copy(),
            "P": k.P[:descriptors].copy(),
            "stream": stream.kept_state(),
        }

    def restore(self, kept: Kept) -> None:
        """Go on from a state that another engine was in, before the first batch.

        What it was told to be recorded stays as this engine was told.

        :raises TraceFormatError: no state of this engine
        """
        self.stream.restore(kept.part("stream"))
        stream, own = self.stream, self._k.g
        threads, sockets = len(stream.threads.names), len(stream.sockets.names)
        sides, descriptors = len(stream.sides.names), len(stream.descriptors.names)
        g = kept.array("g", L.G_COLS)
        g[_TOLD] = own[_TOLD]
        kept.check(0 <= g[L.G_OBJS] <= 1 << 32 and g[L.G_OUT] == 0, "g")
        objects = int(g[L.G_OBJS])
        T, Q = kept.array("T", threads, L.T_COLS), kept.array("Q", threads, L.R_COLS)
        K = kept.array("K", sockets, L.K_COLS)
        S, E = kept.array("S", sides, L.S_COLS), kept.array("E", sides, L.R_COLS)
        O, F = kept.array("O", objects, L.O_COLS), kept.array("F", descriptors)  # noqa: E741
        P = kept.array("P", descriptors)
        for column, end in (
            (L.T_TRANS, sides), (L.T_CLOSED, sides), (L.T_LAST_A, sides),
            (L.T_LAST_B, sides), (L.T_PEND_SK, sockets),
        ):  # fmt: skip
            kept.indices("T", T[:, column], end, first=-1)
        kept.check((Q[:, L.R_SK] < sockets).all(), "Q")
        kept.indices("K", K[:, L.K_SIDE], sides, first=-1)
        for column, end in ((L.S_SK, sockets), (L.S_OBJ, objects), (L.S_QTHREAD, threads)):
            kept.indices("S", S[:, column], end, first=-1)
        live = O[:, L.O_CREATED] != L.NULL
        kept.indices("O", O[live, L.O_SIDE], sides, first=-1)
        kept.check((T[:, L.T_IN_FD] < descriptors).all(), "T")
        kept.indices("F", F, objects, first=-2)
        kept.indices("P", P, descriptors, first=-1)
        kept.indices("O", O[~live, L.O_SIDE], objects, first=-1)  # the next free one
        kept.indices("g", g[[L.G_FREE_OBJS]], objects, first=-1)
        self._k = self._k._replace(g=g, T=T, Q=Q, K=K, S=S, E=E, O=O, F=F, P=P)

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


_TOLD = [
    L.G_HAS_SENT, L.G_HAS_DONE, L.G_HAS_PACKETS, L.G_HAS_TRANSPORT, L.G_HAS_LINGER,
    L.G_HAS_RELEASE, L.G_HAS_CREDIT,
]  # fmt: skip


def _nulls(rows: int, columns: int) -> Any:
    return np.full((rows, columns), L.NULL, np.int64)


def _unset(rows: int) -> Any:
    return np.full(rows, -1, np.int64)


def _more(array: Any, rows: int, new: Callable[[int], Any]) -> Any:
    """A larger copy."""
    return np.concatenate([array, new(rows - len(array))])
