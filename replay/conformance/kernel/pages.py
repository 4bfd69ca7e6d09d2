"""What QEMU's bitmap must hold, as far as the trace shows it: a byte a page, in chunks.

A chunk is one value until something smaller than it happens to it.
"""

from __future__ import annotations

from typing import Any

from tracekit.compiled.kernels import jit

from .layout import CHUNK, CHUNK_SHIFT, H_KEY, H_ROW, H_UNIFORM
from .rows import fill_unknown, first_of, states_in

__all__ = ("MOST_CHUNKS", "assign", "classify", "find", "forget", "value_at")

MOST_CHUNKS = 1 << 16
"""Chunks that one request may span: 8 TiB.  A larger one is of unknown state."""


@jit
def _slot(table: Any, key: int) -> int:
    """Where a chunk is in the table, or would be."""
    mask = table.shape[0] - 1
    at = (((key ^ key >> 21) & 0xFFFFFF) * 0x9E3779B1 >> 7) & mask
    while table[at, H_KEY] != -1 and table[at, H_KEY] != key:
        at = (at + 1) & mask
    return at


@jit
def _key(proc: int, chunk: int) -> int:
    return proc << 40 | chunk


@jit
def value_at(table: Any, data: Any, proc: int, page: int) -> int:
    """The page's state."""
    at = _slot(table, _key(proc, page >> CHUNK_SHIFT))
    if table[at, H_KEY] == -1:
        return 0
    if table[at, H_ROW] < 0:
        return table[at, H_UNIFORM]
    return data[table[at, H_ROW], page & (CHUNK - 1)]


@jit
def classify(table: Any, data: Any, proc: int, lo: int, hi: int) -> int:
    """Which states are in pages [lo, hi): bit 0 unknown, 1 private, 2 shared, 3 shared, map
    failed."""
    found = 0
    if (hi - lo) >> CHUNK_SHIFT > MOST_CHUNKS:
        return 1
    page = lo
    while page < hi:
        end = min(hi, ((page >> CHUNK_SHIFT) + 1) << CHUNK_SHIFT)
        at = _slot(table, _key(proc, page >> CHUNK_SHIFT))
        if table[at, H_KEY] == -1:
            found |= 1
        elif table[at, H_ROW] < 0:
            found |= 1 << table[at, H_UNIFORM]
        else:
            first, last = page & (CHUNK - 1), ((end - 1) & (CHUNK - 1)) + 1
            found |= states_in(data, table[at, H_ROW], first, last)
        page = end
    return found


@jit
def find(table: Any, data: Any, proc: int, lo: int, hi: int, states: int) -> int:
    """The first page in [lo, hi) whose state's bit is in ``states`` (as in classify()), or hi."""
    if (hi - lo) >> CHUNK_SHIFT > MOST_CHUNKS:
        return hi
    page = lo
    while page < hi:
        end = min(hi, ((page >> CHUNK_SHIFT) + 1) << CHUNK_SHIFT)
        at = _slot(table, _key(proc, page >> CHUNK_SHIFT))
        uniform = 0 if table[at, H_KEY] == -1 else table[at, H_UNIFORM]
        row = -1 if table[at, H_KEY] == -1 else table[at, H_ROW]
        if row < 0:
            if states >> uniform & 1:
                return page
        else:
            first, last = page & (CHUNK - 1), ((end - 1) & (CHUNK - 1)) + 1
            i = first_of(data, row, first, last, states)
            if i < last:
                return page + i - first
        page = end
    return hi


@jit
def forget(table: Any, data: Any, proc: int) -> None:
    """Nothing is known of the process's pages; of all processes' with -1."""
    for i in range(table.shape[0]):
        if table[i, H_KEY] != -1 and (proc < 0 or table[i, H_KEY] >> 40 == proc):
            if table[i, H_ROW] >= 0:
                data[table[i, H_ROW], :] = 0
            else:
                table[i, H_UNIFORM] = 0


@jit
def assign(
    table: Any, data: Any, counts: Any, proc: int, lo: int, hi: int, value: int, unknown_only: int
) -> None:
    """Make pages [lo, hi) ``value``; with ``unknown_only`` those of which nothing is known.

    ``counts``: chunks and rows in use.  Where there is no room the pages stay as they are known,
    or unknown: the caller sees to it that there is room for what a host can have.
    """
    if (hi - lo) >> CHUNK_SHIFT > MOST_CHUNKS:
        return
    page = lo
    while page < hi:
        end = min(hi, ((page >> CHUNK_SHIFT) + 1) << CHUNK_SHIFT)
        at = _slot(table, _key(proc, page >> CHUNK_SHIFT))
        fresh = table[at, H_KEY] == -1
        whole = end - page == CHUNK
        if fresh:
            if counts[0] * 4 >= table.shape[0] * 3:
                page = end
                continue
            counts[0] += 1
            table[at, H_KEY] = _key(proc, page >> CHUNK_SHIFT)
            table[at, H_UNIFORM], table[at, H_ROW] = 0, -1
        row = table[at, H_ROW]
        if row < 0 and (table[at, H_UNIFORM] == value or (unknown_only and table[at, H_UNIFORM])):
            page = end
            continue
        if row < 0 and whole:
            table[at, H_UNIFORM] = value
            page = end
            continue
        if row < 0:
            if counts[1] >= data.shape[0]:
                table[at, H_UNIFORM] = 0  # no room: nothing is known of it any more
                page = end
                continue
            row = counts[1]
            counts[1] += 1
            table[at, H_ROW] = row
            data[row, :] = table[at, H_UNIFORM]
        first, last = page & (CHUNK - 1), ((end - 1) & (CHUNK - 1)) + 1
        if unknown_only:
            fill_unknown(data, row, first, last, value)
        else:
            data[row, first:last] = value
        page = end
