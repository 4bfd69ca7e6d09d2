"""The containers of a process, and which of them hear of which memory."""

from __future__ import annotations

from typing import Any

from tracekit.compiled.kernels import jit

from .expect import next_call
from .layout import *
from .spans import end_of, plus
from .state import *

__all__ = (
    "add_container",
    "doubt",
    "drop_container",
    "hears",
    "in_doubt",
    "is_foreign",
    "note_foreign",
    "place_of",
    "tell_container",
)


@jit
def place_of(p: Any, proc: int, space: int) -> int:
    """The number of a container in its process, or -1."""
    for i in range(p[proc, P_NC]):
        if p[proc, P_CONTAINERS + i] == space:
            return i
    return -1


@jit
def add_container(p: Any, proc: int, space: int) -> bool:
    """Whether it is new."""
    if place_of(p, proc, space) >= 0:
        return False
    if p[proc, P_NC] < MOST_CONTAINERS:
        i = p[proc, P_NC]
        p[proc, P_CONTAINERS + i] = space
        for c in range(R_COLS):
            p[proc, P_REPLAY + R_COLS * i + c] = 0
        p[proc, P_NC] += 1
    return True


@jit
def tell_container(p: Any, t: Any, proc: int, th: int, space: int, newest_first: bool) -> None:
    """The thread's conversion tells a container; one that is not known yet has its place beside
    the one told before it, for it is that one's neighbour in age."""
    before = place_of(p, proc, t[th, T_SPACE] - 1)
    t[th, T_SPACE] = plus(space, 1)
    if place_of(p, proc, space) >= 0:
        return
    t[th, T_NEW_CONTAINER] = 1
    if not add_container(p, proc, space) or place_of(p, proc, space) < 0:
        return
    at = p[proc, P_NC] - 1
    to = (at if before < 0 else before) if newest_first else before + 1
    while at > to:
        p[proc, P_CONTAINERS + at] = p[proc, P_CONTAINERS + at - 1]
        for c in range(R_COLS):
            r = P_REPLAY + R_COLS * at + c
            p[proc, r] = p[proc, r - R_COLS]
        at -= 1
    p[proc, P_CONTAINERS + at] = space
    for c in range(R_COLS):
        p[proc, P_REPLAY + R_COLS * at + c] = 0


@jit
def drop_container(p: Any, proc: int, fd: int) -> None:
    """A descriptor was closed, and its containers with it."""
    kept = 0
    for i in range(p[proc, P_NC]):
        space = p[proc, P_CONTAINERS + i]
        if space & 0xFFFFF != fd:
            p[proc, P_CONTAINERS + kept] = space
            for c in range(R_COLS):
                at = P_REPLAY + c
                p[proc, at + R_COLS * kept] = p[proc, at + R_COLS * i]
            kept += 1
    p[proc, P_NC] = kept
    for i in range(MOST_DOUBTS):
        at = P_DOUBT + 3 * i
        if p[proc, at] and p[proc, at] - 1 & 0xFFFFF == fd:
            p[proc, at] = 0
    for i in range(MOST_FOREIGN):
        at = P_FOREIGN + 3 * i
        if p[proc, at] and p[proc, at] - 1 & 0xFFFFF == fd:
            p[proc, at] = 0


@jit
def in_doubt(p: Any, proc: int, space: int, lo: int, hi: int) -> int:
    """The place of a doubt about the container's listener there, or -1."""
    for i in range(MOST_DOUBTS):
        at = P_DOUBT + 3 * i
        if p[proc, at] == space + 1 and p[proc, at + 1] < hi and lo < p[proc, at + 2]:
            return at
    return -1


@jit
def doubt(p: Any, proc: int, space: int, lo: int, hi: int) -> None:
    """The container's listener of bytes [lo, hi) may be gone."""
    if in_doubt(p, proc, space, lo, hi) >= 0:
        return
    for i in range(MOST_DOUBTS):
        at = P_DOUBT + 3 * i
        if p[proc, at] == 0:
            p[proc, at], p[proc, at + 1], p[proc, at + 2] = space + 1, lo, hi
            return


@jit
def hears(p: Any, w: Any, proc: int, space: int, kind: int, lo: int, hi: int) -> bool:
    """Whether the container's listener is registered there; seen to act, it is."""
    place = in_doubt(p, proc, space, lo, hi)
    if place < 0:
        return True
    row = next_call(w)
    acts = row >= 0 and w.calls[row, C_KIND] == kind and w.calls[row, C_SPACE] == space
    if acts:
        p[proc, place] = 0
    return acts


@jit
def note_foreign(k: Any, proc: int, row: int) -> None:
    """A map that no conversion and no registration explains: another listener's."""
    free = -1
    for i in range(MOST_FOREIGN):
        at = P_FOREIGN + 3 * i
        if k.p[proc, at] == 0:
            free = at
        elif k.p[proc, at] == k.w.calls[row, C_SPACE] + 1:
            if k.p[proc, at + 1] == k.w.calls[row, C_ADDR]:
                free = at
                break
    if free >= 0 and k.w.calls[row, C_ADDR] >= 0:
        k.p[proc, free] = plus(k.w.calls[row, C_SPACE], 1)
        k.p[proc, free + 1] = k.w.calls[row, C_ADDR]
        k.p[proc, free + 2] = end_of(k.w.calls, row)


@jit
def is_foreign(p: Any, calls: Any, proc: int, row: int) -> bool:
    """Whether an unmap takes another listener's mapping with it; that is forgotten.

    Its own unmap, of no more than was mapped, is none.
    """
    found = False
    lo, hi = calls[row, C_ADDR], end_of(calls, row)
    for i in range(MOST_FOREIGN):
        at = P_FOREIGN + 3 * i
        if p[proc, at] != plus(calls[row, C_SPACE], 1):
            continue
        if lo <= p[proc, at + 1] and p[proc, at + 2] <= hi:
            found = found or lo < p[proc, at + 1] or p[proc, at + 2] < hi
            p[proc, at] = 0
    return found
