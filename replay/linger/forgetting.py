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

__all__ = ("NEW_DESCRIPTOR", "NEW_SIDE", "NEW_SOCKET", "NEW_THREAD", "Forgetting")

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
        closed, at = gone[S[gone, L.S_CLOSED] == 1], 0
        while at < len(closed):
            at = self._kernel.tell(k, closed, at)
            self._drain()
        k.K[np.isin(k.K[:, L.K_SIDE], gone), L.K_SIDE] = -1
        O = k.O[: k.g[L.G_OBJS]]  # noqa: E741
        O[np.isin(O[:, L.O_SIDE], gone) & (O[:, L.O_CREATED] != L.NULL), L.O_SIDE] = -1
        for column in (L.T_TRANS, L.T_CLOSED, L.T_LAST_A, L.T_LAST_B):
            k.T[np.isin(k.T[:, column], gone), column] = -1
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
        sockets.forget(gone)

    def _descriptors(self) -> None:
        """Descriptors that name nothing, and those of processes that are no more."""
        k, stream = self._k, self._stream
        old = stream.descriptors.not_since(self._before)
        threads = stream.threads.known(stream.descriptors.names[old, 0] >> 31)
        alive = (threads >= 0) & (k.T[threads, L.T_EXIT] == L.NULL)
        F = k.F
        unnamed = (F[old, L.F_OBJ] < 0) & (F[old, L.F_PARENT] < 0)
        gone = _most(stream.descriptors, old[~alive | unnamed], np.ones(len(F), bool))
        for number in gone[(F[gone, L.F_OBJ] >= 0) | (F[gone, L.F_LEFT] >= 0)].tolist():
            self._kernel.let_go(k, number)
        F[np.isin(F[:, L.F_PARENT], gone), L.F_PARENT] = -1
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
        for name in stream.threads.names[gone, 0].tolist():
            stream.parents.pop(name, None)
        stream.threads.forget(gone)


def _most(kind: Numbers, gone: Any, may: Any) -> Any:
    """These; where too many would be left, those longest unseen of what ``may`` go as well."""
    left = len(kind) - len(gone)
    if left <= MOST:
        return gone
    others = kind.not_since(1 << 62)
    others = others[may[others] & ~np.isin(others, gone)]
    return np.concatenate([gone, others[: left - MOST // 2]])


def _new(columns: int, unnamed: tuple[int, ...], unknown: tuple[int, ...]) -> Any:
    """A row: -1 where it names nothing, NULL where nothing is known, else 0."""
    row = np.zeros(columns, np.int64)
    row[[*unnamed]], row[[*unknown]] = -1, L.NULL
    return row


NEW_THREAD = _new(
    L.T_COLS,
    (L.T_PEND_SK, L.T_CLOSED, L.T_TRANS, L.T_IN_FD, L.T_LAST_A, L.T_LAST_B),
    (L.T_EXIT, L.T_SIGNAL, L.T_BORN, L.T_PID, L.T_CREDIT_TS, L.T_CREDIT_GOT, L.T_FORKED),
)
"""A thread of which nothing is known."""
NEW_DESCRIPTOR = _new(L.F_COLS, (L.F_OBJ, L.F_PARENT, L.F_LEFT), (L.F_SINCE,))
"""A descriptor of which nothing is known."""
NEW_SOCKET = _new(L.K_COLS, (L.K_SIDE,), ())
"""A kernel socket that no connection is known of."""
NEW_SIDE = _new(
    L.S_COLS,
    (L.S_SK, L.S_OBJ, L.S_QTHREAD),
    (L.S_LPORT, L.S_START, L.S_START_SEQ, L.S_TYPE, L.S_EST, L.S_RW_TS, L.S_RW_SEQ, L.S_PSHUT_TS,
     L.S_DONE, L.S_MAYBE, L.S_PBUF, L.S_PFWD, L.S_RECV_TS, L.S_SENT_TS),
)  # fmt: skip
"""A side of a connection whose beginning nobody saw."""
