"""Packets and bytes: who has sent what, how much of it is handed over, and when it is over."""

from __future__ import annotations

from typing import Any

from tracekit.compiled.kernels import inlined

from . import layout as L
from .facts import bind, facts, new_life, unsent, unsent_why

__all__ = ("allocated", "bytes_sent", "done", "received")

MASK = 0xFFFFFFFF
ANSWERED_NS = 2_000_000_000
"""A packet that a thread makes later than this after one it received is no answer to it."""


@inlined
def at_zero(k: Any, s: int, ts: int, seq: int) -> None:
    """The side's unsent bytes have just changed: note when nothing was left."""
    S = k.S
    if unsent_why(k, s) != L.KNOWN:
        return
    left = unsent(k, s)
    t = S[s, L.S_QTHREAD]
    if t >= 0 and k.T[t, L.T_OPEN]:
        if left <= 0 and k.Q[t, L.R_SENT] == L.NULL:
            k.Q[t, L.R_SENT], k.Q[t, L.R_SENT_SEQ] = ts, seq
        elif left > 0:
            k.Q[t, L.R_SENT] = k.Q[t, L.R_SENT_SEQ] = L.NULL
    if S[s, L.S_CLOSED] and left <= 0 and k.E[s, L.R_SENT] == L.NULL:
        k.E[s, L.R_SENT], k.E[s, L.R_SENT_SEQ] = ts, seq


@inlined
def bytes_sent(k: Any, t: int, sk: int, size: int, ts: int, seq: int) -> None:
    """A packet of a kernel socket was handed over."""
    K, S = k.K, k.S
    k.T[t, L.T_PEND_SK], k.T[t, L.T_PEND_SIZE] = sk, size
    s = K[sk, L.K_SIDE]
    if s < 0:
        K[sk, L.K_BYTES] += size
        return
    S[s, L.S_C] += size
    S[s, L.S_SENT_TS] = ts
    at_zero(k, s, ts, seq)


@inlined
def belongs(k: Any, sk: int, s: int, size: int, ts: int, seq: int) -> None:
    """On loopback a packet is received just after it was handed over: so it shows whose it was."""
    K, S = k.K, k.S
    before = K[sk, L.K_SIDE]
    if before == s:
        return
    if before >= 0:
        S[before, L.S_C] -= size
    K[sk, L.K_SIDE], K[sk, L.K_BYTES] = s, 0
    S[s, L.S_SK] = sk
    S[s, L.S_C] += size
    at_zero(k, s, ts, seq)


@inlined
def done(k: Any, s: int, ts: int, seq: int, sure: bool) -> None:
    """The connection is over, or may be."""
    S = k.S
    if S[s, L.S_MAYBE] == L.NULL:
        S[s, L.S_MAYBE] = ts
    if sure and S[s, L.S_DONE] == L.NULL:
        S[s, L.S_DONE] = ts
    t = S[s, L.S_QTHREAD]
    if t >= 0 and k.T[t, L.T_OPEN]:
        mark_done(k.Q[t], ts, seq, sure)
    if S[s, L.S_CLOSED]:
        mark_done(k.E[s], ts, seq, sure)


@inlined
def mark_done(row: Any, ts: int, seq: int, sure: bool) -> None:
    if row[L.R_MAYBE] == L.NULL:
        row[L.R_MAYBE] = ts
    if sure and row[L.R_DONE] == L.NULL:
        row[L.R_DONE], row[L.R_DONE_SEQ] = ts, seq


@inlined
def broken(k: Any, kind: int, t: int, s: int, ts: int, seq: int, detail: int) -> None:
    """Tell a packet that must not be."""
    row = k.out[k.g[L.G_OUT]]
    row[:] = L.NULL
    S = k.S
    row[L.R_KIND], row[L.R_T0], row[L.R_T1], row[L.R_SEQ0], row[L.R_SEQ1] = kind, ts, ts, seq, seq
    row[L.R_LCID], row[L.R_LPORT] = S[s, L.S_LCID], S[s, L.S_LPORT]
    row[L.R_RCID], row[L.R_RPORT] = S[s, L.S_RCID], S[s, L.S_RPORT]
    row[L.R_TID], row[L.R_PID], row[L.R_DETAIL] = k.T[t, L.T_TID], k.T[t, L.T_PID], detail
    row[L.R_LOST] = 1 if S[s, L.S_START] <= k.g[L.G_LOST_UNTIL] else 0
    row[L.R_AMBIGUOUS] = S[s, L.S_AMBIGUOUS]
    k.g[L.G_OUT] += 1


@inlined
def allocated(k: Any, t: int, called: int, b: Any, i: int) -> None:
    """A packet of one of our sockets is made; ``called``: what the thread's call is made on."""
    g, T, S = k.g, k.T, k.S
    s, op, ts, seq = b[L.B_A, i], b[L.B_CMD, i], b[L.B_TS, i], b[L.B_SEQ, i]
    flags = b[L.B_FLAGS, i]
    if op == L.REQUEST:
        new_life(k, s, ts, seq, b[L.B_ID, i])
        if T[t, L.T_IN] == L.EV_CONNECT and called >= 0:
            link(k, s, called)
    elif op == L.RESPONSE:
        S[s, L.S_EST] = 1
    elif op == L.RW:
        if S[s, L.S_LSHUT] & 2 and S[s, L.S_START] > g[L.G_LOST_UNTIL]:
            broken(k, L.DATA_AFTER, t, s, ts, seq, b[L.B_SIZE, i])
        S[s, L.S_A] += b[L.B_SIZE, i]
        S[s, L.S_RW_TS], S[s, L.S_RW_SEQ] = ts, seq
        S[s, L.S_EST] = 1 if not S[s, L.S_CLOSED] else 0
        if T[t, L.T_IN] == L.EV_SEND and called >= 0 and S[s, L.S_OBJ] < 0:
            link(k, s, called)
        if unsent_why(k, s) == L.KNOWN and unsent(k, s) > 0:
            q = S[s, L.S_QTHREAD]
            if q >= 0 and k.T[q, L.T_OPEN]:
                k.Q[q, L.R_SENT] = k.Q[q, L.R_SENT_SEQ] = L.NULL
        credit(k, t, s, b[L.B_SIZE, i], ts, seq)
    elif op == L.SHUT or op == L.RST:
        if T[t, L.T_OPEN]:
            row = k.Q[t]
            if row[L.R_LPORT] == L.NULL:
                if row[L.R_SK] >= 0 and S[s, L.S_SK] < 0:  # a probe on vsock_shutdown() told it
                    bind(k, row[L.R_SK], s)
                facts(k, t, s, called)
            if row[L.R_LPORT] == S[s, L.S_LPORT] and row[L.R_RPORT] == S[s, L.S_RPORT]:
                if op == L.RST:
                    row[L.R_NRST] += 1
                else:
                    row[L.R_NSHUT] += 1
                    row[L.R_SHUTFLAGS] |= flags
                row[L.R_SHUT_TS], row[L.R_SHUT_SEQ] = ts, seq
        elif op == L.RST:
            # The thread may be the same when 8 s are over, and nothing else came meanwhile.
            soon = ts - T[t, L.T_LAST_TS] < ANSWERED_NS
            answers = soon and T[t, L.T_LAST_B] == s and T[t, L.T_LAST_OP] != 0
            if answers and T[t, L.T_LAST_OP] == L.RST:
                broken(k, L.RST_FOR_RST, t, s, ts, seq, 0)
            elif S[s, L.S_CLOSED] and not answers and k.E[s, L.R_RST_OUT] == L.NULL:
                k.E[s, L.R_RST_OUT], k.E[s, L.R_RST_OUT_SEQ] = ts, seq
                if not g[L.G_HAS_DONE]:
                    done(k, s, ts, seq, True)
        if op == L.SHUT:
            S[s, L.S_LSHUT] |= flags & 3
    T[t, L.T_LAST_OP] = 0


@inlined
def link(k: Any, s: int, o: int) -> None:
    """A side's socket is one that descriptors name."""
    k.S[s, L.S_OBJ] = o
    k.O[o, L.O_SIDE] = s


@inlined
def credit(k: Any, t: int, s: int, size: int, ts: int, seq: int) -> None:
    """Data goes out: does it fit what the peer granted, and what the counters said?"""
    g, T, S = k.g, k.T, k.S
    if not g[L.G_HAS_CREDIT]:
        return
    if T[t, L.T_CREDIT_TS] != L.NULL and T[t, L.T_CREDIT_TS] > g[L.G_LOST_UNTIL]:
        if not S[s, L.S_CREDIT]:
            S[s, L.S_CREDIT] = 1
            g[L.G_SIDES_CREDIT] += 1
        before = S[s, L.S_A] - size
        known = unsent_why(k, s) == L.KNOWN and g[L.G_HAS_SENT]
        quiet = S[s, L.S_SENT_TS] == L.NULL or S[s, L.S_SENT_TS] + 50_000_000 < ts
        count = T[t, L.T_CREDIT_COUNT]
        if known and quiet and count != L.NULL and count != before - S[s, L.S_C]:
            broken(k, L.CREDIT, t, s, ts, seq, 1)
        still = S[s, L.S_RECV_TS] == L.NULL or S[s, L.S_RECV_TS] < T[t, L.T_CREDIT_TS]
        if still and T[t, L.T_CREDIT_BUF] != L.NULL and T[t, L.T_CREDIT_GOT] != L.NULL:
            out = (T[t, L.T_CREDIT_TX] - T[t, L.T_CREDIT_FWD]) & MASK
            if T[t, L.T_CREDIT_GOT] > max(T[t, L.T_CREDIT_BUF] - out, 0):
                broken(k, L.CREDIT, t, s, ts, seq, 2)
        T[t, L.T_CREDIT_COUNT] = T[t, L.T_CREDIT_BUF] = L.NULL
        if T[t, L.T_CREDIT_GOT] != L.NULL:
            T[t, L.T_CREDIT_GOT] -= max(size, 0)
            if T[t, L.T_CREDIT_GOT] < 0:
                broken(k, L.CREDIT, t, s, ts, seq, 3)
                T[t, L.T_CREDIT_GOT] = L.NULL
    whole = S[s, L.S_START] > g[L.G_LOST_UNTIL] and S[s, L.S_PBUF] != L.NULL
    if whole and (S[s, L.S_A] - S[s, L.S_PFWD]) & MASK > S[s, L.S_PBUF]:
        broken(k, L.CREDIT, t, s, ts, seq, 4)


@inlined
def received(k: Any, t: int, b: Any, i: int) -> None:
    """A packet has come to one of our sockets; on loopback it is also one that we made."""
    g, T, S = k.g, k.T, k.S
    a, s, op = b[L.B_A, i], b[L.B_B, i], b[L.B_CMD, i]
    ts, seq, size, flags = b[L.B_TS, i], b[L.B_SEQ, i], b[L.B_SIZE, i], b[L.B_FLAGS, i]
    if a >= 0:
        sk = T[t, L.T_PEND_SK]
        if sk >= 0 and T[t, L.T_PEND_SIZE] == size and not is_answer(b, i):
            belongs(k, sk, a, size, ts, seq)
        S[a, L.S_R] += size
        if size and not g[L.G_HAS_SENT]:
            S[a, L.S_SENT_TS] = ts
            at_zero(k, a, ts, seq)
    T[t, L.T_PEND_SK] = -1
    T[t, L.T_LAST_OP], T[t, L.T_LAST_A], T[t, L.T_LAST_B] = op, a, s
    T[t, L.T_LAST_TS] = ts
    if op == L.REQUEST:
        new_life(k, s, ts, seq, b[L.B_ID, i])
    elif op == L.RESPONSE:
        S[s, L.S_EST] = 1
    elif op == L.RW:
        if a < 0 and S[s, L.S_PSHUT] & 2 and S[s, L.S_START] > g[L.G_LOST_UNTIL]:
            broken(k, L.DATA_AFTER, t, s, ts, seq, -1)
    elif op == L.SHUT:
        S[s, L.S_PSHUT] |= flags & 3
        S[s, L.S_PSHUT_TS] = ts
        if S[s, L.S_PSHUT] == 3:
            done(k, s, ts, seq, False)
    elif op == L.RST:
        if S[s, L.S_CLOSED] and k.E[s, L.R_RST_IN] == L.NULL:
            k.E[s, L.R_RST_IN], k.E[s, L.R_RST_IN_SEQ] = ts, seq
        thrown_away(k, s, b, i)
        done(k, s, ts, seq, not g[L.G_HAS_DONE])
    if not is_answer(b, i):
        S[s, L.S_PBUF], S[s, L.S_PFWD] = b[L.B_ARGSZ, i], b[L.B_COUNT, i]
        S[s, L.S_RECV_TS] = ts


@inlined
def is_answer(b: Any, i: int) -> bool:
    """A packet that no socket sent carries no credit: a reset for what nobody is there for."""
    return bool(b[L.B_CMD, i] == L.RST and b[L.B_ARGSZ, i] <= 0)


@inlined
def thrown_away(k: Any, s: int, b: Any, i: int) -> None:
    """The peer ends the connection: bytes that it had and its application did not read."""
    S = k.S
    if is_answer(b, i) or b[L.B_COUNT, i] == L.NULL or unsent_why(k, s) != L.KNOWN:
        return
    handed = S[s, L.S_C] if k.g[L.G_HAS_SENT] else S[s, L.S_R]
    left = (handed - b[L.B_COUNT, i]) & MASK
    if left == 0 or left > 1 << 31:
        return
    t = S[s, L.S_QTHREAD]
    if t >= 0 and k.T[t, L.T_OPEN]:
        k.Q[t, L.R_DROPPED], k.Q[t, L.R_DROPPED_SEQ] = left, b[L.B_SEQ, i]
    elif S[s, L.S_CLOSED] and k.E[s, L.R_DROPPED] == L.NULL:
        k.E[s, L.R_DROPPED], k.E[s, L.R_DROPPED_SEQ] = left, b[L.B_SEQ, i]
