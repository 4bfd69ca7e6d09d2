"""Feeds a trace to the socket kernel and collects what it tells."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from replay.linger.kernel import layout as L
from replay.linger.stream import LingerStream, load_kernel

__all__ = ("Closings", "close_records")

_SMALL = 300_000
"""Events of vsock below which the kernel runs uncompiled: compiling takes longer than they do."""
_OUT = 4096
_KEPT_SIDES = 1 << 16
"""Sides of connections that are held before those that are long over are told and forgotten."""
_OVER_NS = 60_000_000_000


@dataclass(frozen=True, kw_only=True)
class Closings:
    """What the kernel told.  ``records``: (n, R_COLS).

    ``credit_sides``: sides of connections whose credit was seen.
    """

    records: Any
    last_ns: int
    credit_sides: int
    pids: Mapping[int, int]


def close_records(
    batches: Iterable[pa.RecordBatch],
    *,
    events: Mapping[str, int],
    recorded: Iterable[str] = (),
    compiled: bool | None = None,
    progress: Callable[[int], None] | None = None,
) -> Closings:
    """Run a whole trace through the socket engine.

    ``events``: rows by event type.  ``recorded``: event types that were recorded, happened or not.
    """
    if compiled is None:
        compiled = sum(n for e, n in events.items() if e.startswith("vsock.")) > _SMALL
    engine = _Engine(events, {*recorded, *(e for e, n in events.items() if n)}, compiled=compiled)
    for record_batch in batches:
        engine.feed(record_batch)
        if progress is not None:
            progress(engine.stream.rows)
    return engine.finish()


class _Engine:
    def __init__(self, events: Mapping[str, int], recorded: set[str], *, compiled: bool) -> None:
        self._kernel: Any = load_kernel(compiled=compiled)
        self.stream = LingerStream()
        self.stream.fresh = self._fresh
        self._records: list[Any] = []
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
        rows = self.stream.batch(record_batch)
        if not rows.shape[1]:
            return
        self._grow(rows.shape[1])
        at, end = 0, rows.shape[1]
        while at < end:
            at = self._kernel.run(self._k, rows, at, end)
            self._drain()
        if len(self.stream.sides.of) > _KEPT_SIDES:
            self._forget()

    def finish(self) -> Closings:
        self._k.g[L.G_LAST_TS] = self.stream.last_ts
        self._grow(0)
        at = 0
        while True:
            at = self._kernel.finish(self._k, at)
            self._drain()
            if at >= len(self._k.S):
                break
        none = np.zeros((0, L.R_COLS), np.int64)
        return Closings(
            records=np.concatenate(self._records) if self._records else none,
            last_ns=self.stream.last_ts,
            credit_sides=int(self._k.g[L.G_SIDES_CREDIT]),
            pids=self.stream.pids,
        )

    def _fresh(self, number: int, cid: int, port: int, peer: int, loop: bool) -> None:
        """A side of the coming batch; one not known yet gets a row."""
        k = self._k
        if number >= len(k.S):
            size = max(2 * len(k.S), number + 1, 64)
            k = self._k = k._replace(
                S=_more(k.S, size, _new_side), E=_more(k.E, size, lambda n: _nulls(n, L.R_COLS))
            )
        row = k.S[number]
        if row[L.S_LPORT] == L.NULL:
            row[L.S_LPORT], row[L.S_LCID] = port, cid
            row[L.S_RPORT], row[L.S_RCID] = peer & 0xFFFFFFFF, peer >> 32 & 0xFFFFFFFF
            row[L.S_LOOP] = loop

    def _grow(self, rows: int) -> None:
        """Make room for all that the coming rows can name."""
        k, stream = self._k, self.stream
        threads, sockets = len(stream.threads.names), len(stream.sockets.names)
        if threads > len(k.T):
            size = max(2 * len(k.T), threads, 64)
            k = k._replace(
                T=_more(k.T, size, _new_thread), Q=_more(k.Q, size, lambda n: _nulls(n, L.R_COLS))
            )
        k.T[:threads, L.T_TID] = stream.threads.names
        if sockets > len(k.K):
            k = k._replace(K=_more(k.K, max(2 * len(k.K), sockets, 64), _new_socket))
        objects = int(k.g[L.G_OBJS]) + rows
        if objects > len(k.O):
            k = k._replace(O=_more(k.O, max(2 * len(k.O), objects), lambda n: _nulls(n, L.O_COLS)))
        descriptors = len(stream.descriptors.names)
        if descriptors > len(k.F):
            size = max(2 * len(k.F), descriptors, 64)
            k = k._replace(F=_more(k.F, size, _unset), P=_more(k.P, size, _unset))
        k.P[:descriptors] = stream.inherited
        self._k = k

    def _drain(self) -> None:
        n = int(self._k.g[L.G_OUT])
        if n:
            self._records.append(self._k.out[:n].copy())
            self._k.g[L.G_OUT] = 0

    def _forget(self) -> None:
        """Tell and forget connections that closed long ago, and sockets that went with them."""
        k, stream = self._k, self.stream
        used = np.array(sorted(stream.sides.of.values()), np.int64)
        over = used[
            (k.S[used, L.S_CLOSED] == 1)
            & (k.E[used, L.R_T1] < stream.last_ts - _OVER_NS)
            & (k.S[used, L.S_QTHREAD] < 0)
        ]
        idle = used[(k.S[used, L.S_CLOSED] == 0) & (k.S[used, L.S_EST] == 0)]
        idle = idle[k.S[idle, L.S_START] < stream.last_ts - _OVER_NS]
        idle = idle[k.S[idle, L.S_QTHREAD] < 0]
        k.g[L.G_LAST_TS] = stream.last_ts
        for s in over.tolist():
            self._kernel.tell(k, s)
            if k.g[L.G_OUT] + 4 > len(k.out):
                self._drain()
        self._drain()
        gone = np.concatenate([over, idle])
        k.K[np.isin(k.K[:, L.K_SIDE], gone), L.K_SIDE] = -1
        k.O[np.isin(k.O[:, L.O_SIDE], gone) & (k.O[:, L.O_CREATED] != L.NULL), L.O_SIDE] = -1
        k.S[gone] = _new_side(len(gone))
        for s in gone.tolist():
            stream.cids.pop(s, None)
        stream.sides.forget(gone)


def _nulls(rows: int, columns: int) -> Any:
    return np.full((rows, columns), L.NULL, np.int64)


def _unset(rows: int) -> Any:
    return np.full(rows, -1, np.int64)


def _new_thread(rows: int) -> Any:
    made = np.zeros((rows, L.T_COLS), np.int64)
    for c in (L.T_PEND_SK, L.T_CLOSED, L.T_TRANS, L.T_IN_FD, L.T_LAST_A, L.T_LAST_B):
        made[:, c] = -1
    for c in (L.T_EXIT, L.T_SIGNAL, L.T_BORN, L.T_CREDIT_TS, L.T_CREDIT_GOT):
        made[:, c] = L.NULL
    return made


def _new_socket(rows: int) -> Any:
    made = np.zeros((rows, L.K_COLS), np.int64)
    made[:, L.K_SIDE] = -1
    return made


def _new_side(rows: int) -> Any:
    made = np.zeros((rows, L.S_COLS), np.int64)
    for c in (
        L.S_LPORT, L.S_START, L.S_START_SEQ, L.S_TYPE, L.S_EST, L.S_RW_TS, L.S_RW_SEQ, L.S_PSHUT_TS,
        L.S_DONE, L.S_MAYBE, L.S_PBUF, L.S_PFWD, L.S_RECV_TS, L.S_SENT_TS,
    ):  # fmt: skip
        made[:, c] = L.NULL
    for c in (L.S_SK, L.S_OBJ, L.S_QTHREAD):
        made[:, c] = -1
    return made


def _more(array: Any, rows: int, new: Callable[[int], Any]) -> Any:
    """A larger copy."""
    return np.concatenate([array, new(rows - len(array))])
