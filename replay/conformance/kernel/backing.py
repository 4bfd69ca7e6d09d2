"""What the shared side of memory is made of: QEMU never discards huge pages.

The trace says it where the memory was mapped with MAP_HUGETLB, or is no file's.  Of a file it does
not: then a conversion that discards says that it is not of huge pages, and until one does it is
open whether those that did not are right.
"""

from __future__ import annotations

from typing import Any

from tracekit.compiled.kernels import jit

from .expect import differ, expect, next_call
from .layout import *
from .memory import find_memory
from .spans import plus
from .state import *

__all__ = ("expect_discard", "is_discarded", "made_of")


@jit
def made_of(p: Any, proc: int, lo: int, hi: int) -> int:
    """Where it stands what bytes [lo, hi) are made of: A_* of the lowest slot that meets them."""
    at = find_memory(p, proc, lo, hi)
    return P_ANYWHERE if at < 0 else at


@jit
def is_discarded(k: Any, proc: int, start: int, size: int) -> None:
    """A conversion discarded the shared side, so the memory is not made of huge pages."""
    p, out, n = k.p, k.out, k.n_out[0]
    at = made_of(p, proc, start, plus(start, size))
    if p[proc, at + A_PAGES] == HUGE_PAGES:
        return
    p[proc, at + A_PAGES] = BASE_PAGES
    if p[proc, at + A_KEPT] == 0:
        return
    k.totals[N_CONFORM] -= p[proc, at + A_KEPT]
    k.totals[N_DIVERGE] += p[proc, at + A_KEPT]
    p[proc, at + A_KEPT] = 0
    if n < out.shape[0]:
        out[n, D_WHAT], out[n, D_REASON], out[n, D_COUNT] = W_BASE, p[proc, at + A_NUMBER], 0
        k.n_out[0] = n + 1


@jit
def expect_discard(k: Any, proc: int, start: int, size: int) -> None:
    """The end of a conversion to private: v4 knows no huge pages, the others leave them alone."""
    w = k.w
    pages = k.p[proc, made_of(k.p, proc, start, plus(start, size)) + A_PAGES]
    row = next_call(w)
    comes = row >= 0 and w.calls[row, C_KIND] == K_DISCARD
    if k.gen != V4 and pages == HUGE_PAGES:
        if comes:
            differ(w, K_NONE, start, size, -1)
        return
    if k.gen != V4 and pages != BASE_PAGES and not comes:
        if row < 0 and w.s[S_OPEN]:
            w.s[S_STATUS] = WAITING
        else:
            w.s[S_HAZARDS] |= 1 << W_KEPT
        return
    expect(w, K_DISCARD, -1, start, size, 0)
    if w.s[S_STATUS] == GOING:
        is_discarded(k, proc, start, size)
