"""What may be forgotten of a long trace, so that memory does not grow with it.

Nothing that is forgotten can become a finding later: at worst a socket that comes back after a
minute of silence is one whose beginning nobody saw.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from replay.linger.kernel import layout as L
from replay.linger.numbers import Numbers
from replay.linger.stream import LingerStream

__all__ = ("Forgetting", "new_sides", "new_sockets", "new_threads")

OVER_NS = 60_000_000_000
"""How long after its last event a thing may be forgotten."""
MOST = 1 << 18
"""Of more than this many things of one kind those longest unseen go, whatever they are."""


class Forgetting:
    """Looks through the engine's tables once one of them is full."""

    def __init__(
        self, kernel: Any, tables: L.Tables, stream: LingerStream, drain: Callable[[], None]
    ) -> None:
        self._kernel, self._k, self._stream, self._drain = kernel, tables, stream, drain
        self._before = stream.last_ts - OVER_NS

    def forget(self) -> None:
        """Forget what is long over."""
        stream = self._stream
        if stream.sides.full():
            self._sides()
        if stream.sockets.full():
            self._sockets()
        if stream.descriptors.full():
            self._descriptors()
        if stream.threads.full():
            self._threads()

    def _sides(self) -> None:
        """Connections that are over; their closes are told."""
        k, sides = self._k, self._stream.sides
        S = k.S
        old = sides.not_since(self._before)
        over = (S[old, L.S_CLOSED] == 1) | (S[old, L.S_EST] != 1) | (S[old, L.S_MAYBE] != L.NULL)
        gone = _most(sides, old[over & (S[old, L.S_QTHREAD] < 0)], S[:, L.S_QTHREAD] < 0)
        for s in gone[S[gone, L.S_CLOSED] == 1].tolist():
            self._kernel.tell(k, s)
            if k.g[L.G_OUT] + 4 > len(k.out):
                self._drain()
        self._drain()
        k.K[np.isin(k.K[:, L.K_SIDE], gone), L.K_SIDE] = -1
        k.O[np.isin(k.O[:, L.O_SIDE], gone) & (k.O[:, L.O_CREATED] != L.NULL), L.O_SIDE] = -1
        for column in (L.T_TRANS, L.T_CLOSED, L.T_LAST_A, L.T_LAST_B):
            k.T[np.isin(k.T[:, column], gone), column] = -1
        k.S[gone] = new_sides(len(gone))
        sides.forget(gone)

    def _sockets(self) -> None:
        """Kernel sockets of no connection and without a byte: their rows say nothing."""
        k, sockets = self._k, self._stream.sockets
        old = sockets.not_since(self._before)
        empty = (k.K[old, L.K_SIDE] < 0) & (k.K[old, L.K_BYTES] == 0) & (k.K[old, L.K_DIRTY] == 0)
        gone = _most(sockets, old[empty], k.K[:, L.K_SIDE] < 0)
        if (k.K[gone, L.K_BYTES] != 0).any():
            k.g[L.G_BYTES_FORGOTTEN] = 1
        k.T[np.isin(k.T[:, L.T_PEND_SK], gone), L.T_PEND_SK] = -1
        k.K[gone] = new_sockets(len(gone))
        sockets.forget(gone)

    def _descriptors(self) -> None:
        """Descriptors that name nothing, and those of processes that are no more."""
        k, stream = self._k, self._stream
        old = stream.descriptors.not_since(self._before)
        names = [stream.descriptors.names[n] or 0 for n in old.tolist()]
        threads = [stream.threads.of.get(name >> 31, -1) for name in names]
        alive = np.array([t >= 0 and k.T[t, L.T_EXIT] == L.NULL for t in threads], bool)
        unnamed = (k.F[old] < 0) & (k.P[old] < 0)
        gone = _most(stream.descriptors, old[~alive | unnamed], np.ones(len(k.F), bool))
        for number in gone[k.F[gone] >= 0].tolist():
            self._kernel.let_go(k, number)
        k.F[gone] = k.P[gone] = -1
        k.P[np.isin(k.P, gone)] = -1
        k.T[np.isin(k.T[:, L.T_IN_FD], gone), L.T_IN_FD] = -1
        stream.descriptors.forget(gone)

    def _threads(self) -> None:
        """Threads outside any call, without a signal that waits for them."""
        k, stream = self._k, self._stream
        T = k.T
        old = stream.threads.not_since(self._before)
        quiet = (T[old, L.T_OPEN] == 0) & ((T[old, L.T_IN] == 0) | (T[old, L.T_EXIT] != L.NULL))
        quiet &= (T[old, L.T_SIGNAL] == L.NULL) | (T[old, L.T_EXIT] != L.NULL)
        gone = _most(stream.threads, old[quiet], T[:, L.T_OPEN] == 0)
        if ((T[gone, L.T_SIGNAL] != L.NULL) & (T[gone, L.T_EXIT] == L.NULL)).any():
            k.g[L.G_SIGNALS_FORGOTTEN] = 1
        for number in gone.tolist():
            stream.parents.pop(stream.threads.names[number] or 0, None)
        k.T[gone] = new_threads(len(gone))
        stream.threads.forget(gone)


def _most(kind: Numbers, gone: Any, may: Any) -> Any:
    """These; where too many would be left, those longest unseen of what ``may`` go as well."""
    left = len(kind) - len(gone)
    if left <= MOST:
        return gone
    others = kind.not_since(1 << 62)
    others = others[may[others] & ~np.isin(others, gone)]
    return np.concatenate([gone, others[: left - MOST // 2]])


def new_threads(rows: int) -> Any:
    """Threads of which nothing is known."""
    made = np.zeros((rows, L.T_COLS), np.int64)
    for c in (L.T_PEND_SK, L.T_CLOSED, L.T_TRANS, L.T_IN_FD, L.T_LAST_A, L.T_LAST_B):
        made[:, c] = -1
    for c in (L.T_EXIT, L.T_SIGNAL, L.T_BORN, L.T_PID, L.T_CREDIT_TS, L.T_CREDIT_GOT):
        made[:, c] = L.NULL
    return made


def new_sockets(rows: int) -> Any:
    """Kernel sockets that no connection is known of."""
    made = np.zeros((rows, L.K_COLS), np.int64)
    made[:, L.K_SIDE] = -1
    return made


def new_sides(rows: int) -> Any:
    """Sides of connections whose beginning nobody saw."""
    made = np.zeros((rows, L.S_COLS), np.int64)
    for c in (
        L.S_LPORT, L.S_START, L.S_START_SEQ, L.S_TYPE, L.S_EST, L.S_RW_TS, L.S_RW_SEQ, L.S_PSHUT_TS,
        L.S_DONE, L.S_MAYBE, L.S_PBUF, L.S_PFWD, L.S_RECV_TS, L.S_SENT_TS,
    ):  # fmt: skip
        made[:, c] = L.NULL
    for c in (L.S_SK, L.S_OBJ, L.S_QTHREAD):
        made[:, c] = -1
    return made
