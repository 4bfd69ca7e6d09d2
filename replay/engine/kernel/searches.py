"""Looking for pages: the next one that is, or is not, in a state."""

from __future__ import annotations

from typing import Any

from ._jit import jit
from .layout import *
from .planes import find_chunk, wide


@jit
def next_where(k: Any, space: int, p: int, end: int, mask: int, value: int, wanted: bool) -> int:
    """First page from ``p`` on of which ``page & mask == value`` is ``wanted``; ``end`` if none."""
    while p < end:
        number = p >> CHUNK_BITS
        base = number << CHUNK_BITS
        e = min(end, base + CHUNK)
        h = find_chunk(k, space, number)
        slot = -1 if h < 0 else k.ck[h, CK_SLOT]
        if slot < 0:
            v = k.S[space, S_DEFAULT] if h < 0 else k.ck[h, CK_VAL]
            if ((v & mask) == value) == wanted:
                return p
        else:
            row = k.mm[slot]
            for i in range(p - base, e - base):
                if ((wide(row[i]) & mask) == value) == wanted:
                    return base + i
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
        number = p >> CHUNK_BITS
        base = number << CHUNK_BITS
        e = min(end, base + CHUNK)
        h, ah = find_chunk(k, space, number), find_chunk(k, vm, number)
        slot = -1 if h < 0 else k.ck[h, CK_SLOT]
        aslot = -1 if ah < 0 else k.ck[ah, CK_SLOT]
        v = k.S[space, S_DEFAULT] if h < 0 else k.ck[h, CK_VAL]
        x = k.S[vm, S_DEFAULT] if ah < 0 else k.ck[ah, CK_VAL]
        if slot < 0 and aslot < 0:
            if ((x & A_P) != 0 and (v & (live | bit)) == live) == wanted:
                return p
        else:
            for i in range(p - base, e - base):
                if slot >= 0:
                    v = wide(k.mm[slot, i])
                if aslot >= 0:
                    x = wide(k.am[aslot, i])
                if ((x & A_P) != 0 and (v & (live | bit)) == live) == wanted:
                    return base + i
        p = e
    return end


@jit
def live_anywhere(k: Any, space: int, mask: int) -> bool:
    """True if any page of a mapping space has a bit of ``mask``."""
    for h in range(k.ck.shape[0]):
        key = k.ck[h, CK_KEY]
        if key == -1 or (key >> 36) != space:
            continue
        slot = k.ck[h, CK_SLOT]
        if slot < 0:
            if k.ck[h, CK_VAL] & mask:
                return True
        else:
            row = k.mm[slot]
            for i in range(CHUNK):
                if wide(row[i]) & mask:
                    return True
    return False


@jit
def attr_next(k: Any, vm: int, p: int, end: int, value: int, mask: int, wanted: bool) -> int:
    """First page from ``p`` on whose attribute bits ``mask`` are (``wanted``) or not ``value``."""
    while p < end:
        number = p >> CHUNK_BITS
        base = number << CHUNK_BITS
        e = min(end, base + CHUNK)
        h = find_chunk(k, vm, number)
        slot = -1 if h < 0 else k.ck[h, CK_SLOT]
        if slot < 0:
            x = k.S[vm, S_DEFAULT] if h < 0 else k.ck[h, CK_VAL]
            if (x & mask == value) == wanted:
                return p
        else:
            for i in range(p - base, e - base):
                if (wide(k.am[slot, i]) & mask == value) == wanted:
                    return base + i
        p = e
    return end


@jit
def count_with(k: Any, space: int, p: int, end: int, bit: int) -> int:
    """How many mapping pages of [p, end) have ``bit``."""
    count = 0
    while p < end:
        number = p >> CHUNK_BITS
        base = number << CHUNK_BITS
        e = min(end, base + CHUNK)
        h = find_chunk(k, space, number)
        slot = -1 if h < 0 else k.ck[h, CK_SLOT]
        if slot < 0:
            v = k.S[space, S_DEFAULT] if h < 0 else k.ck[h, CK_VAL]
            if v & bit:
                count += e - p
        else:
            row = k.mm[slot]
            for i in range(p - base, e - base):
                if wide(row[i]) & bit:
                    count += 1
        p = e
    return count
