"""What is known of a socket at one moment, and what is told of its end."""

from __future__ import annotations

from typing import Any

from tracekit.compiled.kernels import inlined

from . import layout as L

__all__ = (
    "begin",
    "bind",
    "copy",
    "emit",
    "end_life",
    "facts",
    "finish_bracket",
    "new_life",
    "unsent",
    "unsent_why",
)

EXITS_NS = 10_000_000_000
"""A process whose exit was lost so long ago has closed its sockets."""


@inlined
def unsent_why(k: Any, s: int) -> int:
    """Why the unsent bytes of a side are not known; KNOWN if they are."""
    g, S = k.g, k.S
    if s < 0:
        return L.Y_LATE
    if S[s, L.S_AMBIGUOUS]:
        return L.Y_SAME_ADDRESS
    if S[s, L.S_START] == L.NULL:
        return L.Y_LATE
    if S[s, L.S_START] <= g[L.G_LOST_UNTIL]:
        return L.Y_LOSS
    if not g[L.G_HAS_PACKETS]:
        return L.Y_ONE_SIDED
    if g[L.G_HAS_SENT]:
        if S[s, L.S_CBAD] or (g[L.G_BYTES_FORGOTTEN] and not S[s, L.S_LOOP]):
            return L.Y_LATE
        if not S[s, L.S_LOOP] and S[s, L.S_SK] < 0:
            return L.Y_ONE_SIDED
        return L.KNOWN
    return L.KNOWN if S[s, L.S_LOOP] else L.Y_ONE_SIDED


@inlined
def unsent(k: Any, s: int) -> int:
    """Bytes taken from the application and not handed over; they are known."""
    handed = k.S[s, L.S_C] if k.g[L.G_HAS_SENT] else k.S[s, L.S_R]
    return int(k.S[s, L.S_A] - handed)


@inlined
def emit(k: Any, row: Any) -> None:
    """Tell a record."""
    n = k.g[L.G_OUT]
    copy(k.out[n], row)
    k.g[L.G_OUT] = n + 1


@inlined
def copy(to: Any, row: Any) -> None:
    """An assignment of a slice would need reference counts."""
    for c in range(L.R_COLS):
        to[c] = row[c]


@inlined
def new_life(k: Any, s: int, ts: int, seq: int, kind: int) -> None:
    """A connection begins between these addresses; what was there before is over."""
    S = k.S
    if S[s, L.S_CLOSED]:
        end_life(k, s, ts)
    elif S[s, L.S_START] > k.g[L.G_LOST_UNTIL] and S[s, L.S_EST] == 1 and S[s, L.S_DONE] == L.NULL:
        # Two at once: their network namespaces differ.
        S[s, L.S_AMBIGUOUS] = 1 if k.g[L.G_HAS_TRANSPORT] else 0
    for c in (L.S_A, L.S_C, L.S_R, L.S_LSHUT, L.S_PSHUT, L.S_CLOSED, L.S_CBAD, L.S_RESET):
        S[s, c] = 0
    for c in (
        L.S_RW_TS, L.S_RW_SEQ, L.S_PSHUT_TS, L.S_DONE, L.S_MAYBE, L.S_PBUF, L.S_PFWD, L.S_RECV_TS,
        L.S_SENT_TS,
    ):  # fmt: skip
        S[s, c] = L.NULL
    if S[s, L.S_OBJ] >= 0:
        k.O[S[s, L.S_OBJ], L.O_SIDE] = -1
    S[s, L.S_SK] = S[s, L.S_OBJ] = S[s, L.S_QTHREAD] = -1
    S[s, L.S_START], S[s, L.S_START_SEQ], S[s, L.S_TYPE], S[s, L.S_EST] = ts, seq, kind, 0


@inlined
def bind(k: Any, sk: int, s: int) -> None:
    """A kernel socket is that of a side, as a probe tells; what it has sent is the side's."""
    K, S = k.K, k.S
    if S[s, L.S_SK] >= 0 and S[s, L.S_SK] != sk and not S[s, L.S_CLOSED]:
        S[s, L.S_AMBIGUOUS] = 1
    elif K[sk, L.K_SIDE] != s:
        S[s, L.S_CBAD] = int(K[sk, L.K_SIDE] >= 0 or K[sk, L.K_DIRTY] != 0)
        S[s, L.S_C] = K[sk, L.K_BYTES]
        K[sk, L.K_SIDE], K[sk, L.K_BYTES], K[sk, L.K_DIRTY] = s, 0, 0
        S[s, L.S_SK] = sk


@inlined
def end_life(k: Any, s: int, ts: int) -> None:
    """Tell the close of a side, with all that came after it."""
    S, E, g = k.S, k.E, k.g
    row = E[s]
    row[L.R_END] = ts
    if g[L.G_LOST_UNTIL] >= row[L.R_T1]:
        row[L.R_LOST_AFTER] = 1
    row[L.R_UEND] = unsent(k, s) if unsent_why(k, s) == L.KNOWN else L.NULL
    emit(k, row)
    S[s, L.S_CLOSED] = 0


@inlined
def linger_of(k: Any, s: int, o: int, row: Any) -> None:
    """SO_LINGER as the socket's setsockopt() calls left it."""
    g, O = k.g, k.O  # noqa: E741
    mine = k.S[s, L.S_OBJ] if s >= 0 else -1
    row[L.R_ON], row[L.R_ON_WHY] = L.NULL, L.Y_LATE
    if mine >= 0 and o >= 0 and mine != o:
        row[L.R_ON_WHY] = L.Y_CONTRADICTION
        return
    if mine < 0:
        mine = o
    if mine < 0:
        return
    if O[mine, L.O_CREATED] == L.NULL:
        return
    if O[mine, L.O_CREATED] <= g[L.G_LOST_UNTIL]:
        row[L.R_ON_WHY] = L.Y_LOSS
        return
    if O[mine, L.O_CREATED] < g[L.G_STRAY] and not O[mine, L.O_STRAY]:
        row[L.R_ON_WHY] = L.Y_CONTRADICTION
        return
    row[L.R_ON] = O[mine, L.O_ON]
    row[L.R_SECS] = O[mine, L.O_SECS]
    row[L.R_ON_WHY] = L.KNOWN if O[mine, L.O_ON] != L.NULL else L.Y_ARGUMENTS
    row[L.R_OPT_TS], row[L.R_OPT_SEQ] = O[mine, L.O_OPT_TS], O[mine, L.O_OPT_SEQ]


@inlined
def begin(k: Any, t: int, kind: int, level: int, ts: int, seq: int) -> None:
    """Open a record on a thread."""
    row = k.Q[t]
    row[:] = L.NULL
    for c in (
        L.R_LOOP, L.R_EXITING, L.R_SIGNAL, L.R_NSHUT, L.R_SHUTFLAGS, L.R_NRST, L.R_LOST, L.R_RESET,
        L.R_AMBIGUOUS, L.R_LOST_AFTER, L.R_TRANSPORT, L.R_BYTES,
    ):  # fmt: skip
        row[c] = 0
    row[L.R_KIND], row[L.R_LEVEL], row[L.R_T0], row[L.R_SEQ0] = kind, level, ts, seq
    row[L.R_TID], row[L.R_PID], row[L.R_SK] = k.T[t, L.T_TID], k.T[t, L.T_PID], -1
    row[L.R_ON_WHY] = row[L.R_U_WHY] = L.Y_LATE
    lost = k.g[L.G_LOST_UNTIL]
    if k.T[t, L.T_EXIT] != L.NULL:
        row[L.R_EXITING] = 1
    elif lost != L.NULL and k.T[t, L.T_IN_TS] <= lost and ts - lost < EXITS_NS:
        row[L.R_EXITING] = 2  # nobody knows
    if k.T[t, L.T_SIGNAL] != L.NULL or k.g[L.G_SIGNALS_FORGOTTEN]:
        row[L.R_SIGNAL] = 2
    k.T[t, L.T_OPEN], k.T[t, L.T_TRANS] = kind, -1


@inlined
def facts(k: Any, t: int, s: int, o: int) -> None:
    """Fill the open record of a thread with what is known of its socket now.

    ``o``: the socket that the system call's descriptor names, or -1.
    """
    row, S = k.Q[t], k.S
    if row[L.R_LPORT] == L.NULL and s >= 0:
        for to, of in (
            (L.R_LCID, L.S_LCID), (L.R_LPORT, L.S_LPORT), (L.R_RCID, L.S_RCID),
            (L.R_RPORT, L.S_RPORT), (L.R_LOOP, L.S_LOOP), (L.R_START, L.S_START),
            (L.R_START_SEQ, L.S_START_SEQ), (L.R_LSHUT, L.S_LSHUT), (L.R_TYPE, L.S_TYPE),
            (L.R_RW_TS, L.S_RW_TS), (L.R_RW_SEQ, L.S_RW_SEQ), (L.R_AMBIGUOUS, L.S_AMBIGUOUS),
            (L.R_RESET, L.S_RESET),
        ):  # fmt: skip
            row[to] = S[s, of]
        row[L.R_EST] = S[s, L.S_EST]
        row[L.R_PSHUT_SEEN] = S[s, L.S_PSHUT]
        if S[s, L.S_START] == L.NULL or S[s, L.S_START] <= k.g[L.G_LOST_UNTIL]:
            row[L.R_PSHUT_SEEN] = row[L.R_LSHUT] = L.NULL
            if row[L.R_EST] != 1:
                row[L.R_EST] = L.NULL
        row[L.R_DONE] = S[s, L.S_DONE]
        row[L.R_MAYBE] = S[s, L.S_MAYBE]
        row[L.R_U_WHY] = unsent_why(k, s)
        if row[L.R_U_WHY] == L.KNOWN:
            row[L.R_U0] = unsent(k, s)
            if row[L.R_U0] <= 0:
                row[L.R_SENT] = row[L.R_T0]
        row[L.R_BYTES] = S[s, L.S_A]
        S[s, L.S_QTHREAD] = t
        k.T[t, L.T_TRANS] = s
    if o >= 0 and row[L.R_TYPE] == L.NULL and k.O[o, L.O_TYPE] > 0:
        row[L.R_TYPE] = 10 + k.O[o, L.O_TYPE]  # the socket's own numbers
    linger_of(k, s, o, row)


@inlined
def finish_bracket(k: Any, t: int, s: int, ts: int, seq: int) -> None:
    """The open record's bracket ends: tell it, or keep it until the connection is gone."""
    row, S, g, T = k.Q[t], k.S, k.g, k.T
    T[t, L.T_OPEN] = 0
    row[L.R_T1], row[L.R_SEQ1] = ts, seq
    if row[L.R_L0] != L.NULL and row[L.R_L1] == L.NULL:
        row[L.R_L0] = L.NULL
    if g[L.G_LOST_UNTIL] >= row[L.R_T0]:
        row[L.R_LOST] = 1
    if s >= 0 and S[s, L.S_QTHREAD] == t:
        S[s, L.S_QTHREAD] = -1
        why = unsent_why(k, s)
        if why == L.KNOWN:
            row[L.R_U1] = unsent(k, s)
        else:
            row[L.R_U_WHY] = why
        row[L.R_RESET] |= S[s, L.S_RESET]
        row[L.R_AMBIGUOUS] |= S[s, L.S_AMBIGUOUS]
    if row[L.R_KIND] == L.CLOSE and s >= 0:
        if S[s, L.S_CLOSED]:
            end_life(k, s, ts)
        copy(k.E[s], row)
        S[s, L.S_CLOSED] = 1
        S[s, L.S_EST] = 0
        T[t, L.T_CLOSED] = s
        sk = S[s, L.S_SK]
        if sk >= 0:
            if row[L.R_U1] == 0 and not S[s, L.S_LOOP]:
                k.K[sk, L.K_SIDE], k.K[sk, L.K_BYTES] = -1, 0
            elif row[L.R_U1] == L.NULL:
                k.K[sk, L.K_DIRTY] = 1
    else:
        emit(k, row)
