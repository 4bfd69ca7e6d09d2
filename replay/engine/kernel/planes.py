"""Planes of pages in chunks of 1 GiB: a chunk is one value until something smaller happens to
it."""

from __future__ import annotations

from typing import Any

import numpy as np

from ._jit import jit
from .layout import *


@jit
def wide(value: Any) -> int:
    """A page's byte or word as the integer type that everything else has."""
    out: Any = np.int64(value)
    return out


@jit
def tally(k: Any, code: int, reason: int) -> None:
    """One more judged (or not, with the reason)."""
    k.g[J0 + code * Y_COLS + reason] += 1


@jit
def sane(addr: int, size: int) -> bool:
    """True for a range that can be added up: compiled integers must never overflow."""
    return 0 <= addr <= (1 << 60) and 0 < size <= (1 << 60)


@jit
def spans(addr: int, size: int) -> int:
    """How many chunks a sane range touches at most."""
    return ((addr + size) >> 30) - (addr >> 30) + 2


@jit
def find_chunk(k: Any, space: int, number: int) -> int:
    """Index of the chunk in the hash, or -1."""
    key = (space << 36) | number
    mask = k.ck.shape[0] - 1
    h = (number * 31 + space * 0x9E37) & mask
    while True:
        at = k.ck[h, CK_KEY]
        if at == key:
            return h
        if at == -1:
            return -1
        h = (h + 1) & mask


@jit
def make_chunk(k: Any, space: int, number: int) -> int:
    """Index of the chunk, made with its space's default value if it is not there."""
    key = (space << 36) | number
    mask = k.ck.shape[0] - 1
    h = (number * 31 + space * 0x9E37) & mask
    while True:
        at = k.ck[h, CK_KEY]
        if at == key:
            return h
        if at == -1:
            break
        h = (h + 1) & mask
    k.ck[h, CK_KEY] = key
    k.ck[h, CK_VAL] = k.S[space, S_DEFAULT]
    k.ck[h, CK_SLOT] = -1
    k.g[G_CHUNKS] += 1
    return h


@jit
def dense_map(k: Any, h: int) -> int:
    """Row of the chunk in ``mm``; spreads its one value over all pages first if need be."""
    slot = k.ck[h, CK_SLOT]
    if slot < 0:
        slot = k.g[G_MM]
        k.g[G_MM] += 1
        k.mm[slot, :] = k.ck[h, CK_VAL]
        k.ck[h, CK_SLOT] = slot
    return slot


@jit
def dense_attr(k: Any, h: int) -> int:
    """Row of the chunk in ``am``; likewise."""
    slot = k.ck[h, CK_SLOT]
    if slot < 0:
        slot = k.g[G_AM]
        k.g[G_AM] += 1
        k.am[slot, :] = k.ck[h, CK_VAL]
        k.ck[h, CK_SLOT] = slot
    return slot


@jit
def turned(op: int, v: int, arg: int) -> int:
    """A mapping page's value after the transform ``op``."""
    if op == X_MAP_EVENT:
        if v & M_KI and v & M_I:
            return v + M_COUNT_ONE if (v & M_COUNT) != M_COUNT else v
        if not v & M_E:
            v &= ~M_DELTA  # what it was when it was last entered says nothing any more
        return (v | M_KI | M_I | arg) & ~M_COUNT
    if op == X_UNMAP_EVENT:
        if v & M_I and v & M_COUNT:
            return v - M_COUNT_ONE
        return (v & ~(M_I | M_COUNT)) | M_KI
    if op == X_ENTER:
        return (v & ~(M_FIRST | M_DELTA)) | M_KE | M_E | M_C | (arg << M_DELTA_SHIFT)
    if op == X_LEAVE:
        if not v & (M_E | M_I):
            v &= ~M_C
        if v & M_I:
            v &= ~M_DELTA
        return (v & ~(M_E | M_FIRST)) | M_KE
    if op == X_UNCOVER:
        return v if v & (M_E | M_I) else v & ~M_C
    if op == X_FORGET:
        return v & ~(M_STATE | M_DELTA)
    if op == X_FORGET_ENTRY:
        return v & ~(M_KE | M_E | M_FIRST | M_DELTA)
    if op == X_UNTRANSLATE:
        return (v & ~(M_I | M_COUNT)) | M_KI
    if op == X_SET:
        return v | arg
    if op == X_CLEAR:
        return v & ~arg
    return v


@jit
def apply_map(k: Any, space: int, a: int, b: int, op: int, arg: int) -> tuple[int, int]:
    """Transform the mapping pages [a, b); the OR and the AND of their values before."""
    some, every = 0, 0xFFFFFFFF
    p = a
    while p < b:
        number = p >> CHUNK_BITS
        base = number << CHUNK_BITS
        e = min(b, base + CHUNK)
        h = find_chunk(k, space, number)
        slot = -1 if h < 0 else k.ck[h, CK_SLOT]
        if slot < 0:
            v = k.S[space, S_DEFAULT] if h < 0 else k.ck[h, CK_VAL]
            some |= v
            every &= v
            w = turned(op, v, arg)
            if w != v:
                if h < 0:
                    h = make_chunk(k, space, number)
                if e - p == CHUNK:
                    k.ck[h, CK_VAL] = w
                else:
                    slot = dense_map(k, h)
                    k.mm[slot, p - base : e - base] = w
        else:
            row = k.mm[slot]
            for i in range(p - base, e - base):
                v = wide(row[i])
                some |= v
                every &= v
                row[i] = turned(op, v, arg)
        p = e
    return some, every


@jit
def map_at(k: Any, space: int, p: int) -> int:
    """A mapping page's value."""
    h = find_chunk(k, space, p >> CHUNK_BITS)
    if h < 0:
        return k.S[space, S_DEFAULT]
    slot = k.ck[h, CK_SLOT]
    if slot < 0:
        return k.ck[h, CK_VAL]
    return wide(k.mm[slot, p & (CHUNK - 1)])


@jit
def changed(v: int, value: int) -> int:
    """An attribute page's value after a change from ``v``."""
    return value | A_W if (v ^ value) & A_P else value


@jit
def set_attr(k: Any, space: int, a: int, b: int, value: int) -> tuple[int, int]:
    """Set the attribute pages [a, b) to ``value``; the OR and the AND of their values before."""
    some, every = 0, 0xFF
    p = a
    while p < b:
        number = p >> CHUNK_BITS
        base = number << CHUNK_BITS
        e = min(b, base + CHUNK)
        h = find_chunk(k, space, number)
        slot = -1 if h < 0 else k.ck[h, CK_SLOT]
        if slot < 0:
            v = k.S[space, S_DEFAULT] if h < 0 else k.ck[h, CK_VAL]
            some |= v
            every &= v
            w = changed(v, value)
            if v != w:
                if h < 0:
                    h = make_chunk(k, space, number)
                if e - p == CHUNK:
                    k.ck[h, CK_VAL] = w
                else:
                    slot = dense_attr(k, h)
                    k.am[slot, p - base : e - base] = w
        else:
            row = k.am[slot]
            for i in range(p - base, e - base):
                v = wide(row[i])
                some |= v
                every &= v
                row[i] = changed(v, value)
        p = e
    return some, every


@jit
def attr_bits(k: Any, space: int, a: int, b: int) -> tuple[int, int]:
    """The OR and the AND of the attribute pages [a, b)."""
    some, every = 0, 0xFF
    p = a
    while p < b:
        number = p >> CHUNK_BITS
        base = number << CHUNK_BITS
        e = min(b, base + CHUNK)
        h = find_chunk(k, space, number)
        slot = -1 if h < 0 else k.ck[h, CK_SLOT]
        if slot < 0:
            v = k.S[space, S_DEFAULT] if h < 0 else k.ck[h, CK_VAL]
            some |= v
            every &= v
        else:
            row = k.am[slot]
            for i in range(p - base, e - base):
                some |= row[i]
                every &= row[i]
        p = e
    return some, every


@jit
def mark_stale(
    k: Any, vm: int, space: int, a: int, b: int, live: int, delta: int, bit: int
) -> tuple[int, int, int]:
    """Set ``bit`` on the pages of [a, b) that are live now and not private yet.

    How many, the first and the one after the last.  ``delta``: only those with this backing; -1:
    with any.
    """
    count, lo, hi = 0, b, a
    p = a
    while p < b:
        number = p >> CHUNK_BITS
        base = number << CHUNK_BITS
        e = min(b, base + CHUNK)
        h = find_chunk(k, space, number)
        if h < 0:  # a space's default is never live
            p = e
            continue
        ah = find_chunk(k, vm, number)
        aslot = -1 if ah < 0 else k.ck[ah, CK_SLOT]
        av = k.S[vm, S_DEFAULT] if ah < 0 else k.ck[ah, CK_VAL]
        slot = k.ck[h, CK_SLOT]
        if slot < 0:
            v = k.ck[h, CK_VAL]
            if not v & live or v & bit or (delta >= 0 and (v >> M_DELTA_SHIFT) != delta):
                p = e
                continue
            if aslot < 0:
                if av & A_P:
                    p = e
                    continue
                if e - p == CHUNK:
                    k.ck[h, CK_VAL] |= bit
                    count += CHUNK
                    lo = min(lo, p)
                    hi = e
                    p = e
                    continue
            slot = dense_map(k, h)
        row = k.mm[slot]
        for i in range(p - base, e - base):
            v = wide(row[i])
            if v & live and not v & bit and (delta < 0 or (v >> M_DELTA_SHIFT) == delta):
                x = wide(k.am[aslot, i]) if aslot >= 0 else av
                if not x & A_P:
                    row[i] = v | bit
                    count += 1
                    lo = min(lo, base + i)
                    hi = base + i + 1
        p = e
    return count, lo, hi


@jit
def mark_live(
    k: Any, space: int, a: int, b: int, live: int, delta: int, without: int, bit: int
) -> tuple[int, int, int]:
    """Set ``bit`` on the live pages of [a, b) whose entry has backing ``delta`` and that lack
    ``without``."""
    count, lo, hi = 0, b, a
    p = a
    while p < b:
        number = p >> CHUNK_BITS
        base = number << CHUNK_BITS
        e = min(b, base + CHUNK)
        h = find_chunk(k, space, number)
        if h < 0:
            p = e
            continue
        slot = k.ck[h, CK_SLOT]
        if slot < 0:
            v = k.ck[h, CK_VAL]
            if not v & live or (v >> M_DELTA_SHIFT) != delta or v & without:
                p = e
                continue
            if e - p == CHUNK:
                k.ck[h, CK_VAL] = v | bit
                count += CHUNK
                lo = min(lo, p)
                hi = e
                p = e
                continue
            slot = dense_map(k, h)
        row = k.mm[slot]
        for i in range(p - base, e - base):
            v = wide(row[i])
            if v & live and (v >> M_DELTA_SHIFT) == delta and not v & without:
                row[i] = v | bit
                count += 1
                lo = min(lo, base + i)
                hi = base + i + 1
        p = e
    return count, lo, hi


@jit
def transform_all(k: Any, space: int, op: int, arg: int, default: int) -> tuple[int, int]:
    """Transform every page of a mapping space, and its default; OR and AND of what was there."""
    some = k.S[space, S_DEFAULT]
    every = k.S[space, S_DEFAULT]
    k.S[space, S_DEFAULT] = default
    for h in range(k.ck.shape[0]):
        key = k.ck[h, CK_KEY]
        if key == -1 or (key >> 36) != space:
            continue
        slot = k.ck[h, CK_SLOT]
        if slot < 0:
            v = k.ck[h, CK_VAL]
            some |= v
            every &= v
            k.ck[h, CK_VAL] = turned(op, v, arg)
        else:
            row = k.mm[slot]
            for i in range(CHUNK):
                v = wide(row[i])
                some |= v
                every &= v
                row[i] = turned(op, v, arg)
    return some, every


@jit
def forget_planes(k: Any) -> None:
    """Make every page of every space unknown."""
    k.ck[:, CK_KEY] = -1
    k.g[G_CHUNKS] = 0
    k.g[G_MM] = 0
    k.g[G_AM] = 0
    for s in range(k.g[G_SPACES]):
        k.S[s, S_DEFAULT] = 0
        k.S[s, S_ENTRIES] = NULL
