"""Corrections of times against Python's endless numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracekit.errors import ImportFormatError
from tracekit.ftrace.clocks import Correction, Samples, Stamps, offset_number

MOST = (1 << 63) - 1
stamps = st.lists(st.integers(0, MOST), min_size=1, max_size=20)
sizes = st.one_of(st.integers(0, 1 << 20), st.integers(0, MOST))


def corrected(correction: Correction, times: list[int]) -> list[int] | None:
    """The times of a CPU, or nothing if they cannot be."""
    one = correction.of_cpu(0, "t.dat")
    assert one is not None
    try:
        return one.ns(np.array(times, np.int64)).tolist()
    except ImportFormatError:
        return None


def possible(times: list[int]) -> list[int] | None:
    return times if all(0 <= t <= MOST for t in times) else None


@given(stamps, st.integers(1, 0xFFFFFFFF), st.integers(0, 63))
@settings(max_examples=300, deadline=None)
def test_cycles_are_multiplied_exactly(times: list[int], multiplier: int, shift: int) -> None:
    found = corrected(Correction(tsc=(multiplier, shift)), times)
    assert found == possible([t * multiplier >> shift for t in times])


@given(
    stamps,
    st.lists(
        st.tuples(sizes, st.integers(-MOST - 1, MOST), sizes, st.integers(0, 63)),
        min_size=1,
        max_size=5,
        unique_by=lambda sample: sample[0],
    ),
    st.booleans(),
)
@settings(max_examples=400, deadline=None)
def test_shifts_are_exact(
    times: list[int], samples: list[tuple[int, int, int, int]], interpolate: bool
) -> None:
    samples.sort()
    parts = [tuple(sample[i] for sample in samples) for i in range(4)]
    correction = Correction(shifts={0: Samples(*parts)}, interpolate=interpolate)
    found = corrected(correction, times)
    if len(samples) == 1:
        assert found == possible([t + samples[0][1] for t in times])
        return
    expected, scaled = [], []
    for time in times:
        pair = max([i for i, s in enumerate(samples[:-1]) if s[0] <= time], default=0)
        (begin, offset, scaling, bits), (end, other, _, _) = samples[pair : pair + 2]
        if interpolate:
            product = (time - begin) * (other - offset) + (end - begin) // 2
            steps = abs(product) // (end - begin)
            offset += steps if product >= 0 else -steps
        scaled.append(time * scaling >> bits)
        expected.append(scaled[-1] + offset)
    if possible(scaled) is None:
        assert found is None
    else:
        assert found == possible(expected)


def test_a_step_back_is_held_across_calls() -> None:
    correction = Correction(shifts={0: Samples((0, 50), (100, 0), (1, 1), (0, 0))})
    one = Stamps(correction, correction.shifts[0], "t.dat")
    assert one.in_order(np.array([10, 20], np.int64)).tolist() == [110, 120]
    assert one.in_order(np.array([], np.int64)).tolist() == []
    one._last = 1000
    assert one.in_order(np.array([30], np.int64)).tolist() == [1000]
    assert one.held == 1


def test_a_recording_without_corrections_has_no_work() -> None:
    assert Correction().of_cpu(0, "t.dat") is None
    assert Correction(shifts={1: Samples((0,), (1,), (1,), (0,))}).of_cpu(0, "t.dat") is None


@pytest.mark.parametrize(
    ("text", "value"),
    [("12345", 12345), ("-7", -7), ("0x1F", 31), ("-0x10", -16), ("010", 8), ("0", 0), (" +5", 5)],
)
def test_offsets_are_read_as_c_writes_them(text: str, value: int) -> None:
    assert offset_number(text, "t.dat") == value


@pytest.mark.parametrize("text", ["", "x", "0x", "08", "1e9", "9223372036854775808", "1" * 30])
def test_what_is_no_offset_is_refused(text: str) -> None:
    with pytest.raises(ImportFormatError):
        offset_number(text, "t.dat")
