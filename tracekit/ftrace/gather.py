"""Records of several CPUs -> rows in time order, as column arrays.

One kernel does both: it takes the CPU whose next record is the earliest (equal times: the lower
stream) and runs the record's recipe.  It stops when a batch is full, a CPU's records are used up,
or an event was never seen before, and is called again.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ("DONE", "FULL", "NEED", "RESOLVE", "SHORT", "gather")

DONE = 0
"""All streams are finished."""
FULL = 1
"""The batch, or the list of texts, is full."""
NEED = 2
"""Stream ``state[2]`` has no record left and is not finished."""
RESOLVE = 3
"""The next record of stream ``state[2]`` is of an event (or probe) never seen before."""
SHORT = 4
"""The next record of stream ``state[2]`` is shorter than its format says."""


def gather(
    pages: Any,
    words: Any,
    ts: npt.NDArray[np.int64],
    at: npt.NDArray[np.int32],
    size: npt.NDArray[np.int32],
    until: npt.NDArray[np.int64],
    lost: npt.NDArray[np.int64],
    head: npt.NDArray[np.int64],
    tail: npt.NDArray[np.int64],
    finished: npt.NDArray[np.int64],
    cpus: npt.NDArray[np.int32],
    kind_of: npt.NDArray[np.int64],
    kinds: npt.NDArray[np.int64],
    steps: npt.NDArray[np.int64],
    cases: npt.NDArray[np.int64],
    comm_tids: npt.NDArray[np.int64],
    comm_of: npt.NDArray[np.int32],
    marks: npt.NDArray[np.int64],
    seen: npt.NDArray[np.int64],
    rows_of: npt.NDArray[np.int64],
    doubted: npt.NDArray[np.int64],
    out_ts: npt.NDArray[np.int64],
    out_cpu: npt.NDArray[np.int32],
    out_tid: npt.NDArray[np.int32],
    out_comm: npt.NDArray[np.int32],
    out_source: npt.NDArray[np.int32],
    out_event: npt.NDArray[np.int32],
    out_context: npt.NDArray[np.uint8],
    values: npt.NDArray[np.int64],
    valid: npt.NDArray[np.uint8],
    filled: npt.NDArray[np.int64],
    texts: npt.NDArray[np.int64],
    state: npt.NDArray[np.int64],
) -> int:
    """Append rows until something stops it; which of the names above.

    ``pages`` [stream, byte] and ``words`` [stream, u32] are the same memory; ``ts`` ... ``lost``
    [stream, n] are those of :class:`tracekit.ftrace.ring_buffer.Records`.  ``head`` and ``tail``
    say which records are left.  ``marks``: event index of trace.lost and trace.clock_back, column
    index of until_ns and count. ``seen`` counts records by event number, ``rows_of`` rows by kind,
    ``doubted`` values that could not be, by kind.  ``comm_of`` -1: unknown.  ``values`` and
    ``valid`` (bits) are [column, row]; ``filled`` counts a column's values.  ``texts`` rows: row,
    column, stream, first byte, bytes.  ``state``: rows so far, texts so far, the stream that needs
    something.  A kernel: see :mod:`tracekit.compiled.kernels`.
    """
    streams = len(head)
    room = len(out_ts)
    text_room = len(texts)
    page_bytes = pages.shape[1]
    columns = values.shape[0]
    row = state[0]
    n_texts = state[1]
    tid_before = -1
    comm_before = -1
    result = 0
    while True:
        # The earliest stream, and how far it may run before another one is earlier.
        best = -1
        second = -1
        for s in range(streams):
            if head[s] >= tail[s]:
                if finished[s] == 0:
                    state[0] = row
                    state[1] = n_texts
                    state[2] = s
                    return 2
                continue
            if best < 0 or ts[s, head[s]] < ts[best, head[best]]:
                second = best
                best = s
            elif second < 0 or ts[s, head[s]] < ts[second, head[second]]:
                second = s
        if best < 0:
            result = 0
            break
        s = best
        bound = 0x7FFFFFFFFFFFFFFF
        if second >= 0:
            bound = ts[second, head[second]]
            if second < s:
                bound -= 1
        i = head[s]
        end = tail[s]
        result = -1
        while i < end:
            now = ts[s, i]
            if now > bound:
                break
            if row >= room or n_texts + 4 > text_room:
                result = 1
                break
            base = at[s, i] + 0
            length = size[s, i] + 0
            if base < 0:
                mark = length
                out_ts[row] = now
                out_cpu[row] = cpus[s]
                out_tid[row] = -1
                out_comm[row] = -1
                out_source[row] = -1
                out_context[row] = 0
                which = 0 if base == -1 else 1
                out_event[row] = marks[which]
                bit = 1 << (row & 7)
                column = marks[2]
                values[column, row] = until[s, mark]
                valid[column, row >> 3] |= bit
                filled[column] += 1
                if base == -1 and lost[s, mark] >= 0:
                    column = marks[3]
                    values[column, row] = lost[s, mark]
                    valid[column, row >> 3] |= bit
                    filled[column] += 1
                row += 1
                i += 1
                continue
            word = base >> 2
            header = words[s, word] + 0
            number = header & 0xFFFF
            kind = kind_of[number]
            while kind >= 0 and kinds[kind, 8] >= 0:
                probe_at = kinds[kind, 8]
                if probe_at + 8 > length:
                    break
                probe_word = (base + probe_at) >> 2
                high_word = words[s, probe_word + 1] + 0
                high_word -= (high_word & 0x80000000) << 1
                probe = (words[s, probe_word] + 0) | (high_word << 32)
                if probe == kinds[kind, 9]:
                    break
                kind = kinds[kind, 10]
            if kind == -2:
                result = 3
                break
            if kind < 0:
                seen[number] += 1
                i += 1
                continue
            if length < kinds[kind, 7] or base + length > page_bytes:
                result = 4
                break
            seen[number] += 1
            if kinds[kind, 0] < 0:
                i += 1
                continue
            tid = words[s, word + 1] + 0
            if tid > 0x7FFFFFFF:
                tid -= 0x100000000
            if tid != tid_before:
                tid_before = tid
                comm_before = -1
                low = 0
                high = len(comm_tids)
                while low < high:
                    middle = (low + high) >> 1
                    if comm_tids[middle] < tid:
                        low = middle + 1
                    else:
                        high = middle
                if low < len(comm_tids) and comm_tids[low] == tid:
                    comm_before = comm_of[low] + 0
            out_ts[row] = now
            out_cpu[row] = cpus[s]
            out_tid[row] = tid
            out_comm[row] = comm_before
            out_source[row] = kinds[kind, 1]
            out_event[row] = kinds[kind, 0]
            out_context[row] = (header >> 16) & 0xFF
            bit = 1 << (row & 7)
            step = kinds[kind, 2]
            step_end = kinds[kind, 3]
            rounds = 2 if kinds[kind, 6] >= 0 else 1
            for part in range(rounds):
                if part == 1:
                    cmd = words[s, (base + kinds[kind, 6]) >> 2] + 0
                    step = 0
                    step_end = 0
                    for case in range(kinds[kind, 4], kinds[kind, 5]):
                        if cases[case, 0] == cmd:
                            step = cases[case, 1]
                            step_end = cases[case, 2]
                            break
                while step < step_end:
                    op = steps[step, 0]
                    column = steps[step, 1]
                    from_byte = base + steps[step, 2]
                    width = steps[step, 3]
                    value = 0
                    if op <= 2:
                        if width == 8 and from_byte & 3 == 0:
                            w = from_byte >> 2
                            high_word = words[s, w + 1] + 0
                            high_word -= (high_word & 0x80000000) << 1
                            value = (words[s, w] + 0) | (high_word << 32)
                        elif width == 4 and from_byte & 3 == 0:
                            value = words[s, from_byte >> 2] + 0
                        else:
                            for k in range(width):
                                byte = pages[s, from_byte + k] + 0
                                if k == 7:
                                    byte -= (byte & 0x80) << 1
                                value |= byte << (8 * k)
                        if steps[step, 4] != 0 and width < 8:
                            top = 1 << (8 * width - 1)
                            value = ((value + top) & (top + top - 1)) - top
                    known = True
                    shift = steps[step, 5]
                    if op == 0:
                        limit = steps[step, 8]
                        if limit != 0 and (value < 0 or value > abs(limit)):
                            known = False
                            if limit > 0:
                                doubted[kind] += 1
                    elif op == 2:
                        stop = 0
                        other = base + steps[step, 6]
                        for k in range(width):
                            byte = pages[s, other + k] + 0
                            if k == 7:
                                byte -= (byte & 0x80) << 1
                            stop |= byte << (8 * k)
                        limit = steps[step, 8]
                        if limit != 0 and (value < 0 or stop <= value or stop > limit):
                            known = False
                            doubted[kind] += 1
                        else:
                            # The difference in two halves: compiled, a sum past 63 bits could be
                            # anything, and in Python it does not wrap.
                            low = (stop & 0xFFFFFFFF) - (value & 0xFFFFFFFF)
                            high = (stop >> 32) - (value >> 32)
                            if low < 0:
                                low += 0x100000000
                                high -= 1
                            high &= 0xFFFFFFFF
                            high -= (high & 0x80000000) << 1
                            span = low | (high << 32)
                            if shift > 0:
                                left = 1 << (63 - shift)
                                low = span & (left - 1)
                                if (span & left) != 0:
                                    low -= left
                                span = low << shift
                            second_column = steps[step, 7]
                            values[second_column, row] = span
                            valid[second_column, row >> 3] |= bit
                            filled[second_column] += 1
                    if op <= 2 and shift > 0:
                        # Only the bits that stay are shifted, with their sign.
                        left = 1 << (63 - shift)
                        low = value & (left - 1)
                        if (value & left) != 0:
                            low -= left
                        value = low << shift
                    if op == 1:
                        value |= values[column, row]
                        if (valid[column, row >> 3] & bit) != 0:
                            filled[column] -= 1
                    elif op == 3:
                        value = steps[step, 6]
                    elif op >= 4:
                        start = from_byte
                        span = 0
                        if op == 5:
                            span = width if width > 0 else length - steps[step, 2]
                        else:
                            location = 0
                            for k in range(4):
                                location |= (pages[s, from_byte + k] + 0) << (8 * k)
                            where = location & 0xFFFF
                            span = location >> 16
                            if op == 6:
                                where += steps[step, 2] + 4
                            start = base + where
                        known = False
                        if span >= 0 and start + span <= base + length:
                            texts[n_texts, 0] = row
                            texts[n_texts, 1] = column
                            texts[n_texts, 2] = s
                            texts[n_texts, 3] = start
                            texts[n_texts, 4] = span
                            n_texts += 1
                        else:
                            doubted[kind] += 1
                    if known and column < columns:
                        values[column, row] = value
                        valid[column, row >> 3] |= bit
                        filled[column] += 1
                    step += 1
            rows_of[kind] += 1
            row += 1
            i += 1
        head[s] = i
        if result >= 0:
            state[2] = s
            break
    state[0] = row
    state[1] = n_texts
    return result
