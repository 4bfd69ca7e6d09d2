"""Looking for pages: the next one that is, or is not, in a state."""

from __future__ import annotations

from typing import Any

from tracekit.compiled.kernels import jit

from .layout import *
from .planes import both, stretch, wide


@jit
def next_where(k: Any, space: int, p: int, end: int, mask: int, value: int, wanted: bool) -> int:
    """First page from ``p`` on of which ``page & mask == value`` is ``wanted``; ``end`` if none."""
    while p < end:
        d, v, e = stretch(k, space, p, end)
        if d < 0:
            if ((v & mask) == value) == wanted:
                return p
        else:
            row = k.mm[d]
            for i in range(p, e):
                if ((wide(row[i & (PART - 1)]) & mask) == value) == wanted:
                    return i
        p = e
    return end


@jit
def next_with(k: Any, space: int, p: int, end: int, mask: int, value: int) -> int:
    """First page from ``p`` on with ``page & mask == value``; ``end`` if none."""
    return next_where(k, space, p, end, mask, value, True)


@jit
def next_without(k: Any, space: int, p: int, end: int, mask: int, value: int) -> int:
    """First page from ``p`` on with ``page & mask != value``; ``end`` if none."""
    return next_where(k, space, p, end, mask, value, False)


@jit
def next_premature(
    k: Any, vm: int, space: int, p: int, end: int, live: int, bit: int, wanted: bool
) -> int:
    """First page from ``p`` on that is (``wanted``) or is not private, live and without ``bit``."""
    while p < end:
        d, v, ad, x, e = both(k, space, vm, p, end)
        if d < 0 and ad < 0:
            if ((x & A_P) != 0 and (v & (live | bit)) == live) == wanted:
                return p
        else:
            for i in range(p, e):
                if d >= 0:
                    v = wide(k.mm[d, i & (PART - 1)])
                if ad >= 0:
                    x = wide(k.am[ad, i & (PART - 1)])
                if ((x & A_P) != 0 and (v & (live | bit)) == live) == wanted:
                    return i
        p = e
    return end


@jit
def live_anywhere(k: Any, space: int, mask: int) -> bool:
    """True if any page of a mapping space has a bit of ``mask``."""
    for h in range(k.ck.shape[0] - 1):
        key = k.ck[h, CK_KEY]
        if key == -1 or (key >> 36) != space:
            continue
        base = (key & ((1 << 36) - 1)) << CHUNK_BITS
        if next_without(k, space, base, base + CHUNK, mask, 0) < base + CHUNK:
            return True
    return False


@jit
def attr_next(k: Any, vm: int, p: int, end: int, value: int, mask: int, wanted: bool) -> int:
    """First page from ``p`` on whose attribute bits ``mask`` are (``wanted``) or not ``value``."""
    while p < end:
        d, x, e = stretch(k, vm, p, end)
        if d < 0:
            if (x & mask == value) == wanted:
                return p
        else:
            for i in range(p, e):
                if (wide(k.am[d, i & (PART - 1)]) & mask == value) == wanted:
                    return i
        p = e
    return end


@jit
def count_with(k: Any, space: int, p: int, end: int, bit: int) -> int:
    """How many mapping pages of [p, end) have ``bit``."""
    count = 0
    while p < end:
        d, v, e = stretch(k, space, p, end)
        if d < 0:
            if v & bit:
                count += e - p
        else:
            row = k.mm[d]
            for i in range(p & (PART - 1), (p & (PART - 1)) + e - p):
                if wide(row[i]) & bit:
                    count += 1
        p = e
    return count
