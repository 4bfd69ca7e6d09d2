"""Records of a perf.data -> where each tracepoint's record lies, when it was, and on which CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ("ALIGN", "END", "FAULTS", "FULL", "MAX_CPUS", "SPECIAL", "copy", "copy_plain", "walk")

END = 0
"""The next record is not wholly there."""
SPECIAL = 1
"""The next record is no sample, and means something; or there are no layouts for samples."""
FULL = 2
"""There is no room for another sample."""
ALIGN = 3
"""The next record is a sample that does not begin on a multiple of four."""

FAULTS = {
    10: "a record is shorter than its header",
    11: "a sample is shorter than its fields",
    12: "a sample's raw data run past its end",
    13: "a sample's raw data are shorter than a tracepoint's common header",
    14: "a sample's raw data are of another event than the sample",
    15: "a sample's time is past 63 bits",
    16: "a sample is of a CPU with too high a number",
}
"""What :func:`walk` found wrong, by its result."""
MAX_CPUS = 8192


def walk(
    data: Any,
    words: Any,
    length: int,
    base: int,
    id_place: int,
    ids: npt.NDArray[np.int64],
    of_id: npt.NDArray[np.int64],
    layouts: npt.NDArray[np.int64],
    ts: npt.NDArray[np.int64],
    at: npt.NDArray[np.int64],
    size: npt.NDArray[np.uint16],
    cpus: npt.NDArray[np.int32],
    last: npt.NDArray[np.int64],
    counts: npt.NDArray[np.int64],
    state: npt.NDArray[np.int64],
) -> int:
    """Take the samples in ``data`` until something stops it; one of the names above.

    ``words``: the same ``length`` bytes as u32; they lie at ``base`` in the file.  ``ids`` (sorted)
    and ``of_id`` say which row of ``layouts`` a sample's id belongs to: whether it is a tracepoint,
    the places of its time and CPU among the eight-byte fields, how many of those there are, whether
    READ follows, its format, whether CALLCHAIN follows, the tracepoint's number.  ``at`` gets the
    raw data's place in the file.  ``last`` [CPU]: time of its last sample here, -1 none.
    ``counts``: samples by row, behind them those of unknown ids.  ``state``: the next record in
    ``data``, samples so far.  Of mappings only the kernel's are special, whose process is -1.

    A kernel: see :mod:`tracekit.compiled.kernels`.
    """
    p = state[0]
    n = state[1]
    room = min(len(ts), len(at))
    rows = len(layouts)
    result = 0
    while p + 8 <= length:
        if p & 3 == 0:
            w = p >> 2
            kind = words[w] + 0
            total = (words[w + 1] + 0) >> 16
        else:
            w = -1
            kind = 0
            for k in range(4):
                kind |= (data[p + k] + 0) << (8 * k)
            total = (data[p + 6] + 0) | ((data[p + 7] + 0) << 8)
        if total < 8:
            result = 10
            break
        if p + total > length:
            break
        if kind != 9:
            if (
                kind == 2 or kind == 3 or (kind >= 5 and kind <= 7) or kind == 13
                or kind == 64 or kind == 66 or kind == 69 or kind == 71
                or kind == 80 or kind == 81 or kind == 83
                or ((kind == 1 or kind == 10) and total >= 40
                    and data[p + 8] == 0xFF and data[p + 11] == 0xFF)
            ):  # fmt: skip
                result = 1
                break
            p += total
            continue
        if rows == 0:
            result = 1
            break
        if w < 0:
            result = 3
            break
        if n >= room:
            result = 2
            break
        first = w + 2
        end = p + total
        row = 0
        if id_place >= 0:
            q = first + 2 * id_place
            if (q + 2) * 4 > end:
                result = 11
                break
            high = words[q + 1] + 0
            high -= (high & 0x80000000) << 1
            wanted = (words[q] + 0) | (high << 32)
            low = 0
            top = len(ids)
            while low < top:
                middle = (low + top) >> 1
                if ids[middle] < wanted:
                    low = middle + 1
                else:
                    top = middle
            row = rows
            if low < len(ids) and ids[low] == wanted:
                row = of_id[low] + 0
        if row >= rows or layouts[row, 0] == 0:
            counts[row] += 1
            p += total
            continue
        q = first + 2 * layouts[row, 3]
        if q * 4 > end:
            result = 11
            break
        if layouts[row, 4] != 0:
            form = layouts[row, 5]
            each = 1 + ((form >> 2) & 1) + ((form >> 4) & 1)
            times = (form & 1) + ((form >> 1) & 1)
            if (form >> 3) & 1 != 0:
                if (q + 2) * 4 > end:
                    result = 11
                    break
                members = words[q] + 0
                if words[q + 1] != 0 or members > 8192:
                    result = 11
                    break
                q += 2 * (1 + times + members * each)
            else:
                q += 2 * (times + each)
            if q * 4 > end:
                result = 11
                break
        if layouts[row, 6] != 0:
            if (q + 2) * 4 > end:
                result = 11
                break
            members = words[q] + 0
            if words[q + 1] != 0 or members > 8192:
                result = 11
                break
            q += 2 + 2 * members
        if (q + 1) * 4 > end:
            result = 11
            break
        raw = words[q] + 0
        begin = (q + 1) * 4
        if raw > end - begin:
            result = 12
            break
        if raw < 8:
            result = 13
            break
        if words[q + 1] & 0xFFFF != layouts[row, 7]:
            result = 14
            break
        q = first + 2 * layouts[row, 1]
        high = words[q + 1] + 0
        if high > 0x7FFFFFFF:
            result = 15
            break
        now = (words[q] + 0) | (high << 32)
        cpu = words[first + 2 * layouts[row, 2]] + 0
        if cpu >= len(last):
            result = 16
            break
        ts[n] = now
        at[n] = base + begin
        size[n] = raw
        cpus[n] = cpu
        last[cpu] = now
        counts[row] += 1
        n += 1
        p += total
    state[0] = p
    state[1] = n
    return result


def copy(
    source: Any,
    begin: int,
    target: Any,
    at: npt.NDArray[np.int64],
    size: npt.NDArray[np.int64],
    to: npt.NDArray[np.int64],
) -> int:
    """Copy the pieces that lie ``at`` (``source`` begins at ``begin``) ``to`` their places.

    A kernel: see :mod:`tracekit.compiled.kernels`.
    """
    for i in range(len(at)):
        start = at[i] - begin
        for byte in range(size[i]):
            target[to[i] + byte] = source[start + byte]
    return 0


def copy_plain(
    source: Any,
    begin: int,
    target: Any,
    at: npt.NDArray[np.int64],
    size: npt.NDArray[np.int64],
    to: npt.NDArray[np.int64],
) -> int:
    """:func:`copy` for where it is not compiled, and would go byte by byte."""
    for i in range(len(at)):
        start = at[i] - begin
        target[to[i] : to[i] + size[i]] = source[start : start + size[i]]
    return 0
