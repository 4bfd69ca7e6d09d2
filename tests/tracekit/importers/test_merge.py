"""Several recordings of one host as one trace: their order, clocks, and what the manifest says."""

from __future__ import annotations

import os
import random
import struct
import subprocess
import sys
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracekit.errors import ImportFormatError, UsageError
from tracekit.ftrace.columns import ARROW_SCHEMA
from tracekit.ftrace.writer import Record, Recording, event_format, record
from tracekit.importers import import_files
from tracekit.importers._define import Source
from tracekit.importers.clocks import Anchors, Offset, estimate, parse_clock_offset
from tracekit.importers.merge import NOT_COMPARABLE, MergedSource
from tracekit.importers.simpletrace import HEADER, MAGIC
from tracekit.store import Manifest, open_trace

ATTRIBUTES, MADVISE = 700, 701
REALTIME = 1_795_364_545_000_000_000
"""How far realtime is ahead of mono here."""


def numbers(*names: str) -> list[tuple[str, int, bool]]:
    return [(f"u64 {name}", 8, False) for name in names]


FORMATS = [
    ("kvm", event_format("kvm_vm_set_mem_attributes", ATTRIBUTES, numbers("start", "end", "attr"))),
    (
        "syscalls",
        event_format("sys_enter_madvise", MADVISE, numbers("start", "len_in", "behavior")),
    ),
]


def attributes(ts_ns: int, gpa: int, private: bool) -> Record:
    """KVM is asked for a conversion of a page."""
    payload = struct.pack("<QQQ", gpa >> 12, (gpa >> 12) + 1, 8 if private else 0)
    return Record(ts_ns, record(ATTRIBUTES, 42, payload))


def madvise(ts_ns: int, vaddr: int) -> Record:
    return Record(ts_ns, record(MADVISE, 42, struct.pack("<QQQ", vaddr, 0x1000, 4)))


def kernel_trace(path: Path, records: Sequence[Record], clock: str = "mono") -> Path:
    made = Recording(formats=FORMATS, cpus=[records], clock=clock, command_lines={42: "qemu"})
    made.write(path)
    return path


def line(ts_ns: int, text: str) -> str:
    """A line of QEMU's log at a time of the mono clock."""
    ts_ns += REALTIME
    return f"42@{ts_ns // 10**9}.{ts_ns % 10**9 // 1000:06}:{text}\n"


def convert(ts_ns: int, gpa: int, private: bool) -> str:
    how = "shared_to_private" if private else "private_to_shared"
    return line(ts_ns, f"kvm_convert_memory start 0x{gpa:x} size 0x1000 {how}")


def discarded(ts_ns: int, vaddr: int) -> str:
    text = f"ram_block_discard_range ram@0x{vaddr:x} + 0x1000: madvise: 1 fallocate: 0 ret: 0"
    return line(ts_ns, text)


def log(path: Path, lines: Sequence[str]) -> Path:
    path.write_text("".join(lines))
    return path


def simpletrace(path: Path, *times: int) -> Path:
    name = b"virtio_mem_unplugged_all"
    data = struct.pack("<QQQ", HEADER, MAGIC, 4) + struct.pack("<QQI", 0, 3, len(name)) + name
    data += b"".join(struct.pack("<QQQII", 1, 3, ts, 24, 42) for ts in times)
    path.write_bytes(data)
    return path


def rows(path: Path) -> list[dict[str, Any]]:
    return pq.read_table(path).to_pylist()


class MadeSource:
    """Rows that a test says, in batches of its choice."""

    def __init__(self, name: str, batches: Sequence[Sequence[int]], clock: str = "mono") -> None:
        self.name, self.clock, self.rows, self.closed = name, clock, 0, False
        self._batches = batches
        self.said = Manifest(clock=clock, sources=({"file": name},))

    def batches(self) -> Iterator[pa.RecordBatch]:
        for times in self._batches:
            columns = {
                "ts_ns": pa.array(times, pa.int64()),
                "source": pa.array([self.name] * len(times)).dictionary_encode(),
                "event": pa.array(["iommu.attach"] * len(times)).dictionary_encode(),
                "id": pa.array([self.rows + i for i in range(len(times))], pa.uint32()),
            }
            arrays = [
                columns[f.name] if f.name in columns else pa.nulls(len(times), f.type)
                for f in ARROW_SCHEMA
            ]
            self.rows += len(times)
            yield pa.RecordBatch.from_arrays(arrays, schema=ARROW_SCHEMA)

    def manifest(self) -> Manifest:
        return self.said

    def close(self) -> None:
        self.closed = True


def merged(*sources: Source, offset: Offset | None = None) -> MergedSource:
    return MergedSource([lambda s=s: s for s in sources], offset)  # type: ignore[misc]


@settings(max_examples=150, deadline=None)
@given(st.lists(st.lists(st.integers(0, 40), max_size=30), min_size=1, max_size=4), st.data())
def test_the_order_is_that_of_time_and_of_each_source(
    times: list[list[int]], data: st.DataObject
) -> None:
    made = []
    for number, each in enumerate(times):
        each = sorted(each)
        cuts = sorted(data.draw(st.lists(st.integers(0, len(each)), max_size=4)))
        bounds = [0, *cuts, len(each)]
        batches = [each[a:b] for a, b in pairwise(bounds)]
        made.append(MadeSource(f"s{number}", batches))
    got = [
        (r["ts_ns"], r["source"], r["id"])
        for batch in merged(*made).batches()
        for r in batch.to_pylist()
    ]
    assert [t for t, _, _ in got] == sorted(t for each in times for t in each)
    for number, each in enumerate(times):
        mine = [(t, i) for t, s, i in got if s == f"s{number}"]
        assert mine == [(t, i) for i, t in enumerate(sorted(each))]


def test_rows_of_one_time_come_in_the_order_of_the_files() -> None:
    first, second = MadeSource("first", [[5, 5], [7]]), MadeSource("second", [[5], [5, 6]])
    (batch, *_) = merged(first, second).batches()
    assert batch.column("source").to_pylist() == ["first", "first", "second"]


def test_no_more_than_a_batch_of_each_source_waits() -> None:
    """A source that is far ahead is not read on."""
    late = MadeSource("late", [[1_000_000 + i] for i in range(1000)])
    early = MadeSource("early", [[i] for i in range(1000)])
    batches = merged(late, early).batches()
    for _ in range(900):
        next(batches)
    assert late.rows == 1


def test_qemu_s_log_is_laid_on_the_kernel_s_clock(tmp_path: Path) -> None:
    """Lines come before the attribute calls and after the discards, by chance-like waits."""
    random_ = random.Random(11)
    records, lines = [], []
    for i in range(200):
        start, gpa, private = 10_000_000 * (i + 1), 0x1000 * random_.randrange(20), i % 2 == 0
        called = start + 30_000 + random_.randrange(400_000)
        records.append(attributes(called, gpa, private))
        lines.append(convert(start, gpa, private))
        records.append(madvise(called + 500_000, 0x7F0000000000 + gpa))
        lines.append(discarded(called + 540_000 + random_.randrange(300_000), 0x7F0000000000 + gpa))
    files = [kernel_trace(tmp_path / "t.dat", records), log(tmp_path / "qemu.log", lines)]
    manifest = import_files(files, tmp_path / "t.parquet")
    kernel, qemu = manifest.sources
    assert (kernel["clock"], qemu["clock"]) == ("mono", "realtime")
    assert "clock_offset_ns" not in kernel
    error = qemu["clock_error_ns"]
    assert isinstance(error, int)
    assert isinstance(qemu["clock_offset_ns"], int)
    assert abs(qemu["clock_offset_ns"] + REALTIME) <= error < 100_000
    assert str(qemu["clock_offset_from"]).startswith("matched calls")
    assert manifest.clock == "mono"
    assert manifest.incomparable == ()
    got = rows(tmp_path / "t.parquet")
    assert [r["event"] for r in got] == [
        "qemu.convert_memory", "kvm.attributes", "madvise.entered", "qemu.discard_range",
    ] * 200  # fmt: skip
    assert manifest.span_ns == (got[0]["ts_ns"], got[-1]["ts_ns"])


def test_lines_before_their_calls_alone_give_a_bound_and_an_error(tmp_path: Path) -> None:
    random_ = random.Random(3)
    records, lines = [], []
    for i in range(100):
        start, gpa = 10_000_000 * (i + 1), 0x1000 * i
        records.append(attributes(start + 20_000 + random_.randrange(600_000), gpa, True))
        lines.append(convert(start, gpa, True))
    files = [kernel_trace(tmp_path / "t.dat", records), log(tmp_path / "qemu.log", lines)]
    (_, qemu) = import_files(files, tmp_path / "t.parquet").sources
    assert "one bound" in str(qemu["clock_offset_from"])
    offset, error = qemu["clock_offset_ns"], qemu["clock_error_ns"]
    assert isinstance(offset, int)
    assert isinstance(error, int)
    assert abs(offset + REALTIME) <= error < 2_000_000


@pytest.mark.parametrize("wait", [1, 7])
def test_calls_that_repeat_evenly_tell_no_offset(wait: int, tmp_path: Path) -> None:
    """Line 1 could be of call 1, or of call 2: nothing is guessed."""
    records = [attributes(i * 1_000_000_000, 0x1000, True) for i in range(1, 30)]
    lines = [convert(i * 1_000_000_000, 0x1000, True) for i in range(1 + wait, 30 + wait)]
    files = [kernel_trace(tmp_path / "t.dat", records), log(tmp_path / "qemu.log", lines)]
    assert import_files(files, tmp_path / "t.parquet").incomparable == ("qemu:",)


def test_a_clock_that_was_set_meanwhile_tells_no_offset(tmp_path: Path) -> None:
    records, lines = [], []
    for i in range(40):
        start, gpa = 100_000_000 * (i + 1), 0x1000 * i
        records += [attributes(start + 30_000, gpa, True), madvise(start + 60_000, gpa)]
        step = 20_000_000 if i >= 20 else 0
        lines += [convert(start + step, gpa, True), discarded(start + step + 90_000, gpa)]
    files = [kernel_trace(tmp_path / "t.dat", records), log(tmp_path / "qemu.log", lines)]
    assert import_files(files, tmp_path / "t.parquet").incomparable == ("qemu:",)


def test_without_any_offset_the_log_is_laid_beside_and_marked(tmp_path: Path) -> None:
    kernel = kernel_trace(tmp_path / "t.dat", [madvise(5_000_000, 1), madvise(9_000_000, 2)])
    other = log(tmp_path / "qemu.log", [line(77_000_000, "virtio_mem_send_response type=0")] * 2)
    manifest = import_files([kernel, other], tmp_path / "t.parquet")
    assert manifest.incomparable == ("qemu:",)
    assert manifest.sources[1]["clock_offset_from"] == NOT_COMPARABLE
    assert manifest.sources[1]["clock_error_ns"] is None
    got = [(r["ts_ns"], r["source"]) for r in rows(tmp_path / "t.parquet")]
    assert got[0] == (5_000_000, "syscalls:sys_enter_madvise")
    assert got[1] == got[2] == (5_000_000, "qemu:virtio_mem_send_response")
    assert open_trace(tmp_path / "t.parquet").manifest == manifest


def test_a_stated_offset_goes_first(tmp_path: Path) -> None:
    kernel = kernel_trace(tmp_path / "t.dat", [madvise(5_000_000, 1), madvise(9_000_000, 2)])
    other = log(tmp_path / "qemu.log", [line(7_000_000, "virtio_mem_send_response type=0")])
    stated = f"-{REALTIME // 10**9}s+-2ms"
    manifest = import_files([other, kernel], tmp_path / "t.parquet", clock_offset=stated)
    assert manifest.clock == "mono"
    assert manifest.sources[0] == {
        "file": "qemu.log",
        "format": "QEMU log, TID@SECONDS",
        "compression": None,
        "other_lines": 0,
        "clock": "realtime",
        "clock_offset_ns": -REALTIME,
        "clock_error_ns": 2_000_000,
        "clock_offset_from": "--clock-offset",
    }
    got = [(r["ts_ns"], r["event"]) for r in rows(tmp_path / "t.parquet")]
    assert got[1] == (7_000_000, "qemu.virtio_mem")


def test_one_moment_on_both_clocks_gives_the_offset() -> None:
    kernel = MadeSource("perf.data", [[100, 200]])
    other = MadeSource("wall", [[REALTIME + 150]], clock="realtime")
    pair: dict[str, str | int | None] = {
        "file": "perf.data",
        "clock_pair_mono_ns": 1000,
        "clock_pair_realtime_ns": REALTIME + 1000,
    }
    kernel.said = Manifest(sources=(pair,))
    openers = [
        lambda: MadeSourceWith(kernel, [[100, 200]]),
        lambda: MadeSourceWith(other, [[REALTIME + 150]]),
    ]
    both = MergedSource(openers)
    got = [t for b in both.batches() for t in b.column("ts_ns").to_pylist()]
    assert got == [100, 150, 200]
    told = both.manifest().sources[1]
    assert told["clock_offset_ns"] == -REALTIME
    assert told["clock_offset_from"] == "both clocks in perf.data"


class MadeSourceWith(MadeSource):
    """As another one, opened anew."""

    def __init__(self, like: MadeSource, batches: Sequence[Sequence[int]]) -> None:
        super().__init__(like.name, batches, like.clock)
        self.said = like.said


def test_simpletrace_and_a_kernel_trace_of_one_clock_need_no_offset(tmp_path: Path) -> None:
    kernel = kernel_trace(tmp_path / "t.dat", [madvise(5, 1), madvise(9, 2)])
    manifest = import_files(
        [kernel, simpletrace(tmp_path / "trace.bin", 3, 7)], tmp_path / "t.parquet"
    )
    assert [r["ts_ns"] for r in rows(tmp_path / "t.parquet")] == [3, 5, 7, 9]
    assert manifest.events == {"madvise.entered": 2, "qemu.virtio_mem": 2}
    assert manifest.span_ns == (3, 9)
    assert [s["clock"] for s in manifest.sources] == ["mono", "mono"]
    assert all("clock_offset_ns" not in s for s in manifest.sources)


@pytest.mark.parametrize("kernel_first", [True, False])
def test_the_clock_is_the_kernel_s_whatever_file_comes_first(
    kernel_first: bool, tmp_path: Path
) -> None:
    kernel = kernel_trace(tmp_path / "t.dat", [madvise(1005, 1), madvise(1009, 2)], clock="boot")
    files = [kernel, simpletrace(tmp_path / "trace.bin", 7)]
    if not kernel_first:
        files.reverse()
    manifest = import_files(files, tmp_path / "t.parquet", clock_offset="1us")
    assert manifest.clock == "boot"
    assert [r["ts_ns"] for r in rows(tmp_path / "t.parquet")] == [1005, 1007, 1009]


@pytest.mark.parametrize(
    ("clocks", "said"),
    [(("mono", "boot"), "on the clock 'boot'"), (("boot", "mono"), "on the clock 'mono'")],
)
def test_kernel_traces_on_different_clocks_are_refused(
    clocks: tuple[str, str], said: str, tmp_path: Path
) -> None:
    """Their rows could not be told from each other."""
    files = [
        kernel_trace(tmp_path / f"{c}.dat", [madvise(5 + i, 1)], clock=c)
        for i, c in enumerate(clocks)
    ]
    with pytest.raises(UsageError, match=said):
        import_files(files, tmp_path / "t.parquet")
    assert not (tmp_path / "t.parquet").exists()
    import_files(files, tmp_path / "t.parquet", clock_offset="1us")
    assert [r["ts_ns"] for r in rows(tmp_path / "t.parquet")] == [5, 1006]


def test_two_traces_of_qemu_without_an_offset_are_refused(tmp_path: Path) -> None:
    files = [
        simpletrace(tmp_path / "trace.bin", 3),
        log(tmp_path / "qemu.log", [line(5_000_000, "virtio_mem_unplugged_all ")]),
    ]
    with pytest.raises(UsageError, match="nothing says how far they are apart"):
        import_files(files, tmp_path / "t.parquet")


def test_counts_are_sums_and_texts_are_kept() -> None:
    first, second = MadeSource("a", [[1]]), MadeSource("b", [[2]])
    first.said = Manifest(
        host="h", kernel="7.3", cpus=2, lost_events=3, loss_marks=1, hz=250, probes=("p",),
        disagreements={"x": 1}, sources=({"file": "a"},),
    )  # fmt: skip
    second.said = Manifest(
        cpus=4, lost_events=4, lost_unknown=True, disagreements={"x": 2}, sources=({"file": "b"},)
    )
    for order in ((first, second), (second, first)):
        got = merged(*order).manifest()
        assert (got.host, got.kernel, got.cpus, got.hz) == ("h", "7.3", 4, 250)
        assert (got.lost_events, got.loss_marks, got.lost_unknown) == (7, 1, True)
        assert (got.disagreements, got.probes) == ({"x": 3}, ("p",))
        assert {s["file"] for s in got.sources} == {"a", "b"}


@pytest.mark.parametrize("what", ["host", "kernel"])
def test_recordings_of_different_hosts_are_refused(what: str) -> None:
    first, second = MadeSource("a", [[1]]), MadeSource("b", [[2]])
    first.said = Manifest(**{what: "one"})  # type: ignore[arg-type]
    second.said = Manifest(**{what: "two"})  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=f"different {what}s"):
        merged(first, second).manifest()


def test_the_same_file_twice_is_refused(tmp_path: Path) -> None:
    file = kernel_trace(tmp_path / "t.dat", [madvise(5, 1)])
    with pytest.raises(UsageError, match="given twice"):
        import_files([file, tmp_path / "." / "t.dat"], tmp_path / "t.parquet")
    with pytest.raises(UsageError, match="the recording itself"):
        import_files([file, log(tmp_path / "q", ["x"])], tmp_path / "q")


def test_a_damaged_file_among_several_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    file = kernel_trace(tmp_path / "t.dat", [madvise(5, 1)])
    broken = simpletrace(tmp_path / "trace.bin", 3)
    broken.write_bytes(broken.read_bytes()[:-2])
    with pytest.raises(ImportFormatError, match=r"^trace\.bin: cut off"):
        import_files([file, broken], tmp_path / "t.parquet")
    assert not (tmp_path / "t.parquet").exists()


def test_all_files_are_closed_whatever_happens() -> None:
    first, second = MadeSource("a", [[1]]), MadeSource("b", [[2]], clock="boot")
    with pytest.raises(UsageError):
        merged(first, second)
    assert first.closed
    assert second.closed


@pytest.mark.parametrize(
    ("text", "ns", "error_ns"),
    [
        ("5s", 5_000_000_000, None),
        ("+1.5ms", 1_500_000, None),
        ("-1795364545.000000001s", -1795364545_000000001, None),
        ("-1s+-2us", -1_000_000_000, 2000),
        (" - 1 min +- 3 ns ", -60_000_000_000, 3),
    ],
)
def test_a_clock_offset_is_a_duration_with_a_sign(text: str, ns: int, error_ns: int | None) -> None:
    assert parse_clock_offset(text) == Offset(ns, error_ns, "--clock-offset")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("5", "not a duration"),
        ("", "not a duration"),
        ("5 fortnights", "fortnights"),
        ("5s+-1", "not a duration"),
        ("5s+-1x", "no unit we know"),
        ("9999999999999999999min", "more than a century"),
        ("--5s", "not a duration"),
    ],
)
def test_a_clock_offset_that_cannot_be_meant_is_refused(text: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        parse_clock_offset(text)


def test_the_command_takes_an_offset_below_zero(tmp_path: Path) -> None:
    kernel_trace(tmp_path / "t.dat", [madvise(5_000_000, 1)])
    log(tmp_path / "qemu.log", [line(7_000_000, "virtio_mem_unplugged_all ")])
    command = [sys.executable, "-m", "tracekit", "import", "t.dat", "qemu.log", "-o", "t.parquet"]
    said = subprocess.run(
        [*command, "--clock-offset", f"-{REALTIME // 10**9}s"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode == 0, said.stderr
    assert [r["ts_ns"] for r in rows(tmp_path / "t.parquet")] == [5_000_000, 7_000_000]


def test_an_offset_for_nothing_is_refused(tmp_path: Path) -> None:
    file = kernel_trace(tmp_path / "t.dat", [madvise(5, 1)])
    with pytest.raises(UsageError, match="all are on 'mono'"):
        import_files([file], tmp_path / "t.parquet", clock_offset="5s")


def test_an_offset_out_of_range_is_refused() -> None:
    late = MadeSource("b", [[(1 << 62) + 5]], clock="boot")
    both = merged(MadeSource("a", [[1]]), late, offset=Offset(1 << 62, None, "--clock-offset"))
    with pytest.raises(UsageError, match="out of their range"):
        list(both.batches())


def test_nothing_to_match_is_no_estimate() -> None:
    lines = Anchors()
    assert estimate(lines, Anchors(lines)) is None
