"""The guest's memory: slots, and what of it a request means."""

from __future__ import annotations

from typing import Any

from tracekit.compiled.kernels import jit

from .layout import *
from .spans import end_of, minus, plus
from .state import *

__all__ = ("find_memory", "memory_end", "request_start", "set_slot")


@jit
def find_memory(p: Any, proc: int, lo: int, hi: int) -> int:
    """The place of the lowest slot that meets bytes [lo, hi), or -1."""
    best = -1
    for i in range(p[proc, P_NSLOTS]):
        at = P_SLOTS + SLOT_COLS * i
        start, end = p[proc, at + 1], plus(p[proc, at + 1], p[proc, at + 2])
        if start < hi and lo < end and (best < 0 or start < p[proc, best + 1]):
            best = at
    return best


@jit
def memory_end(p: Any, proc: int, at: int) -> int:
    """Where the memory that begins with a slot ends: slots that go on in both spaces are one."""
    end, vaddr = plus(p[proc, at + 1], p[proc, at + 2]), plus(p[proc, at + 3], p[proc, at + 2])
    for _ in range(p[proc, P_NSLOTS]):
        grown = False
        for i in range(p[proc, P_NSLOTS]):
            other = P_SLOTS + SLOT_COLS * i
            if p[proc, other + 1] == end and p[proc, other + 3] == vaddr:
                end = plus(end, p[proc, other + 2])
                vaddr = plus(vaddr, p[proc, other + 2])
                grown = True
        if not grown:
            break
    return end


@jit
def set_slot(k: Any, proc: int, row: int) -> None:
    """A slot is there from now on, or is gone."""
    p, calls = k.p, k.w.calls
    if calls[row, C_KNOWN] == 0 or calls[row, C_ADDR] < 0 or calls[row, C_SIZE] < 0:
        p[proc, P_SLOTS_KNOWN] = 0
        return
    at = -1
    for i in range(p[proc, P_NSLOTS]):
        if p[proc, P_SLOTS + SLOT_COLS * i] == calls[row, C_SPACE]:
            at = P_SLOTS + SLOT_COLS * i
    if calls[row, C_SIZE] == 0:
        if at >= 0:
            last = P_SLOTS + SLOT_COLS * (p[proc, P_NSLOTS] - 1)
            for c in range(SLOT_COLS):
                p[proc, at + c] = p[proc, last + c]
            p[proc, P_NSLOTS] -= 1
        return
    if at < 0:
        if p[proc, P_NSLOTS] >= MOST_SLOTS:
            p[proc, P_SLOTS_KNOWN] = 0
            return
        at = P_SLOTS + SLOT_COLS * p[proc, P_NSLOTS]
        p[proc, P_NSLOTS] += 1
        p[proc, at + 3] = NULL
    if p[proc, at + 2] != calls[row, C_SIZE] or p[proc, at + 3] != calls[row, C_VADDR]:
        p[proc, at + A_PAGES], p[proc, at + A_NUMBER] = calls[row, C_COUNT], 0
        p[proc, at + A_KEPT] = 0
    p[proc, at] = calls[row, C_SPACE]
    p[proc, at + 1], p[proc, at + 2] = calls[row, C_ADDR], calls[row, C_SIZE]
    p[proc, at + 3], p[proc, at + 4] = calls[row, C_VADDR], calls[row, C_FLAG]


@jit
def request_start(k: Any, proc: int, row: int, lo: int, hi: int) -> int:
    """Where the request begins whose discard this is, and that holds [lo, hi); -1: not known."""
    p, calls = k.p, k.w.calls
    size = calls[row, C_SIZE]
    private = calls[row, C_KIND] == K_DISCARD
    learned = P_DELTA if private and calls[row, C_FLAG] == 2 else P_FILE_DELTA
    learned = P_PUNCH_DELTA if not private else learned
    at = calls[row, C_VADDR] if learned == P_DELTA else calls[row, C_ADDR]
    if size <= 0:
        return -1
    if size == minus(hi, lo):
        if learned != P_DELTA:
            p[proc, learned], p[proc, learned + 1] = minus(at, lo), 1
        return lo
    start = minus(at, p[proc, learned])
    if p[proc, learned + 1] and start <= lo and plus(start, size) >= hi:
        return start
    for i in range(p[proc, P_NSLOTS]):
        slot = P_SLOTS + SLOT_COLS * i
        start = plus(p[proc, slot + 1], at)
        if learned == P_DELTA:
            start = minus(start, p[proc, slot + 3])
        if start <= lo and plus(start, size) >= hi:
            return start
    if learned != P_DELTA and at <= lo and end_of(calls, row) >= hi:
        return at
    return -1
