"""Ring-buffer pages -> records: where each payload lies, and when it was written.

A page ("sub-buffer") is a header, whose layout tracefs shows as ``events/header_page``, and event
words (kernel/trace/ring_buffer.c, include/linux/ring_buffer.h).  The bytes are hostile: every
index is checked against the page's own capacity, and time never runs back in what comes out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tracekit.errors import ImportFormatError
from tracekit.ftrace.event_format import parse_fields

__all__ = (
    "FAULTS",
    "MARK_CLOCK_BACK",
    "MARK_LOST",
    "PageLayout",
    "Records",
    "decode_pages",
    "page_layout",
)

MOST_NS = 0x7FFFFFFFFFFFFFFF
MARK_LOST = -1
"""In place of a payload's offset: events were lost before the next record."""
MARK_CLOCK_BACK = -2
"""In place of a payload's offset: the next record's own time is earlier than one before it."""

FAULTS = {
    1: "the commit word says more bytes than a page holds",
    2: "a time is past 63 bits",
    3: "an event word is cut off by the end of the page's data",
    4: "a record runs past the page's data",
    5: "a record is shorter than its common header",
    6: "more records than a page can hold",
    7: "a count of lost events is cut off by the end of the page",
}
"""What :func:`decode_pages` found wrong, by its result."""


@dataclass(frozen=True)
class PageLayout:
    """Byte offsets in a page: its time, its commit word, its data; and how much data it holds."""

    page_size: int
    stamp: int
    commit: int
    data: int
    capacity: int


class Records:
    """Some of one CPU's records, in buffers that are used again.

    ``pages``: bytes that hold the payloads, each on a multiple of four; ``words``: the same as u32.
    ``ts``: nanoseconds, never decreasing.  ``at``: the payload's first byte in ``pages``, or
    a ``MARK_``.  ``size``: the payload's bytes; of a mark, its index in ``until`` (ns) and
    ``lost`` (events, -1 unknown).  ``state`` carries a CPU's time from one call to the next: last
    time, last raw time, whether there was any, number of records, number of marks, number of the
    faulty page.  Made for ``streams`` CPUs at once; :meth:`stream` is one of them.
    """

    def __init__(self, streams: int, size: int, page_size: int) -> None:
        """``size`` bytes of pages of at least ``page_size`` each, for each of ``streams``."""
        pages = size // page_size
        # An event word and a common header each, and a mark before it.
        rows = size // 6 + 2 * pages
        marks = rows // 2 + 2 * pages
        self.pages = np.zeros((streams, size), np.uint8)
        self.words = self.pages.view(np.uint32)
        self.ts = np.zeros((streams, rows), np.int64)
        self.at = np.zeros((streams, rows), np.int32)
        self.size = np.zeros((streams, rows), np.int32)
        self.until = np.zeros((streams, marks), np.int64)
        self.lost = np.zeros((streams, marks), np.int64)
        self.state = np.zeros((streams, 6), np.int64)

    def stream(self, number: int) -> Records:
        """The buffers of one CPU: the same memory, one dimension less."""
        one = Records.__new__(Records)
        for name, array in vars(self).items():
            setattr(one, name, array[number])
        return one


def page_layout(header_page: str, page_size: int) -> PageLayout:
    """The layout that ``events/header_page`` describes, for pages of ``page_size`` bytes.

    :raises ImportFormatError: not a 64-bit kernel's, or nothing that fits the page
    """
    fields = parse_fields(header_page, "header_page")
    try:
        stamp, commit, data = fields["timestamp"], fields["commit"], fields["data"]
    except KeyError as missing:
        raise ImportFormatError(f"header_page has no field {missing}") from None
    if commit.size != 8:
        raise ImportFormatError("recorded by a 32-bit kernel (header_page); 64 bits are read")
    ends = (stamp.offset + 8, commit.offset + 8)
    if stamp.size != 8 or any(f.offset % 4 for f in (stamp, commit, data)):
        raise ImportFormatError("header_page describes fields that are not where they can be")
    if max(ends) > data.offset or data.offset >= page_size:
        raise ImportFormatError("header_page describes a header that does not fit its page")
    return PageLayout(page_size, stamp.offset, commit.offset, data.offset, page_size - data.offset)


def decode_pages(
    words: Any,
    pages: int,
    page_size: int,
    stamp_at: int,
    commit_at: int,
    data_at: int,
    ts: npt.NDArray[np.int64],
    at: npt.NDArray[np.int32],
    size: npt.NDArray[np.int32],
    until: npt.NDArray[np.int64],
    lost: npt.NDArray[np.int64],
    state: npt.NDArray[np.int64],
) -> int:
    """Find the records of ``pages`` pages in ``words`` (their bytes as u32): 0 or a key of FAULTS.

    The arrays and ``state`` are those of :class:`Records`.  A kernel: see
    :mod:`tracekit.compiled.kernels`.
    """
    last = state[0]
    raw = state[1]
    seen = state[2] != 0
    n = 0
    marks = 0
    room = min(len(ts), len(at), len(size))
    mark_room = min(len(until), len(lost))
    pages = min(pages, len(words) * 4 // page_size)
    for page in range(pages):
        state[5] = page
        base = page * page_size
        stamp_word = (base + stamp_at) >> 2
        clock = (words[stamp_word] + 0) | ((words[stamp_word + 1] + 0) << 32)
        stamp = clock
        commit = words[(base + commit_at) >> 2] + 0
        used = commit & 0x07FFFFFF
        if used > page_size - data_at or used & 3:
            return 1
        if clock < 0 or clock > MOST_NS:
            return 2
        begin = base + data_at
        end = begin + used
        hole = (commit >> 31) & 1 != 0
        count = -1
        if hole and (commit >> 30) & 1 != 0:
            if end + 8 > base + page_size:
                return 7
            word = end >> 2
            # As a signed number, which no real count makes negative.
            count = (words[word] + 0) | ((words[word + 1] & 0x7FFFFFFF) << 32)
        at_byte = begin
        while at_byte < end:
            word = at_byte >> 2
            header = words[word] + 0
            kind = header & 31
            delta = header >> 5
            extra = 0
            if kind == 0 or kind >= 29:
                if kind == 29 and delta == 0:
                    break  # the rest of the page is empty
                if at_byte + 8 > end:
                    return 3
                extra = words[word + 1] + 0
            if kind == 30:
                delta += extra << 27
                # Before the sum: compiled, a sum past 63 bits could be anything.
                if delta > MOST_NS - clock:
                    return 2
                clock += delta
                step = 8
            elif kind == 31:
                # 59 bits are in the word; the others are those of the time before.
                before = clock
                high = before & 0x7800000000000000
                clock = (extra << 27) + delta
                if high != 0:
                    clock |= high
                    if clock < before:
                        if clock > MOST_NS - (1 << 59):
                            return 2
                        clock += 1 << 59
                step = 8
            elif kind == 29:
                # A discarded record.  1 is what the kernel writes where there was no delta.
                if delta != 1:
                    if delta > MOST_NS - clock:
                        return 2
                    clock += delta
                step = (extra + 7) & ~3
                if step > end - at_byte:
                    return 4
            else:
                if delta > MOST_NS - clock:
                    return 2
                clock += delta
                if kind == 0:
                    payload = at_byte + 8
                    length = extra - 4
                    step = (extra + 7) & ~3
                else:
                    payload = at_byte + 4
                    length = kind * 4
                    step = length + 4
                if length < 8:
                    return 5
                if step > end - at_byte:
                    return 4
                if n + 3 > room or marks + 2 > mark_room:
                    return 6
                now = max(clock, last)
                if hole:
                    ts[n] = last if seen else max(min(stamp, now), last)
                    at[n] = -1
                    size[n] = marks
                    until[marks] = now
                    lost[marks] = count
                    n += 1
                    marks += 1
                    hole = False
                if seen and clock < raw:
                    ts[n] = now
                    at[n] = -2
                    size[n] = marks
                    until[marks] = clock
                    lost[marks] = -1
                    n += 1
                    marks += 1
                ts[n] = now
                at[n] = payload
                size[n] = length
                n += 1
                last = now
                raw = clock
                seen = True
            at_byte += step
        if hole:  # nothing came after it in this page
            if n + 1 > room or marks + 1 > mark_room:
                return 6
            now = max(clock, last)
            last = last if seen else max(min(stamp, now), last)
            ts[n] = last
            at[n] = -1
            size[n] = marks
            until[marks] = now
            lost[marks] = count
            n += 1
            marks += 1
    state[0] = last
    state[1] = raw
    state[2] = 1 if seen else 0
    state[3] = n
    state[4] = marks
    return 0
