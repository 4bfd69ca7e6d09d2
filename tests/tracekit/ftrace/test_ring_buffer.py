"""Ring-buffer pages: what the kernel writes, and what nobody should have written."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracekit.compiled.kernels import kernel
from tracekit.errors import ImportFormatError
from tracekit.ftrace.ring_buffer import (
    FAULTS,
    MARK_CLOCK_BACK,
    MARK_LOST,
    PageLayout,
    Records,
    decode_pages,
    page_layout,
)
from tracekit.ftrace.writer import HEADER_PAGE, PAGE_SIZE, Lost, Record, pages, record

LAYOUT = PageLayout(PAGE_SIZE, 0, 8, 16, PAGE_SIZE - 16)
PLAIN = kernel(decode_pages, compile=False)
COMPILED = kernel(decode_pages, compile=True)

Found = tuple[int, list[tuple[object, ...]]]


def one_cpu(count: int) -> Records:
    """Room for the records of so many pages."""
    return Records(1, count * PAGE_SIZE, PAGE_SIZE).stream(0)


def decode(raw: bytes, *, compiled: bool = False, room: Records | None = None) -> Found:
    """Result, and (time, payload) or (time, mark, until, lost) of each record."""
    count = len(raw) // PAGE_SIZE
    room = room or one_cpu(max(count, 1))
    chunk = np.frombuffer(raw, np.uint8).copy()
    result = (COMPILED if compiled else PLAIN)(
        chunk.view(np.uint32), count, PAGE_SIZE, LAYOUT.stamp, LAYOUT.commit, LAYOUT.data,
        room.ts, room.at, room.size, room.until, room.lost, room.state,
    )  # fmt: skip
    found: list[tuple[object, ...]] = []
    for i in range(int(room.state[3])):
        ts, at, size = int(room.ts[i]), int(room.at[i]), int(room.size[i])
        if at < 0:
            found.append((ts, at, int(room.until[size]), int(room.lost[size])))
        else:
            assert 0 <= at <= at + size <= len(raw)
            found.append((ts, raw[at : at + size]))
    return result, found


def page(*words: int, stamp: int = 0, commit: int | None = None) -> bytes:
    """One page with these u32 words as its data."""
    data = struct.pack(f"<{len(words)}I", *words)
    head = struct.pack("<QQ", stamp, len(data) if commit is None else commit)
    return (head + data).ljust(PAGE_SIZE, b"\0")


PAYLOAD = (7, 42)  # a common header: event 7, tid 42
SHORT_EVENT = 2  # type_len 2: eight bytes of payload


def test_small_and_large_records_lie_where_the_header_says() -> None:
    small, large = record(1, 2, b"ab"), record(1, 2, bytes(range(200)))
    result, found = decode(pages([Record(10, small), Record(15, large)]))
    assert result == 0
    assert found == [(10, small), (15, large)]


def test_a_time_extend_is_added() -> None:
    words = page(30 | 3 << 5, 2, SHORT_EVENT | 5 << 5, *PAYLOAD, stamp=100)
    assert decode(words)[1][0][0] == 100 + (2 << 27) + 3 + 5


def test_an_absolute_stamp_keeps_the_top_bits_of_the_time_before() -> None:
    high = 1 << 60
    words = page(31 | 9 << 5, 4, SHORT_EVENT, *PAYLOAD, stamp=high + 5)
    assert decode(words)[1][0][0] == high + (4 << 27) + 9


def test_an_absolute_stamp_below_the_time_before_goes_one_round_further() -> None:
    stamp = (1 << 60) + (9 << 27)
    words = page(31, 4, SHORT_EVENT, *PAYLOAD, stamp=stamp)
    assert decode(words)[1][0][0] == (1 << 60) + (4 << 27) + (1 << 59)


def test_a_discarded_record_is_skipped_and_its_time_counts_unless_it_is_one() -> None:
    # Eight bytes follow the event word, its length among them.  Delta 1 is the kernel's "none".
    without, timed = (29 | 1 << 5, 8, 0), (29 | 6 << 5, 8, 0)
    result, found = decode(page(*without, *timed, SHORT_EVENT, *PAYLOAD, stamp=100))
    assert result == 0
    assert [f[0] for f in found] == [106]


def test_padding_ends_a_page() -> None:
    result, found = decode(page(SHORT_EVENT, *PAYLOAD, 29, 0xFFFFFFFF, 0xFFFFFFFF))
    assert result == 0
    assert len(found) == 1


def test_a_marked_page_gives_a_hole_between_the_events_around_it() -> None:
    raw = pages([Record(10, record(1, 1, b"")), Lost(17), Record(30, record(1, 1, b""))])
    assert decode(raw)[1][1] == (10, MARK_LOST, 30, 17)


def test_a_hole_at_the_start_begins_with_the_page() -> None:
    raw = pages([Lost(None), Record(30, record(1, 1, b""))])
    assert decode(raw)[1][0] == (30, MARK_LOST, 30, -1)


def test_a_marked_page_without_events_is_a_hole_too() -> None:
    raw = page(SHORT_EVENT, *PAYLOAD, stamp=5) + page(stamp=50, commit=1 << 31)
    assert decode(raw)[1][1] == (5, MARK_LOST, 50, -1)


def test_time_that_runs_back_is_held_and_marked_once_a_fall() -> None:
    ticks = [100, 90, 95, 120]
    raw = pages([Record(t, record(1, 1, b"")) for t in ticks])
    found = decode(raw)[1]
    assert [f[0] for f in found] == [100, 100, 100, 100, 120]
    assert found[1] == (100, MARK_CLOCK_BACK, 90, -1)


@pytest.mark.parametrize(
    ("raw", "fault"),
    [
        (page(commit=PAGE_SIZE), 1),
        (page(commit=6), 1),
        (page(stamp=1 << 63), 2),
        (page(30, 0xFFFFFFFF, SHORT_EVENT, *PAYLOAD, stamp=(1 << 63) - 5), 2),
        (page(30), 3),
        (page(0), 3),
        (page(SHORT_EVENT, 7), 4),
        (page(0, 4096, 0, 0), 4),
        (page(0, 2, 0, 0), 5),
        (page(1, 7), 5),
        (page(commit=(3 << 30) | 4080), 7),
    ],
)
@pytest.mark.parametrize("compiled", [False, True])
def test_a_damaged_page_is_named(raw: bytes, fault: int, compiled: bool) -> None:
    assert decode(raw, compiled=compiled)[0] == fault
    assert fault in FAULTS


@given(st.binary(max_size=400), st.integers(0, 4080), st.integers(0, 3))
@settings(max_examples=300, deadline=None)
def test_random_bytes_never_leave_the_page_and_both_kernels_agree(
    data: bytes, used: int, flags: int
) -> None:
    head = struct.pack("<QQ", 1000, used & ~3 | flags << 30)
    raw = (head + data).ljust(PAGE_SIZE, b"\xa5") * 2
    plain = decode(raw)
    compiled = decode(raw, compiled=True)
    assert plain[0] == compiled[0]
    if plain[0] == 0:
        assert plain == compiled
        times = [f[0] for f in plain[1]]
        assert times == sorted(times)  # type: ignore[type-var]


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
@settings(max_examples=300, deadline=None)
def test_any_first_event_word_is_taken_or_refused(word: int, extra: int) -> None:
    raw = page(word, extra, *PAYLOAD, *PAYLOAD, stamp=(1 << 62) + 3)
    assert decode(raw) == decode(raw, compiled=True)


def test_buffers_that_are_too_small_stop_the_decoder() -> None:
    raw = pages([Record(i, record(1, 1, b"")) for i in range(300)])
    small = one_cpu(1)
    small.ts = small.ts[:10]
    assert decode(raw, room=small)[0] == 6


def test_the_layout_comes_from_header_page() -> None:
    assert page_layout(HEADER_PAGE, PAGE_SIZE) == LAYOUT
    assert page_layout(HEADER_PAGE, 8 * PAGE_SIZE).capacity == 8 * PAGE_SIZE - 16


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("offset:8;\tsize:8;", "offset:8;\tsize:4;", "32-bit kernel"),
        ("timestamp", "stamp", "no field 'timestamp'"),
        ("data;\toffset:16", "data;\toffset:4096", "does not fit"),
        ("data;\toffset:16", "data;\toffset:12", "does not fit"),
    ],
)
def test_a_foreign_header_page_is_refused(old: str, new: str, message: str) -> None:
    with pytest.raises(ImportFormatError, match=message):
        page_layout(HEADER_PAGE.replace(old, new), PAGE_SIZE)
