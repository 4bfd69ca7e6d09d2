"""Corrections of times, as a trace.dat carries them, against what they must give."""

from __future__ import annotations

import re
import shutil
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tracekit.errors import ImportFormatError
from tracekit.ftrace.trace_dat import DATE, OFFSET, TIME_SHIFT, TSC2NSEC
from tracekit.ftrace.writer import Record, Recording, event_format, record
from tracekit.importers import import_files
from tracekit.store import Manifest

MAP = 700
FORMATS = [("iommu", event_format("map", MAP, [("u64 iova", 8, False)]))]
STAMPS = [10**9 + i * 10**8 for i in range(40)]
MULTIPLIER, SHIFT = 827187121, 31

Sample = tuple[int, int, int, int]
Option = tuple[int, bytes]


def shift_option(*cpus: Sequence[Sample], interpolate: bool, fractions: bool = True) -> Option:
    """A TIME_SHIFT: each CPU's (time, offset, scaling, bits of the scaling's fraction)."""
    out = struct.pack("<QII", 0xFEED, int(interpolate), len(cpus))
    for samples in cpus:
        out += struct.pack("<I", len(samples))
        for part in range(3):
            out += b"".join(struct.pack("<q", sample[part]) for sample in samples)
    for samples in cpus if fractions else ():
        out += b"".join(struct.pack("<q", sample[3]) for sample in samples)
    return TIME_SHIFT, out


def tsc_option(multiplier: int = MULTIPLIER, shift: int = SHIFT) -> Option:
    """A TSC2NSEC."""
    return TSC2NSEC, struct.pack("<IIQ", multiplier, shift, 0)


def written(
    path: Path, stamps: Sequence[int], *options: Option, clock: str = "mono", version: int = 7
) -> None:
    """A recording with an event at each stamp, and these options."""
    one = [Record(ts, record(MAP, 1, bytes(8))) for ts in stamps]
    made = Recording(formats=FORMATS, cpus=[one], clock=clock, extra_options=options)
    made.write(path, version=version)


def imported(path: Path) -> tuple[Manifest, list[int]]:
    """The manifest and the times of the events."""
    out = path.with_suffix(".parquet")
    manifest = import_files([path], out)
    rows = pq.read_table(out).to_pylist()
    return manifest, [r["ts_ns"] for r in rows if r["event"] == "iommu.map"]


def steady(stamp: int, first: Sample, second: Sample) -> int:
    """The offset between two samples, in C's division."""
    span = second[0] - first[0]
    product = (stamp - first[0]) * (second[1] - first[1]) + span // 2
    return first[1] + (abs(product) // span) * (1 if product >= 0 else -1)


TWO: list[Sample] = [(10**9, 500, 1, 0), (3 * 10**9, -777, 1, 0)]
FOUR: list[Sample] = [
    (10**9, 500, 1, 0), (2 * 10**9, -777, 1, 0), (3 * 10**9, 123456, 1, 0), (4 * 10**9, 99, 1, 0),
]  # fmt: skip
HALF_MORE: list[Sample] = [(t, o, 3 << 10, 11) for t, o, _, _ in FOUR]
SHIFTED = {
    "one sample": ([shift_option([TWO[0]], interpolate=True)], [s + 500 for s in STAMPS]),
    "two, steady": (
        [shift_option(TWO, interpolate=True)],
        [s + steady(s, *TWO) for s in STAMPS],
    ),
    "two, stepwise": ([shift_option(TWO, interpolate=False)], [s + 500 for s in STAMPS]),
    "four, steady, without fractions": (
        [shift_option(FOUR, interpolate=True, fractions=False)],
        [
            s + steady(s, *(FOUR[i : i + 2]))
            for s in STAMPS
            for i in [min(max((s - 10**9) // 10**9, 0), 2)]
        ],
    ),
    "scaled": (
        [shift_option(HALF_MORE, interpolate=False)],
        [s * 3 // 2 + FOUR[min((s - 10**9) // 10**9, 2)][1] for s in STAMPS],
    ),
    "the first layout": (
        [(TIME_SHIFT, struct.pack("<QI4q", 1, 2, 10**9, 3 * 10**9, 500, -777))],
        [s + steady(s, *TWO) for s in STAMPS],
    ),
    "a CPU that was not compared": ([shift_option([], TWO, interpolate=True)], STAMPS),
    "offsets": ([(OFFSET, b"-77\0"), (OFFSET, b"010\0")], [s - 77 + 8 for s in STAMPS]),
    "a date": ([(DATE, b"0x1000\0")], [s + 4096 * 1000 for s in STAMPS]),
    "a date before the clock's zero": (
        [(DATE, b"0x%x\0" % ((2**64 - 5 * 10**8) // 1000))],
        [s - 5 * 10**8 - 616 for s in STAMPS],
    ),
}


@pytest.mark.parametrize("name", SHIFTED)
@pytest.mark.parametrize("version", [6, 7])
def test_times_are_shifted_as_the_file_says(name: str, version: int, tmp_path: Path) -> None:
    options, expected = SHIFTED[name]
    written(tmp_path / "t.dat", STAMPS, *options, version=version)
    _, times = imported(tmp_path / "t.dat")
    assert times == expected


def test_cycles_become_nanoseconds_after_the_shift_and_before_the_offset(tmp_path: Path) -> None:
    options = [tsc_option(), shift_option(TWO, interpolate=True), (OFFSET, b"0x1000\0")]
    written(tmp_path / "t.dat", STAMPS, *options, clock="x86-tsc")
    manifest, times = imported(tmp_path / "t.dat")
    assert times == [((s + steady(s, *TWO)) * MULTIPLIER >> SHIFT) + 4096 for s in STAMPS]
    assert manifest.clock == "x86-tsc"
    source = manifest.sources[0]
    assert source["tsc2nsec"] == f"{MULTIPLIER} >> {SHIFT}"
    assert (source["time_shift_samples"], source["offset_ns"]) == (2, 4096)


def test_cycles_of_a_century_are_multiplied_in_full(tmp_path: Path) -> None:
    stamps = [(1 << 61) + i for i in range(3)]
    written(tmp_path / "t.dat", stamps, tsc_option(0xFFFFFFFF, 31), clock="x86-tsc")
    assert imported(tmp_path / "t.dat")[1] == [s * 0xFFFFFFFF >> 31 for s in stamps]


def test_a_fraction_of_many_bits_is_multiplied_in_full(tmp_path: Path) -> None:
    samples: list[Sample] = [(t, 0, 3 << 46, 47) for t in (10**9, 2 * 10**9)]
    written(tmp_path / "t.dat", STAMPS, shift_option(samples, interpolate=True))
    assert imported(tmp_path / "t.dat")[1] == [s * 3 // 2 for s in STAMPS]


def test_a_correction_that_steps_back_holds_time_and_is_counted(tmp_path: Path) -> None:
    samples: list[Sample] = [(10**9, 0, 1, 0), (2 * 10**9, -3 * 10**8, 1, 0), (9 * 10**9, 0, 1, 0)]
    written(tmp_path / "t.dat", STAMPS, shift_option(samples, interpolate=False))
    manifest, times = imported(tmp_path / "t.dat")
    shifted = [s - (3 * 10**8 if s >= 2 * 10**9 else 0) for s in STAMPS]
    assert times == [max(shifted[: i + 1]) for i in range(len(shifted))]
    assert manifest.sources[0]["times_held_by_correction"] == 2


def test_nanoseconds_are_not_converted_again(tmp_path: Path) -> None:
    written(tmp_path / "t.dat", STAMPS, tsc_option())
    manifest, times = imported(tmp_path / "t.dat")
    assert times == STAMPS
    assert manifest.sources[0]["tsc2nsec_not_applied"] == "the clock is mono"


@pytest.mark.parametrize(
    ("options", "clock", "match"),
    [
        ([], "x86-tsc", "does not say how long one is"),
        ([], "tsc2nsec", "does not say how long one is"),
        ([tsc_option(0)], "x86-tsc", "does not say how long one is"),
        ([tsc_option(7, 64)], "x86-tsc", "shifts by 64 bits"),
        ([tsc_option(0xFFFFFFFF, 0)], "x86-tsc", "past 63 bits"),
        ([(TSC2NSEC, b"\1\0\0\0")], "x86-tsc", "TSC2NSEC: shift takes 4 bytes"),
        ([(OFFSET, b"soon\0")], "mono", "OFFSET: 'soon' is no number"),
        ([(OFFSET, b"9223372036854775807\0")], "mono", "past 63 bits"),
        ([(OFFSET, b"-2000000000\0")], "mono", "before zero"),
        ([(OFFSET, b"0xffffffffffffffff\0")], "mono", "past 63 bits"),
        ([(TIME_SHIFT, bytes(21))], "mono", "a layout that is not known"),
        ([shift_option([(5, 0, 1, 99)], interpolate=False)], "mono", "not known|cannot be"),
        ([shift_option([(5, -(1 << 62), 1, 0)], interpolate=False)], "mono", "before zero"),
        ([], "counter", "it counts events"),
        ([], "uptime", "it counts jiffies"),
    ],
)
def test_times_that_cannot_be_are_refused(
    options: list[Option], clock: str, match: str, tmp_path: Path
) -> None:
    written(tmp_path / "t.dat", STAMPS, *options, clock=clock)
    with pytest.raises(ImportFormatError, match=match) as caught:
        imported(tmp_path / "t.dat")
    assert "\n" not in caught.value.message


# What trace-cmd reads past the end of, or no longer knows.
NOT_ITS_OWN = ("the first layout", "a CPU that was not compared")


@pytest.mark.parametrize("name", [n for n in SHIFTED if n not in NOT_ITS_OWN])
def test_trace_cmd_shifts_the_same(name: str, tmp_path: Path) -> None:
    options, expected = SHIFTED[name]
    written(tmp_path / "t.dat", STAMPS, *options)
    assert report_times(tmp_path / "t.dat") == expected


def test_trace_cmd_makes_nanoseconds_at_the_same_place(tmp_path: Path) -> None:
    options = [tsc_option(), shift_option(TWO, interpolate=True), (OFFSET, b"0x1000\0")]
    written(tmp_path / "t.dat", STAMPS, *options, clock="x86-tsc")
    assert report_times(tmp_path / "t.dat") == imported(tmp_path / "t.dat")[1]


def report_times(path: Path) -> list[int]:
    """The times that trace-cmd shows."""
    if shutil.which("trace-cmd") is None:
        pytest.skip("trace-cmd is not installed")
    run = subprocess.run(["trace-cmd", "report", "-t", str(path)], capture_output=True, text=True)
    found = re.findall(r" (\d+)\.(\d{9}): map", run.stdout)
    return [int(s) * 10**9 + int(n) for s, n in found]
