"""Events in the order of time: whose system call, which socket, where a wait begins and ends."""

from __future__ import annotations

from typing import Any

from tracekit.compiled.kernels import entry, inlined

from . import layout as L
from .descriptors import closed, dropped, let_go, looked_up, made, names
from .facts import begin, bind, emit, end_life, facts, finish_bracket
from .numbering import look_up, place
from .packets import allocated, bytes_sent, done, received

__all__ = ("finish", "let_go", "look_up", "place", "run", "tell")

CLOEXEC_TYPE = 0xF
"""The type of socket()'s second argument without its flags."""


@entry
def run(k: Any, b: Any, at: int, end: int) -> int:
    """Take rows [at, end) of a batch; returns how far it came before ``out`` was full."""
    g = k.g
    for i in range(at, end):
        if g[L.G_OUT] + 4 > k.out.shape[0]:
            return i
        step(k, b, i)
        g[L.G_LAST_TS] = b[L.B_TS, i]
    return end


@entry
def finish(k: Any, at: int) -> int:
    """The trace is over: tell closes that are still kept, side by side from ``at`` on."""
    g, S, T = k.g, k.S, k.T
    if at == 0:
        for t in range(T.shape[0]):
            if T[t, L.T_OPEN] and k.Q[t, L.R_KIND] != L.NULL and k.Q[t, L.R_LPORT] != L.NULL:
                if g[L.G_OUT] + 4 > k.out.shape[0]:
                    break
                row = k.Q[t]
                if row[L.R_LEVEL] == L.CALL and g[L.G_HAS_RELEASE]:
                    continue
                if g[L.G_LOST_UNTIL] >= row[L.R_T0]:
                    row[L.R_LOST] = 1
                emit(k, row)
    for s in range(at, S.shape[0]):
        if g[L.G_OUT] + 4 > k.out.shape[0]:
            return s
        if S[s, L.S_CLOSED]:
            end_life(k, s, g[L.G_LAST_TS])
    return int(S.shape[0])


@entry
def tell(k: Any, sides: Any, at: int) -> int:
    """Tell the closes of sides now, from ``at`` on; returns how far, before ``out`` was full."""
    for i in range(at, sides.shape[0]):
        if k.g[L.G_OUT] + 4 > k.out.shape[0]:
            return i
        end_life(k, sides[i], k.g[L.G_LAST_TS])
    return int(sides.shape[0])


@inlined
def open_call(k: Any, t: int, event: int, b: Any, i: int, argument: int) -> None:
    T = k.T
    T[t, L.T_IN], T[t, L.T_IN_FD] = event, b[L.B_FD, i]
    T[t, L.T_IN_TS], T[t, L.T_IN_SEQ], T[t, L.T_IN_ARG] = b[L.B_TS, i], b[L.B_SEQ, i], argument
    T[t, L.T_CLOSED] = -1
    T[t, L.T_OPEN] = 0
    T[t, L.T_REL] = 0


@inlined
def in_call(k: Any, t: int, event: int) -> bool:
    """The thread is in this system call, and nothing was lost since it began."""
    return bool(k.T[t, L.T_IN] == event and k.T[t, L.T_IN_TS] > k.g[L.G_LOST_UNTIL])


@inlined
def option(k: Any, t: int, at: int, on: int, seconds: int, ts: int, seq: int) -> None:
    """SO_LINGER is set; ``on`` NULL: nobody says to what."""
    g, T, O = k.g, k.T, k.O  # noqa: E741
    o = looked_up(k, t, at)
    if o < 0:
        if at < 0:
            g[L.G_STRAY] = ts
            return
        made(k, at, 0, ts)
        o = k.F[at, L.F_OBJ]
        O[o, L.O_STRAY] = 1
        g[L.G_STRAY] = ts
    if T[t, L.T_OLD_ON] == -2:
        T[t, L.T_OLD_ON], T[t, L.T_OLD_SECS] = O[o, L.O_ON], O[o, L.O_SECS]
    O[o, L.O_ON] = on if on == L.NULL else int(on != 0)
    if on != L.NULL and on != 0:
        O[o, L.O_SECS] = seconds
    O[o, L.O_OPT_TS], O[o, L.O_OPT_SEQ] = ts, seq


@inlined
def step(k: Any, b: Any, i: int) -> None:
    """One event."""
    g, T, S = k.g, k.T, k.S
    e, t, ts, seq = b[L.B_EV, i], b[L.B_THREAD, i], b[L.B_TS, i], b[L.B_SEQ, i]
    if e == L.EV_LOST:
        g[L.G_LOST_UNTIL] = max(g[L.G_LOST_UNTIL], max(b[L.B_UNTIL, i], ts))
        return
    if e >= L.EV_ALLOC and e != L.EV_RECV and e != L.EV_SENT:
        T[t, L.T_PEND_SK] = -1
    if e == L.EV_ALLOC:
        allocated(k, t, names(k, t), b, i)
    elif e == L.EV_RECV:
        received(k, t, b, i)
    elif e == L.EV_SENT:
        if b[L.B_SK, i] >= 0 and b[L.B_SIZE, i] >= 0:
            bytes_sent(k, t, b[L.B_SK, i], b[L.B_SIZE, i], ts, seq)
    elif e == L.EV_ARGUMENTS:
        T[t, L.T_EPROBE] = int(b[L.B_ID, i] == 1 and b[L.B_CMD, i] == 13)
        T[t, L.T_EPROBE_ON], T[t, L.T_EPROBE_SECS] = b[L.B_FLAGS, i], b[L.B_COUNT, i]
    elif e >= L.EV_RELEASE:
        probed(k, t, b, i)
    elif e == L.EV_FORK:
        T[t, L.T_FORKED] = ts
        born(k, b[L.B_FD2, i], ts)
    elif e == L.EV_EXIT:
        T[t, L.T_EXIT] = ts
        if T[t, L.T_OPEN]:
            k.Q[t, L.R_EXITING] = 1
    elif e == L.EV_SIGNAL:
        signalled(k, b, i)
    elif e == L.EV_DELIVERED:
        T[t, L.T_SIGNAL] = L.NULL
        s = T[t, L.T_CLOSED]
        if s >= 0 and S[s, L.S_CLOSED]:
            k.E[s, L.R_SIGNAL] = 1
    else:
        called(k, t, b, i)


@inlined
def born(k: Any, child: int, ts: int) -> None:
    """A thread with this number begins."""
    T = k.T
    if child < 0:
        return
    for c in (L.T_IN, L.T_OPEN, L.T_REL):
        T[child, c] = 0
    for c in (L.T_EXIT, L.T_SIGNAL):
        T[child, c] = L.NULL
    T[child, L.T_BORN] = ts


@inlined
def signalled(k: Any, b: Any, i: int) -> None:
    """A signal is sent: to one thread, or to one of a process whose threads are not known."""
    T = k.T
    if b[L.B_RET, i] == 1:
        return
    target = b[L.B_FD2, i]
    if target >= 0:
        T[target, L.T_SIGNAL] = b[L.B_TS, i]
        if T[target, L.T_OPEN]:
            k.Q[target, L.R_SIGNAL] = 1
    if b[L.B_FLAGS, i] != 0:
        for t in range(T.shape[0]):
            if T[t, L.T_OPEN] and k.Q[t, L.R_SIGNAL] == 0:
                k.Q[t, L.R_SIGNAL] = 2


@inlined
def called(k: Any, t: int, b: Any, i: int) -> None:
    """A system call's entry or return."""
    T = k.T
    e, ts, seq, ret = b[L.B_EV, i], b[L.B_TS, i], b[L.B_SEQ, i], b[L.B_RET, i]
    if e == L.EV_SOCKET:
        vsock = b[L.B_ID, i] == 40
        open_call(k, t, e, b, i, b[L.B_FLAGS, i] & CLOEXEC_TYPE if vsock else 0)
    elif e == L.EV_SOCKET_RET or e == L.EV_ACCEPT_RET:
        whole = in_call(k, t, e - 1)
        if ret >= 0 and b[L.B_FD2, i] >= 0:
            if whole:
                made(k, b[L.B_FD2, i], T[t, L.T_IN_ARG], ts)
            else:
                dropped(k, b[L.B_FD2, i])
        T[t, L.T_IN] = 0
    elif e == L.EV_ACCEPT or e == L.EV_CONNECT or e == L.EV_SEND or e == L.EV_DUP:
        open_call(k, t, e, b, i, 0)
    elif e == L.EV_DUP_RET:
        to = b[L.B_FD2, i]
        if ret >= 0 and to >= 0:
            o = names(k, t) if in_call(k, t, L.EV_DUP) else -1
            if T[t, L.T_IN_FD] != to:
                dropped(k, to)
                if o >= 0:
                    k.F[to, L.F_OBJ], k.F[to, L.F_SINCE] = o, ts
                    k.O[o, L.O_REFS] += 1
        T[t, L.T_IN] = 0
    elif e == L.EV_CONNECT_RET or e == L.EV_SEND_RET:
        T[t, L.T_IN] = 0
    elif e == L.EV_SETSOCKOPT:
        linger = b[L.B_ID, i] == 1 and b[L.B_CMD, i] == 13
        open_call(k, t, e, b, i, int(linger))
        T[t, L.T_OLD_ON] = -2
        if linger:
            option(k, t, b[L.B_FD, i], L.NULL, 0, ts, seq)
    elif e == L.EV_OPTION:
        if b[L.B_ID, i] == 1 and b[L.B_CMD, i] == 13:
            if T[t, L.T_IN] != L.EV_SETSOCKOPT:
                T[t, L.T_OLD_ON] = -2
            short = b[L.B_ARGSZ, i] != L.NULL and b[L.B_ARGSZ, i] < 8
            on = b[L.B_FLAGS, i] if not short and b[L.B_COUNT, i] != L.NULL else L.NULL
            option(k, t, b[L.B_FD, i], on, b[L.B_COUNT, i], ts, seq)
            if T[t, L.T_EPROBE] and on != L.NULL:
                same = T[t, L.T_EPROBE_ON] == on and T[t, L.T_EPROBE_SECS] == b[L.B_COUNT, i]
                k.g[L.G_EPROBE_WRONG] += int(not same)
        T[t, L.T_EPROBE] = 0
    elif e == L.EV_SETSOCKOPT_RET:
        T[t, L.T_EPROBE] = 0
        if in_call(k, t, L.EV_SETSOCKOPT) and T[t, L.T_IN_ARG] and ret < 0:
            o = names(k, t)
            if o >= 0 and T[t, L.T_OLD_ON] != -2:
                k.O[o, L.O_ON], k.O[o, L.O_SECS] = T[t, L.T_OLD_ON], T[t, L.T_OLD_SECS]
        T[t, L.T_IN] = 0
    elif e == L.EV_SHUTDOWN:
        open_call(k, t, e, b, i, b[L.B_FLAGS, i])
        begin(k, t, L.SHUTDOWN, L.CALL, ts, seq)
        k.Q[t, L.R_HOW] = b[L.B_FLAGS, i]
    elif e == L.EV_SHUTDOWN_RET:
        if T[t, L.T_OPEN] == L.SHUTDOWN and k.Q[t, L.R_LPORT] != L.NULL and ret == 0:
            finish_bracket(k, t, side_of(k, t), ts, seq)
        T[t, L.T_OPEN] = 0
        T[t, L.T_IN] = 0
    elif e == L.EV_CLOSE:
        open_call(k, t, e, b, i, 0)
        if not k.g[L.G_HAS_RELEASE]:
            begin(k, t, L.CLOSE, L.CALL, ts, seq)
    elif e == L.EV_CLOSE_RET:
        timed = T[t, L.T_OPEN] == L.CLOSE and k.Q[t, L.R_LEVEL] == L.CALL
        if timed and k.Q[t, L.R_LPORT] != L.NULL:
            finish_bracket(k, t, side_of(k, t), ts, seq)
        T[t, L.T_OPEN] = 0
        if T[t, L.T_IN] == L.EV_CLOSE and T[t, L.T_IN_FD] >= 0:
            closed(k, t, T[t, L.T_IN_FD], ts)
        T[t, L.T_IN] = 0


@inlined
def side_of(k: Any, t: int) -> int:
    """The side whose record is open on a thread, or -1."""
    return int(k.T[t, L.T_TRANS])


@inlined
def released(k: Any, sk: int) -> int:
    """The side that a kernel socket is known to be as its release begins, or -1.

    A socket is released once: after that it is another one, in the same place in memory.
    """
    if sk < 0:
        return -1
    s = k.K[sk, L.K_SIDE]
    if s >= 0 and k.S[s, L.S_CLOSED]:
        if k.S[s, L.S_SK] == sk:
            k.S[s, L.S_SK] = -1
        k.K[sk, L.K_SIDE], k.K[sk, L.K_BYTES] = -1, 0
        return -1
    return int(s)


@inlined
def probed(k: Any, t: int, b: Any, i: int) -> None:
    """A probe on one of vsock's functions."""
    g, T, K, S = k.g, k.T, k.K, k.S
    e, ts, seq, sk, s = b[L.B_EV, i], b[L.B_TS, i], b[L.B_SEQ, i], b[L.B_SK, i], b[L.B_A, i]
    if e == L.EV_RELEASE:
        T[t, L.T_REL], T[t, L.T_REL_TS] = 1, ts
        begin(k, t, L.CLOSE, L.RELEASE, ts, seq)
        k.Q[t, L.R_SK] = sk
        o = names(k, t) if T[t, L.T_IN] == L.EV_CLOSE else -1
        known = released(k, sk) if not g[L.G_HAS_TRANSPORT] else -1
        facts(k, t, known, o)
    elif e == L.EV_TRANSPORT or e == L.EV_OTHER:
        if T[t, L.T_OPEN] and k.Q[t, L.R_LEVEL] == L.TRANSPORT:
            return  # the same function, probed twice
        o = names(k, t) if T[t, L.T_IN] == L.EV_CLOSE else -1
        begin(k, t, L.CLOSE, L.TRANSPORT, ts, seq)
        T[t, L.T_REL] = 2
        row = k.Q[t]
        row[L.R_SK] = sk
        if e == L.EV_OTHER:
            row[L.R_TRANSPORT] = b[L.B_ID, i]
            facts(k, t, -1, o)
            return
        row[L.R_LTIME], row[L.R_SKFLAGS] = b[L.B_COUNT, i], b[L.B_ATTR, i]
        row[L.R_STATE], row[L.R_SHUT], row[L.R_PSHUT] = (
            b[L.B_CMD, i], b[L.B_ID, i], b[L.B_FLAGS, i],
        )  # fmt: skip
        if s < 0:
            s = released(k, sk)
        if s >= 0 and sk >= 0:
            bind(k, sk, s)
        T[t, L.T_TRANS] = s
        facts(k, t, s, o)
    elif e == L.EV_TRANSPORT_RET or e == L.EV_OTHER_RET:
        if T[t, L.T_OPEN] == L.CLOSE and k.Q[t, L.R_LEVEL] == L.TRANSPORT:
            finish_bracket(k, t, side_of(k, t) if e == L.EV_TRANSPORT_RET else -1, ts, seq)
    elif e == L.EV_RELEASED:
        alone = T[t, L.T_REL] == 1 and T[t, L.T_OPEN] == L.CLOSE
        if alone and g[L.G_HAS_TRANSPORT]:
            k.Q[t, L.R_KIND] = L.BARE
            finish_bracket(k, t, -1, ts, seq)
        elif alone:
            finish_bracket(k, t, side_of(k, t), ts, seq)
        T[t, L.T_REL] = 0
    elif e == L.EV_LINGER:
        if T[t, L.T_OPEN]:
            row = k.Q[t]
            row[L.R_L0], row[L.R_L0_SEQ] = ts, seq
            if b[L.B_COUNT, i] != L.NULL:
                row[L.R_LTIME] = b[L.B_COUNT, i]
        else:  # nothing but this function was probed
            begin(k, t, L.CLOSE, L.TRANSPORT, ts, seq)
            row = k.Q[t]
            row[L.R_L0], row[L.R_L0_SEQ] = ts, seq
            row[L.R_LTIME], row[L.R_SK] = b[L.B_COUNT, i], sk
            s = released(k, sk)
            T[t, L.T_TRANS] = s
            facts(k, t, s, names(k, t))
    elif e == L.EV_LINGERED:
        if T[t, L.T_OPEN] and k.Q[t, L.R_L0] != L.NULL:
            row = k.Q[t]
            row[L.R_L1], row[L.R_L1_SEQ] = ts, seq
            if row[L.R_LEVEL] == L.TRANSPORT and not g[L.G_HAS_TRANSPORT]:
                finish_bracket(k, t, side_of(k, t), ts, seq)
    elif e == L.EV_VSHUTDOWN:
        if T[t, L.T_OPEN] != L.SHUTDOWN:
            begin(k, t, L.SHUTDOWN, L.RELEASE, ts, seq)
        row = k.Q[t]
        row[L.R_LEVEL], row[L.R_T0], row[L.R_SEQ0] = L.RELEASE, ts, seq
        row[L.R_SK], row[L.R_HOW] = sk, b[L.B_FLAGS, i]
        s = K[sk, L.K_SIDE] if sk >= 0 else -1
        T[t, L.T_TRANS] = s
        if s >= 0:
            facts(k, t, s, names(k, t))
    elif e == L.EV_VSHUTDOWN_RET:
        if T[t, L.T_OPEN] == L.SHUTDOWN and k.Q[t, L.R_LPORT] != L.NULL:
            finish_bracket(k, t, side_of(k, t), ts, seq)
        T[t, L.T_OPEN] = 0
    elif e == L.EV_DONE:
        s = K[sk, L.K_SIDE] if sk >= 0 else -1
        if s >= 0:
            done(k, s, ts, seq, True)
    elif e == L.EV_RESET:
        s = K[sk, L.K_SIDE] if sk >= 0 else -1
        if s >= 0:
            S[s, L.S_RESET] = 1
            if S[s, L.S_CLOSED]:
                k.E[s, L.R_RESET] = 1
    elif e == L.EV_TAKE:
        T[t, L.T_CREDIT_TS], T[t, L.T_CREDIT_GOT] = ts, L.NULL
        T[t, L.T_CREDIT_COUNT], T[t, L.T_CREDIT_BUF] = b[L.B_COUNT, i], b[L.B_ARGSZ, i]
        T[t, L.T_CREDIT_TX], T[t, L.T_CREDIT_FWD] = b[L.B_OFFSET, i], b[L.B_ID, i]
        if T[t, L.T_CREDIT_TX] == L.NULL or T[t, L.T_CREDIT_FWD] == L.NULL:
            T[t, L.T_CREDIT_BUF] = L.NULL
    elif e == L.EV_TAKEN:
        T[t, L.T_CREDIT_GOT] = max(b[L.B_RET, i], -1) if b[L.B_RET, i] != L.NULL else L.NULL
    elif e == L.EV_PUT and T[t, L.T_CREDIT_GOT] != L.NULL:
        # More given back than was taken stays just below zero: sizes are the recording's word.
        left, back = T[t, L.T_CREDIT_GOT], max(b[L.B_SIZE, i], 0)
        T[t, L.T_CREDIT_GOT] = left - back if back <= left else -1
