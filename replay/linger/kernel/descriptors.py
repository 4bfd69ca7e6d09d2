"""Descriptors: which socket a process means, also when it had it from its parent."""

from __future__ import annotations

from typing import Any

from tracekit.compiled.kernels import entry, inlined

from . import layout as L

__all__ = ("closed", "dropped", "let_go", "looked_up", "made", "names")

MOST_LEFT = 64
"""Of one descriptor so many sockets are remembered that children may have."""
MOST_LEFT_OF_ALL = 1 << 16


@inlined
def names(k: Any, t: int) -> int:
    """The socket that the thread's system call is made on, or -1."""
    at = k.T[t, L.T_IN_FD]
    return looked_up(k, t, at) if at >= 0 and k.T[t, L.T_IN] else -1


@inlined
def looked_up(k: Any, t: int, at: int) -> int:
    """What a descriptor stands for: what its process made it, or had from its parent."""
    F, T, O = k.F, k.T, k.O  # noqa: E741
    if at < 0:
        return -1
    if F[at, L.F_OBJ] != -1:
        return max(int(F[at, L.F_OBJ]), -1)
    parent, born = F[at, L.F_PARENT], T[t, L.T_BORN]
    begun = T[t, L.T_PID] == L.NULL or T[t, L.T_PID] == T[t, L.T_TID]  # as the process did
    if parent < 0 or born == L.NULL or not begun:
        return -1
    o = F[parent, L.F_OBJ]
    if o < 0 or F[parent, L.F_SINCE] >= born:
        o = F[parent, L.F_LEFT]
        for _ in range(MOST_LEFT):
            if o < 0 or O[o, L.O_SINCE] < born:
                break
            o = O[o, L.O_OLDER]
        if o >= 0 and not O[o, L.O_SINCE] < born < O[o, L.O_GONE]:
            o = -1
    if o >= 0:
        F[at, L.F_OBJ], F[at, L.F_SINCE] = o, born
        O[o, L.O_REFS] += 1
    return int(o)


@inlined
def made(k: Any, at: int, kind: int, ts: int) -> None:
    """A descriptor names a new socket, without SO_LINGER."""
    g, O = k.g, k.O  # noqa: E741
    if g[L.G_FREE_OBJS] >= 0:
        o = g[L.G_FREE_OBJS]
        g[L.G_FREE_OBJS] = O[o, L.O_SIDE]
    else:
        o = g[L.G_OBJS]
        g[L.G_OBJS] += 1
    O[o, L.O_CREATED], O[o, L.O_TYPE], O[o, L.O_ON], O[o, L.O_SECS] = ts, kind, 0, 0
    O[o, L.O_OPT_TS] = O[o, L.O_OPT_SEQ] = O[o, L.O_GONE] = O[o, L.O_SINCE] = L.NULL
    O[o, L.O_REFS], O[o, L.O_SIDE], O[o, L.O_STRAY], O[o, L.O_OLDER] = 1, -1, 0, -1
    dropped(k, at)
    k.F[at, L.F_OBJ], k.F[at, L.F_SINCE] = o, ts


@inlined
def dropped(k: Any, at: int) -> None:
    """A descriptor names its socket no more."""
    o = k.F[at, L.F_OBJ]
    k.F[at, L.F_OBJ] = -2
    if o >= 0:
        unnamed(k, o)


@inlined
def unnamed(k: Any, o: int) -> None:
    """A socket is named by one thing less."""
    g, O = k.g, k.O  # noqa: E741
    O[o, L.O_REFS] -= 1
    if O[o, L.O_REFS] <= 0:
        s = O[o, L.O_SIDE]
        if s >= 0 and k.S[s, L.S_OBJ] == o:
            k.S[s, L.S_OBJ] = -1
        O[o, L.O_CREATED] = L.NULL
        O[o, L.O_SIDE] = g[L.G_FREE_OBJS]
        g[L.G_FREE_OBJS] = o


@inlined
def closed(k: Any, t: int, at: int, ts: int) -> None:
    """A descriptor is closed; a child that was forked before still has what it named."""
    g, F, O = k.g, k.F, k.O  # noqa: E741
    o = F[at, L.F_OBJ]
    if (
        o < 0
        or k.T[t, L.T_FORKED] <= F[at, L.F_SINCE]
        or O[o, L.O_GONE] != L.NULL
        or g[L.G_LEFT] >= MOST_LEFT_OF_ALL
    ):
        dropped(k, at)
        return
    g[L.G_LEFT] += 1
    O[o, L.O_SINCE], O[o, L.O_GONE], O[o, L.O_OLDER] = F[at, L.F_SINCE], ts, F[at, L.F_LEFT]
    F[at, L.F_OBJ], F[at, L.F_LEFT] = -2, o
    for _ in range(MOST_LEFT):
        if O[o, L.O_OLDER] < 0:
            return
        before, o = o, O[o, L.O_OLDER]
    O[before, L.O_OLDER] = -1
    g[L.G_LEFT] -= 1
    unnamed(k, o)


@entry
def let_go(k: Any, at: int) -> None:
    """A descriptor's process is gone."""
    dropped(k, at)
    o = k.F[at, L.F_LEFT]
    for _ in range(MOST_LEFT):
        if o < 0:
            break
        older = k.O[o, L.O_OLDER]
        k.g[L.G_LEFT] -= 1
        unnamed(k, o)
        o = older
    k.F[at, L.F_LEFT] = -1
