"""Planes of pages in chunks of 1 GiB and parts of 2 MiB: a chunk, then a part, is one value until
something smaller happens to it."""

from __future__ import annotations

from typing import Any

import numpy as np

from tracekit.compiled.kernels import jit

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
    mask = k.ck.shape[0] - 2
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
    mask = k.ck.shape[0] - 2
    h = (number * 31 + space * 0x9E37) & mask
    while True:
        at = k.ck[h, CK_KEY]
        if at == key:
            return h
        if at == -1:
            break
        h = (h + 1) & mask
    if k.g[G_CHUNKS] * 8 > mask * 7:
        k.g[G_FULL] = 1
        h = mask + 1  # the row that is never looked up
    else:
        k.ck[h, CK_KEY] = key
        k.g[G_CHUNKS] += 1
    k.ck[h, CK_VAL] = k.S[space, S_DEFAULT]
    k.ck[h, CK_PARTS] = -1
    return h


@jit
def parts_of(k: Any, space: int, p: int) -> int:
    """Row in ``ct`` of the page's chunk; spreads its one value over all parts first if need be."""
    h = make_chunk(k, space, p >> CHUNK_BITS)
    row = k.ck[h, CK_PARTS]
    if row < 0:
        if k.g[G_CT_FREE]:
            row = k.g[G_CT_FREE] - 1
            k.g[G_CT_FREE] = k.ct[row, 0]
        elif k.g[G_CT] < k.ct.shape[0] - 1:
            row = k.g[G_CT]
            k.g[G_CT] += 1
        else:
            k.g[G_FULL] = 1
            row = k.ct.shape[0] - 1
        k.ct[row, :] = k.ck[h, CK_VAL]
        k.ck[h, CK_PARTS] = row
    return row


@jit
def stretch(k: Any, space: int, p: int, end: int) -> tuple[int, int, int]:
    """The page's row of single pages, or -1 and its value; and up to where that holds (<= end)."""
    number = p >> CHUNK_BITS
    e = min(end, (number + 1) << CHUNK_BITS)
    h = find_chunk(k, space, number)
    if h < 0:
        return -1, k.S[space, S_DEFAULT], e
    row = k.ck[h, CK_PARTS]
    if row < 0:
        return -1, k.ck[h, CK_VAL], e
    c = k.ct[row, (p >> PART_BITS) & (PARTS - 1)]
    e = min(end, ((p >> PART_BITS) + 1) << PART_BITS)
    if c < 0:
        return ~c, 0, e
    return -1, c, e


@jit
def both(k: Any, space: int, vm: int, p: int, end: int) -> tuple[int, int, int, int, int]:
    """``stretch`` of a mapping and of an attribute space: row, value, row, value, end."""
    d, v, e = stretch(k, space, p, end)
    ad, x, e = stretch(k, vm, p, e)
    return d, v, ad, x, e


@jit
def dense_map(k: Any, space: int, p: int) -> int:
    """Row in ``mm`` of the page's part, which is of one value until now."""
    row, part = parts_of(k, space, p), (p >> PART_BITS) & (PARTS - 1)
    if k.g[G_MM_FREE]:
        d = k.g[G_MM_FREE] - 1
        k.g[G_MM_FREE] = wide(k.mm[d, 0])
    elif k.g[G_MM] < k.mm.shape[0] - 1:
        d = k.g[G_MM]
        k.g[G_MM] += 1
    else:
        k.g[G_FULL] = 1
        d = k.mm.shape[0] - 1
    c = k.ct[row, part]
    k.mm[d, :] = c if c >= 0 else 0
    k.ct[row, part] = ~d
    return d


@jit
def dense_attr(k: Any, space: int, p: int) -> int:
    """Row in ``am`` of the page's part; likewise."""
    row, part = parts_of(k, space, p), (p >> PART_BITS) & (PARTS - 1)
    if k.g[G_AM_FREE]:
        d = k.g[G_AM_FREE] - 1
        k.g[G_AM_FREE] = 0
        for i in range(4):  # a row's first bytes are the next free one
            k.g[G_AM_FREE] |= wide(k.am[d, i]) << (8 * i)
    elif k.g[G_AM] < k.am.shape[0] - 1:
        d = k.g[G_AM]
        k.g[G_AM] += 1
    else:
        k.g[G_FULL] = 1
        d = k.am.shape[0] - 1
    c = k.ct[row, part]
    k.am[d, :] = c if c >= 0 else 0
    k.ct[row, part] = ~d
    return d


@jit
def free_map(k: Any, d: int) -> None:
    """Nobody uses the row of ``mm`` any more."""
    if d < k.mm.shape[0] - 1:
        k.mm[d, 0] = k.g[G_MM_FREE]
        k.g[G_MM_FREE] = d + 1


@jit
def free_attr(k: Any, d: int) -> None:
    """Nobody uses the row of ``am`` any more."""
    if d < k.am.shape[0] - 1:
        for i in range(4):
            k.am[d, i] = (k.g[G_AM_FREE] >> (8 * i)) & 255
        k.g[G_AM_FREE] = d + 1


@jit
def put_map(k: Any, space: int, p: int, end: int, value: int) -> None:
    """Give a value to the mapping pages [p, end), which lie in one stretch of one value."""
    if end - p == CHUNK:
        k.ck[make_chunk(k, space, p >> CHUNK_BITS), CK_VAL] = value
        return
    while p < end:
        e = min(end, ((p >> PART_BITS) + 1) << PART_BITS)
        if e - p == PART:
            k.ct[parts_of(k, space, p), (p >> PART_BITS) & (PARTS - 1)] = value
        else:
            d = dense_map(k, space, p)
            k.mm[d, p & (PART - 1) : (p & (PART - 1)) + e - p] = value
        p = e


@jit
def put_attr(k: Any, space: int, p: int, end: int, value: int) -> None:
    """Give a value to the attribute pages [p, end), which lie in one stretch of one value."""
    if end - p == CHUNK:
        k.ck[make_chunk(k, space, p >> CHUNK_BITS), CK_VAL] = value
        return
    while p < end:
        e = min(end, ((p >> PART_BITS) + 1) << PART_BITS)
        if e - p == PART:
            k.ct[parts_of(k, space, p), (p >> PART_BITS) & (PARTS - 1)] = value
        else:
            d = dense_attr(k, space, p)
            k.am[d, p & (PART - 1) : (p & (PART - 1)) + e - p] = value
        p = e


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
def turn_row(k: Any, d: int, first: int, last: int, op: int, arg: int) -> tuple[int, int, int, int]:
    """Transform the pages [first, last) of a row of ``mm``.

    The OR and the AND of their values before, and of those after.
    """
    some, every, some2, every2 = 0, 0xFFFFFFFF, 0, 0xFFFFFFFF
    row = k.mm[d]
    for i in range(first, last):
        v = wide(row[i])
        w = turned(op, v, arg)
        row[i] = w
        some |= v
        every &= v
        some2 |= w
        every2 &= w
    return some, every, some2, every2


@jit
def look_row(k: Any, d: int, first: int, last: int) -> tuple[int, int]:
    """The OR and the AND of the pages [first, last) of a row of ``mm``."""
    some, every = 0, 0xFFFFFFFF
    row = k.mm[d]
    for i in range(first, last):
        v = wide(row[i])
        some |= v
        every &= v
    return some, every


@jit
def apply_map(k: Any, space: int, a: int, b: int, op: int, arg: int) -> tuple[int, int]:
    """Transform the mapping pages [a, b); the OR and the AND of their values before."""
    some, every = 0, 0xFFFFFFFF
    p = a
    while p < b:
        d, v, e = stretch(k, space, p, b)
        if d < 0:
            some |= v
            every &= v
            w = turned(op, v, arg)
            if w != v:
                put_map(k, space, p, e, w)
        else:
            first = p & (PART - 1)
            if op == X_NONE:
                x, y = look_row(k, d, first, first + e - p)
            else:
                x, y, w, z = turn_row(k, d, first, first + e - p, op, arg)
                if w == z and e - p == PART:
                    free_map(k, d)
                    k.ct[parts_of(k, space, p), (p >> PART_BITS) & (PARTS - 1)] = w
            some |= x
            every &= y
        p = e
    return some, every


@jit
def map_at(k: Any, space: int, p: int) -> int:
    """A mapping page's value."""
    d, v, _ = stretch(k, space, p, p + 1)
    return wide(k.mm[d, p & (PART - 1)]) if d >= 0 else v


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
        d, v, e = stretch(k, space, p, b)
        if d < 0:
            some |= v
            every &= v
            w = changed(v, value)
            if v != w:
                put_attr(k, space, p, e, w)
        else:
            x, y = 0, 0xFF
            row = k.am[d]
            for i in range(p & (PART - 1), (p & (PART - 1)) + e - p):
                v = wide(row[i])
                x |= v
                y &= v
                row[i] = changed(v, value)
            if e - p == PART and not (x ^ y) & A_P:
                free_attr(k, d)
                k.ct[parts_of(k, space, p), (p >> PART_BITS) & (PARTS - 1)] = changed(x, value)
            some |= x
            every &= y
        p = e
    return some, every


@jit
def attr_bits(k: Any, space: int, a: int, b: int) -> tuple[int, int]:
    """The OR and the AND of the attribute pages [a, b)."""
    some, every = 0, 0xFF
    p = a
    while p < b:
        d, v, e = stretch(k, space, p, b)
        if d < 0:
            some |= v
            every &= v
        else:
            row = k.am[d]
            for i in range(p & (PART - 1), (p & (PART - 1)) + e - p):
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
        d, v, e = stretch(k, space, p, b)
        if d < 0 and (not v & live or v & bit or (delta >= 0 and (v >> M_DELTA_SHIFT) != delta)):
            p = e
            continue
        ad, x, e = stretch(k, vm, p, e)
        if ad < 0 and x & A_P:
            p = e
            continue
        if d < 0 and ad < 0:
            put_map(k, space, p, e, v | bit)
            count += e - p
            lo = min(lo, p)
            hi = e
            p = e
            continue
        if d < 0:
            d = dense_map(k, space, p)
        row = k.mm[d]
        for i in range(p, e):
            v = wide(row[i & (PART - 1)])
            if v & live and not v & bit and (delta < 0 or (v >> M_DELTA_SHIFT) == delta):
                if ad >= 0:
                    x = wide(k.am[ad, i & (PART - 1)])
                if not x & A_P:
                    row[i & (PART - 1)] = v | bit
                    count += 1
                    lo = min(lo, i)
                    hi = i + 1
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
        d, v, e = stretch(k, space, p, b)
        if d < 0:
            if v & live and (v >> M_DELTA_SHIFT) == delta and not v & without:
                put_map(k, space, p, e, v | bit)
                count += e - p
                lo = min(lo, p)
                hi = e
            p = e
            continue
        row = k.mm[d]
        for i in range(p, e):
            v = wide(row[i & (PART - 1)])
            if v & live and (v >> M_DELTA_SHIFT) == delta and not v & without:
                row[i & (PART - 1)] = v | bit
                count += 1
                lo = min(lo, i)
                hi = i + 1
        p = e
    return count, lo, hi


@jit
def transform_all(k: Any, space: int, op: int, arg: int, default: int) -> tuple[int, int]:
    """Transform every page of a mapping space, and its default; OR and AND of what was there.

    A trace that asks for more of this than any machine's does has the planes forgotten.
    """
    some = k.S[space, S_DEFAULT]
    every = k.S[space, S_DEFAULT]
    k.S[space, S_DEFAULT] = default
    if k.g[G_WORK] > MOST_WORK:
        k.g[G_FULL] = 1
        return some, 0
    k.g[G_WORK] += k.ck.shape[0]
    for h in range(k.ck.shape[0] - 1):
        key = k.ck[h, CK_KEY]
        if key == -1 or (key >> 36) != space:
            continue
        row = k.ck[h, CK_PARTS]
        if row < 0:
            v = k.ck[h, CK_VAL]
            some |= v
            every &= v
            k.ck[h, CK_VAL] = turned(op, v, arg)
            continue
        k.g[G_WORK] += PARTS
        for part in range(PARTS):
            c = k.ct[row, part]
            if c >= 0:
                some |= c
                every &= c
                k.ct[row, part] = turned(op, c, arg)
            else:
                k.g[G_WORK] += PART
                x, y, w, z = turn_row(k, ~c, 0, PART, op, arg)
                some |= x
                every &= y
                if w == z:
                    free_map(k, ~c)
                    k.ct[row, part] = w
    return some, every


@jit
def forget_attributes_of(k: Any, vm: int) -> None:
    """Make every attribute of a VM unknown."""
    k.S[vm, S_DEFAULT] = 0
    for h in range(k.ck.shape[0] - 1):
        if k.ck[h, CK_KEY] == -1 or (k.ck[h, CK_KEY] >> 36) != vm:
            continue
        k.ck[h, CK_VAL] = 0
        row = k.ck[h, CK_PARTS]
        if row < 0:
            continue
        k.ck[h, CK_PARTS] = -1
        for part in range(PARTS):
            if k.ct[row, part] < 0:
                free_attr(k, ~k.ct[row, part])
        if row < k.ct.shape[0] - 1:
            k.ct[row, 0] = k.g[G_CT_FREE]
            k.g[G_CT_FREE] = row + 1


@jit
def forget_planes(k: Any) -> None:
    """Make every page of every space unknown."""
    k.ck[:, CK_KEY] = -1
    k.g[G_CHUNKS] = 0
    k.g[G_CT] = k.g[G_CT_FREE] = 0
    k.g[G_MM] = k.g[G_MM_FREE] = 0
    k.g[G_AM] = k.g[G_AM_FREE] = 0
    for s in range(k.g[G_SPACES]):
        k.S[s, S_DEFAULT] = 0
        k.S[s, S_ENTRIES] = NULL
