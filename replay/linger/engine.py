"""Feeds a trace to the socket kernel and collects what it tells."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from replay.engine.kept import Kept, State
from replay.linger.closing import check_records
from replay.linger.forgetting import (
    NEW_DESCRIPTOR,
    NEW_SIDE,
    NEW_SOCKET,
    NEW_THREAD,
    Forgetting,
)
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
        self.stream = LingerStream(self._kernel)
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
            F=np.zeros((0, L.F_COLS), np.int64),
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
        threads, sides = stream.threads.given, stream.sides.given
        descriptors = stream.descriptors.given
        return {
            "g": k.g.copy(),
            "T": k.T[:threads].copy(),
            "Q": k.Q[:threads].copy(),
            "K": k.K[: stream.sockets.given].copy(),
            "S": k.S[:sides].copy(),
            "E": k.E[:sides].copy(),
            "O": k.O[: int(k.g[L.G_OBJS])].copy(),
            "F": k.F[:descriptors].copy(),
            "stream": stream.kept_state(),
        }

    def restore(self, kept: Kept) -> None:
        """Go on from a state that another engine was in, before the first batch.

        What it was told to be recorded stays as this engine was told.

        :raises TraceFormatError: no state of this engine
        """
        self.stream.restore(kept.part("stream"))
        stream, own = self.stream, self._k.g
        threads, sockets = stream.threads.given, stream.sockets.given
        sides, descriptors = stream.sides.given, stream.descriptors.given
        g = kept.array("g", L.G_COLS)
        g[_TOLD] = own[_TOLD]
        kept.check(0 <= g[L.G_OBJS] <= 1 << 32 and g[L.G_OUT] == 0, "g")
        objects = int(g[L.G_OBJS])
        T, Q = kept.array("T", threads, L.T_COLS), kept.array("Q", threads, L.R_COLS)
        K = kept.array("K", sockets, L.K_COLS)
        S, E = kept.array("S", sides, L.S_COLS), kept.array("E", sides, L.R_COLS)
        O = kept.array("O", objects, L.O_COLS)  # noqa: E741
        F = kept.array("F", descriptors, L.F_COLS)
        for column, end in (
            (L.T_TRANS, sides), (L.T_CLOSED, sides), (L.T_LAST_A, sides),
            (L.T_LAST_B, sides), (L.T_PEND_SK, sockets),
        ):  # fmt: skip
            kept.indices("T", T[:, column], end, first=-1)
        kept.check((Q[:, L.R_SK] < sockets).all(), "Q")
        check_records(kept, "Q", Q[T[:, L.T_OPEN] != 0])
        check_records(kept, "E", E[S[:, L.S_CLOSED] != 0])
        kept.indices("K", K[:, L.K_SIDE], sides, first=-1)
        for column, end in ((L.S_SK, sockets), (L.S_OBJ, objects), (L.S_QTHREAD, threads)):
            kept.indices("S", S[:, column], end, first=-1)
        live = O[:, L.O_CREATED] != L.NULL
        kept.indices("O", O[live, L.O_SIDE], sides, first=-1)
        kept.check((T[:, L.T_IN_FD] < descriptors).all(), "T")
        kept.indices("F", F[:, L.F_OBJ], objects, first=-2)
        kept.indices("F", F[:, L.F_PARENT], descriptors, first=-1)
        kept.indices("F", F[:, L.F_LEFT], objects, first=-1)
        kept.indices("O", O[live, L.O_OLDER], objects, first=-1)
        named = np.concatenate([F[:, L.F_OBJ], F[:, L.F_LEFT], O[live, L.O_OLDER]])
        times = np.bincount(named[named >= 0], minlength=objects)
        kept.check((times == np.where(live, O[:, L.O_REFS], 0)).all(), "O")
        # Each that is free is the next one of another, or the first.
        free = np.append(O[~live, L.O_SIDE], g[L.G_FREE_OBJS])
        kept.check(np.array_equal(np.sort(free), [-1, *np.flatnonzero(~live)]), "O")
        self._k = self._k._replace(g=g, T=T, Q=Q, K=K, S=S, E=E, O=O, F=F)

    def _grow(self, rows: int) -> None:
        """Make room for all that the coming rows can name, and begin what is new."""
        k, stream = self._k, self.stream
        k = k._replace(
            T=_longer(k.T, stream.threads.given),
            Q=_longer(k.Q, stream.threads.given),
            K=_longer(k.K, stream.sockets.given),
            S=_longer(k.S, stream.sides.given),
            E=_longer(k.E, stream.sides.given),
            O=_longer(k.O, int(k.g[L.G_OBJS]) + rows),
            F=_longer(k.F, stream.descriptors.given),
        )
        self._k = k
        new = stream.taken()
        (threads,) = new["threads"]
        k.T[threads], k.Q[threads] = NEW_THREAD, L.NULL
        k.T[threads, L.T_TID] = stream.threads.names[threads, 0]
        numbers, pids = stream.processes
        known = pids != L.NULL
        k.T[numbers[known], L.T_PID] = pids[known]
        k.K[new["sockets"][0]] = NEW_SOCKET
        sides, *ends = new["sides"]
        k.S[sides] = NEW_SIDE
        for column, values in zip(_ENDS, ends, strict=True):
            k.S[sides, column] = values
        descriptors, parents = new["descriptors"]
        k.F[descriptors] = NEW_DESCRIPTOR
        k.F[descriptors, L.F_PARENT] = parents

    def _drain(self) -> None:
        n = int(self._k.g[L.G_OUT])
        if n:
            self._k.g[L.G_OUT] = 0
            self._take(self._k.out[:n].copy(), self.stream.last_ts)


_TOLD = [
    L.G_HAS_SENT, L.G_HAS_DONE, L.G_HAS_PACKETS, L.G_HAS_TRANSPORT, L.G_HAS_LINGER,
    L.G_HAS_RELEASE, L.G_HAS_CREDIT,
]  # fmt: skip


_ENDS = (L.S_LCID, L.S_LPORT, L.S_RCID, L.S_RPORT, L.S_LOOP)


def _longer(array: Any, rows: int) -> Any:
    """The array, or a larger copy if it has fewer rows.  Of what is unused no memory is touched."""
    if rows <= len(array):
        return array
    longer = np.zeros((max(2 * len(array), rows, 64), *array.shape[1:]), np.int64)
    longer[: len(array)] = array
    return longer
