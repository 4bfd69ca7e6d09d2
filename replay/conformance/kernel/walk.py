"""A whole conversion as one generation makes it, and what its bitmap holds afterwards."""

from __future__ import annotations

from typing import Any

from tracekit.compiled.kernels import jit

from .backing import expect_discard
from .expect import differ, expect
from .layout import *
from .memory import find_memory, memory_end
from .notify import change
from .pages import assign, classify
from .spans import plus
from .state import *

__all__ = ("settle", "walk")


@jit
def walk(k: Any, proc: int, private: int, start: int, size: int) -> None:
    """The conversion of bytes [start, start + size), from the group's place on."""
    applied, end = start, plus(start, max(size, 0))
    k.w.s[S_APPLIED] = 0
    unaligned = start % PAGE != 0 or size % PAGE != 0
    if unaligned or size <= 0 or start < 0 or end == TOP:
        differ(k.w, K_NONE, start, size, -1)  # refused before anything is called
        return
    if k.p[proc, P_SLOTS_KNOWN] == 1 and k.p[proc, P_NSLOTS] > 0:
        memory = find_memory(k.p, proc, start, end)
        if memory < 0 or k.p[proc, memory + 4] & 4 == 0:
            differ(k.w, K_NONE, start, size, -1)
            return
        applied = max(start, k.p[proc, memory + 1])
        if applied != start:
            k.w.s[S_HAZARDS] |= 1 << W_SHIFTED
        if plus(applied, size) > memory_end(k.p, proc, memory):
            if k.gen == V4:
                return
            k.w.s[S_HAZARDS] |= 1 << W_PAST_END
            expect(k.w, K_ATTR, 0, start, size, private)
            k.w.s[S_FAILED_LO], k.w.s[S_FAILED_HI] = 0, 0
            if k.w.s[S_STATUS] == GOING:
                k.w.s[S_STATUS] = FAILED
            return
    k.w.s[S_APPLIED] = applied
    lo, hi = applied // PAGE, plus(applied, size) // PAGE
    states = classify(k.table, k.data, proc, lo, hi)
    if k.gen != V4:
        result = expect(k.w, K_ATTR, 0, start, size, private)
        if k.w.s[S_STATUS] != GOING:
            return
        if result < 0:
            k.w.s[S_STATUS] = FAILED
            k.w.s[S_DONE_HI] = lo
            return
    if states & 1:
        k.w.s[S_STATUS], k.w.s[S_REASON] = UNDECIDED, Y_LATE
        return
    change(k.w, k.p, k.table, k.data, k.gen, proc, private, lo, hi, states)
    if k.w.s[S_STATUS] == FAILED and k.gen != V4:
        k.w.s[S_HAZARDS] |= 1 << W_ATTRIBUTE_KEPT
    if k.w.s[S_STATUS] != GOING:
        return
    if private:
        if k.discards[1]:
            expect_discard(k, proc, applied, size)
    elif k.discards[0]:
        expect(k.w, K_PUNCH, -1, applied, size, 0)


@jit
def settle(
    s: Any, table: Any, data: Any, counts: Any, gen: int, proc: int, private: int, lo: int, hi: int
) -> None:
    """What the bitmap holds of pages [lo, hi) after a conversion that went as predicted."""
    value = PRIVATE if private else SHARED
    if s[S_STATUS] == GOING:
        if not private and s[S_HAZARDS] >> W_RETRY & 1:
            return
        assign(table, data, counts, proc, lo, hi, value, 0)
        return
    if gen == V4 or private or s[S_FAILED_HI] <= s[S_FAILED_LO]:
        return  # undone, refused, or the end of QEMU
    if s[S_DONE_HI] > lo and s[S_DONE_HI] < hi:
        assign(table, data, counts, proc, lo, s[S_DONE_HI], value, 0)
    assign(table, data, counts, proc, s[S_FAILED_LO], s[S_FAILED_HI], UNMAPPED, 0)
