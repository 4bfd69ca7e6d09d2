"""ftrace's text against the recordings that it was printed from, and damaged, and made up."""

from __future__ import annotations

import gzip
import json
import os
import random
import shutil
import struct
import subprocess
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from recorded.judges import replayed_json

from tracekit.errors import ImportFormatError, TracekitError
from tracekit.ftrace import text_lines, text_records
from tracekit.ftrace.event_format import parse_format
from tracekit.ftrace.text_lines import is_ftrace_text
from tracekit.ftrace.text_wordings import WORDINGS
from tracekit.ftrace.tracepoints import TRACEPOINTS
from tracekit.ftrace.writer import Lost, Record, Recording
from tracekit.importers import import_files
from tracekit.importers.ftrace_text import NOT_SHOWN
from tracekit.store import Manifest

DATA = Path(__file__).parents[2] / "data"
TEXT = DATA / "ftrace_text"
FOLDER = Path(os.environ.get("TRACEKIT_TRACES") or DATA / "traces")
RECORDINGS = [
    p
    for p in sorted(FOLDER.glob("*/*.dat"))
    if p.stat().st_size < 1 << 20 or p.parent.name in ("vfio", "vsock")
]
MICROSECOND = 1000

needs_trace_cmd = pytest.mark.skipif(
    shutil.which("trace-cmd") is None, reason="trace-cmd is not installed"
)
Row = dict[str, Any]
Imported = tuple[Manifest, list[Row]]


def imported(path: Path, *, probes: Path | None = None, salvage: bool = False) -> Imported:
    out = path.with_name(path.name + ".parquet")
    manifest = import_files([path], out, probes=probes, salvage=salvage)
    return manifest, pq.read_table(out).to_pylist()


def of_text(folder: Path, text: str | bytes, **options: Any) -> Imported:
    path = folder / "t.txt"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return imported(path, **options)


def line(event: str, at: str = "1.000000", *, cpu: int = 0, tid: int = 7, name: str = "x") -> str:
    return f"{name:>16}-{tid:<7} [{cpu:03}] ..... {at:>12}: {event}\n"


def shown(row: Row) -> Row:
    """A row without its number, and without what is null."""
    return {k: v for k, v in row.items() if v is not None and k != "seq"}


def differences(rows: list[Row], others: list[Row]) -> dict[str, set[str]]:
    """Columns in which rows differ, by event type; times more than rounding explains."""
    found: dict[str, set[str]] = defaultdict(set)
    assert len(rows) == len(others)
    for one, other in zip(rows, others, strict=True):
        for column in one:
            if column in ("ts_ns", "until_ns") and one[column] is not None:
                same = abs(one[column] - other[column]) <= MICROSECOND // 2
            else:
                same = one[column] == other[column]
            if not same:
                found[one["event"]].add(column)
    return dict(found)


def not_shown(printed: str, event: str) -> set[str]:
    return {*NOT_SHOWN[printed].get("*", ()), *NOT_SHOWN[printed].get(event, ())}


# -- what the kernel printed ---------------------------------------------------------------------


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    return Path(shutil.copy(TEXT / "trace.txt", tmp_path))


def recorded_rows() -> list[Row]:
    with gzip.open(TEXT / "trace.rows.jsonl.gz", "rt", encoding="utf-8") as file:
        return [json.loads(one) for one in file]


def test_the_kernels_text_gives_the_rows_of_its_recording(sample: Path) -> None:
    _, rows = imported(sample, probes=TEXT / "dynamic_events.txt")
    expected = recorded_rows()
    assert len(rows) == len(expected) > 400
    for row, wanted in zip(rows, expected, strict=True):
        found = shown(row)
        assert found.pop("pid") > 0  # which the recording does not show
        assert abs(found.pop("ts_ns") - wanted.pop("ts_ns")) <= MICROSECOND // 2
        assert found == wanted


def test_without_definitions_only_the_groups_of_probes_are_unknown(sample: Path) -> None:
    manifest, rows = imported(sample)
    assert not [r for r in manifest.recorded if r.event is None]
    for row, wanted in zip(rows, recorded_rows(), strict=True):
        group, _, name = row.pop("source").partition(":")
        system, _, recorded_name = wanted.pop("source").partition(":")
        assert name == recorded_name
        assert group == (system if f"{system}:{name}" in TRACEPOINTS else "?")
        found = shown(row)
        # That this probe reads the wrong place, only its definition says.
        unsure = {"gpa"} if row["event"] == "kvm.attributes_post" else set()
        for column in ("pid", "ts_ns", *unsure):
            found.pop(column, None)
            wanted.pop(column, None)
        assert found == wanted


def test_the_manifest_says_what_the_text_cannot(sample: Path) -> None:
    manifest, rows = imported(sample)
    assert manifest.clock == "unknown"
    assert manifest.host is None
    assert manifest.cpus == 2
    (source,) = manifest.sources
    assert source["format"] == "ftrace text"
    assert source["stamp_precision_ns"] == MICROSECOND
    assert manifest.span_ns == (rows[0]["ts_ns"], rows[-1]["ts_ns"])
    assert not any(row["ts_ns"] % MICROSECOND for row in rows)


def test_a_name_that_looks_like_a_line_is_a_name(sample: Path) -> None:
    _, rows = imported(sample)
    names = {row["tid"]: row["comm"] for row in rows}
    assert names[77] == "x (y) [003] z"


def test_a_loss_that_trace_pipe_shows_is_a_hole_of_its_cpu(tmp_path: Path) -> None:
    text = (TEXT / "trace_pipe-lost.txt").read_text()
    manifest, rows = of_text(tmp_path, text)
    (hole,) = [r for r in rows if r["event"] == "trace.lost"]
    before, _, after = text.partition("CPU:0 [LOST 1246 EVENTS]\n")
    assert hole["cpu"] == 0
    assert hole["count"] == manifest.lost_events == 1246
    last, first = before.splitlines()[-1], after.splitlines()[0]
    assert f" {hole['ts_ns'] / 1e9:.6f}:" in last
    assert f" {hole['until_ns'] / 1e9:.6f}:" in first


def test_what_the_full_buffer_overwrote_is_a_hole_before_each_cpus_first_event(
    tmp_path: Path,
) -> None:
    manifest, rows = of_text(tmp_path, (TEXT / "trace-overwritten.txt").read_text())
    assert manifest.lost_events == 2324 - 989
    assert rows[0]["event"] == "trace.lost"
    assert rows[0]["until_ns"] == rows[1]["ts_ns"]
    assert manifest.sources[0]["overwritten_events"] == 2324 - 989


# -- what trace-cmd prints -----------------------------------------------------------------------


def printed(recording: Path, folder: Path, *options: str) -> Path:
    path = folder / "report.txt"
    run = subprocess.run(
        ["trace-cmd", "report", *options, str(recording)], capture_output=True, check=True
    )
    path.write_bytes(run.stdout)
    return path


def definitions_of(recording: Path) -> Path | None:
    return next(
        (
            p
            for p in sorted(
                recording.parents[1].glob("*/dynamic_events*.txt"),
                key=lambda p: (p.parent != recording.parent, p),
            )
            if recording.stem.endswith(p.stem.partition("-")[2])
            or (recording.parent == p.parent and "qemu" in p.name)
        ),
        None,
    )


@needs_trace_cmd
@pytest.mark.parametrize("recording", RECORDINGS, ids=lambda p: p.stem)
@pytest.mark.parametrize("options", [(), ("-R", "-t")], ids=["report", "report-R-t"])
def test_a_recordings_report_gives_the_recordings_rows(
    recording: Path, options: tuple[str, ...], tmp_path: Path
) -> None:
    probes = definitions_of(recording)
    binary = Path(shutil.copy(recording, tmp_path))
    wanted, expected = imported(binary, probes=probes)
    manifest, rows = imported(printed(recording, tmp_path, *options), probes=probes)
    assert manifest.events == wanted.events
    # Events of one moment on two CPUs: the recording has them in the order of CPUs.
    found = differences(*(sorted(r, key=of_thread) for r in (expected, rows)))
    kind = "trace-cmd report -R" if "-R" in options else "trace-cmd report"
    for event, columns in found.items():
        assert columns == not_shown(kind, event) & {"context"}, event
    left = {r.name.partition(":")[2]: r.count for r in manifest.recorded if r.event is None}
    assert left == {r.name.partition(":")[2]: r.count for r in wanted.recorded if not r.event}


def of_thread(row: Row) -> tuple[int, int, int]:
    """Threads one after another, each in its order."""
    return row["cpu"], -1 if row["tid"] is None else row["tid"], row["seq"]


@needs_trace_cmd
@pytest.mark.parametrize("options", [("-l",), ("-N",), ("-R", "-l"), ("-l", "-t", "--ts-diff")])
def test_every_spelling_of_trace_cmd_is_read(options: tuple[str, ...], tmp_path: Path) -> None:
    recording = next(iter(sorted((DATA / "traces").glob("*/*.dat"))))
    probes = definitions_of(recording)
    _, expected = imported(Path(shutil.copy(recording, tmp_path)), probes=probes)
    _, rows = imported(printed(recording, tmp_path, *options), probes=probes)
    short = {"comm"} if "-l" in options else {"context"}
    assert set().union(*differences(expected, rows).values()) <= short
    if "-l" in options:
        assert [r["context"] for r in rows] == [r["context"] for r in expected]


BUGGY = [
    p for p in RECORDINGS if p.name.startswith(("trace-kvm-type1-buggy", "trace-fmt-default"))
][-1:]


@needs_trace_cmd
@pytest.mark.parametrize("recording", BUGGY, ids=lambda p: p.stem)
def test_replay_of_the_report_gives_the_recordings_findings(
    recording: Path, tmp_path: Path
) -> None:
    probes = definitions_of(recording)
    binary = Path(shutil.copy(recording, tmp_path))
    imported(binary, probes=probes)
    wanted = findings(binary)
    assert any(code == "TK101" for code, *_ in wanted)
    text = printed(recording, tmp_path)
    imported(text, probes=probes)
    assert findings(text) == wanted
    # Without definitions trace-cmd's text does not tell what probes were on.
    imported(text)
    assert set(findings(text)) <= set(wanted)


def findings(recording: Path) -> list[tuple[object, ...]]:
    path = recording.with_name(recording.name + ".parquet")
    every = replayed_json(path, 1_000_000)
    return sorted((v[0], v[1], str(v[4]), str(v[5])) for v in every if v[1] == "error")


FORMATS = sorted(FOLDER.glob("formats/*/kvm-kvm_exit.format"))


@needs_trace_cmd
@pytest.mark.parametrize("options", [(), ("-R", "-t")], ids=["report", "report-R-t"])
@pytest.mark.skipif(not FORMATS, reason="TRACEKIT_TRACES has no formats")
def test_made_records_of_every_tracepoint_lose_only_what_is_listed(
    options: tuple[str, ...], tmp_path: Path
) -> None:
    for first in FORMATS:
        recording = tmp_path / "made.dat"
        made = records_of_all(first.parent, random.Random(1))
        made.write(recording)
        _, expected = imported(recording)
        manifest, rows = imported(printed(recording, tmp_path, *options))
        assert not [r for r in manifest.recorded if r.event is None]
        kind = "trace-cmd report -R" if "-R" in options else "trace-cmd report"
        found = differences(expected, rows)
        for event, columns in found.items():
            assert columns <= not_shown(kind, event), event
        if not options:
            assert not_shown(kind, "kvm.exit") == found["kvm.exit"]
            assert not_shown(kind, "kvm.userspace_exit") == found["kvm.userspace_exit"]


def records_of_all(folder: Path, rng: random.Random) -> Recording:
    """Some records of each static tracepoint whose format is in the folder."""
    formats, records, now = [], [], 10**9
    for path in sorted(folder.glob("*.format")):
        system, _, name = path.stem.partition("-")
        if f"{system}:{name}" not in TRACEPOINTS:
            continue
        event = parse_format(system, path.read_text())
        formats.append((system, event.text))
        size = max(f.offset + f.size for f in event.fields.values()) + 3 & ~3
        for index in range(6):
            body, texts = bytearray(size), b""
            struct.pack_into("<HBBi", body, 0, event.id, 0, 0, 100)
            for field in event.fields.values():
                if field.data_loc:
                    text = b"0000:00:1%d.0\0" % index
                    struct.pack_into("<HH", body, field.offset, size + len(texts), len(text))
                    texts += text + bytes(-len(text) % 4)
                    continue
                value = rng.choice([0, 1, 5, 12, 39, 2**31 - 1, rng.getrandbits(8 * field.size)])
                if field.name == "errno":
                    value = rng.choice([0, -4, -14])
                if field.name == "exit_reason":
                    value = rng.choice([0x30, 0x64, 0xFFFF])
                raw = value & (1 << 8 * field.size) - 1
                body[field.offset : field.offset + field.size] = raw.to_bytes(field.size, "little")
            now += 12345
            records.append(Record(now, bytes(body) + texts))
    return Recording(formats=formats, cpus=[records], command_lines={100: "q-1 [000] x"})


@needs_trace_cmd
def test_events_that_trace_cmd_calls_dropped_are_a_hole(tmp_path: Path) -> None:
    (system, text), *_ = ((s, t) for s, t in [("syscalls", CLOSE_FORMAT)])
    body = struct.pack("<HBBiiiQ", 9, 0, 0, 7, 3, 0, 5)
    records = [Record(1000_000, body), Lost(17), Record(2000_000, body)]
    recording = tmp_path / "made.dat"
    Recording(formats=[(system, text)], cpus=[records]).write(recording)
    report = printed(recording, tmp_path)
    assert "EVENTS DROPPED" in report.read_text()
    manifest, rows = imported(report)
    assert manifest.lost_events == 17
    assert [r["event"] for r in rows] == ["close.entered", "trace.lost", "close.entered"]


CLOSE_FORMAT = (
    "name: sys_enter_close\nID: 9\nformat:\n"
    "\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n"
    "\tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;\n"
    "\tfield:unsigned char common_preempt_count;\toffset:3;\tsize:1;\tsigned:0;\n"
    "\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\n"
    "\tfield:int __syscall_nr;\toffset:8;\tsize:4;\tsigned:1;\n"
    "\tfield:unsigned int fd;\toffset:16;\tsize:8;\tsigned:0;\n\n"
    'print fmt: "fd: 0x%08lx", ((unsigned long)(REC->fd))\n'
)

# -- wordings ------------------------------------------------------------------------------------

SPELLED: list[tuple[str, Row]] = [
    ("sys_ioctl(fd: d, cmd: 3b71, arg: 7ffd00)", {"fd": 13, "cmd": 0x3B71, "vaddr": 0x7FFD00}),
    ("sys_ioctl -> 0xffffffffffffffea", {"event": "ioctl.returned", "ret": -22}),
    ("sys_close(fd: 0xa)", {"event": "close.entered", "fd": 10}),
    (
        "sys_mmap(addr: 0, len: 0x2000, prot: 3, flags: 0x22, fd: 0xffffffff, off: 0)",
        {"event": "mmap.entered", "size": 0x2000, "flags": 0x22, "file_fd": None},
    ),
    (
        'sys_openat(dfd: 1, filename: 9 "/a, flags: b", flags: O_RDWR|O_CREAT, mode: 0666)',
        {"name": "/a, flags: b", "flags": 0x42},
    ),
    ("sys_openat(dfd: 1, filename: 7ffd, flags: 80000, mode: 0)", {"flags": 0x80000}),
    ('sys_creat(pathname: 1 "/p", mode: 0600)', {"event": "open.entered", "name": "/p"}),
    ("kvm_exit: vcpu 3 reason 0x4d rip 0x1 info1 0x0", {"id": 3, "flags": 0x4D}),
    ("kvm_exit: vcpu 3 reason EPT_VIOLATION rip 0x1", {"id": 3, "flags": None}),
    ("kvm_entry: vcpu 2, rip 0x1[immediate exit]", {"event": "kvm.entry", "id": 2}),
    ("kvm_userspace_exit: reason restart (4)", {"flags": None, "ret": -4}),
    ("kvm_userspace_exit: reason error (14)", {"flags": None, "ret": -14}),
    ("kvm_userspace_exit: reason 0x27 (39)", {"flags": 39, "ret": None}),
    ("kvm_hypercall: nr 0xc a0 0x5000 a1 0x2 a2 0x10 a3 0x0", {"gpa": 0x5000, "size": 0x2000}),
    (
        "kvm_page_fault: vcpu 1 rip 0x1 address 0x0000000000005000 error_code 0x182",
        {"id": 1, "gpa": 0x5000, "flags": 0x182},
    ),
    (
        "kvm_rmp_fault: vcpu 1 gpa 0000000000005000 pfn 0x1 error_code 0x2 rmp_level 1"
        " psmash_ret 0",
        {"event": "kvm.rmp_fault", "gpa": 0x5000},
    ),
    ("kvm_vmgexit_enter: vcpu 1, exit_reason 80000010, exit_info1 0, exit_info2 0",
     {"flags": 0x80000010}),
    ("map: IOMMU: iova=0x1000 - 0x2000 paddr=0x3000 size=4096", {"event": "iommu.map"}),
    ("map: (iommu_map+0x4/0x80) domain=0xffff8880 iova=0x1000", {"event": "iommu.map_called"}),
    ("io_page_fault: IOMMU:drv 0000:00:1.0 iova=0x10 flags=0x0001", {"name": "0000:00:1.0"}),
    ("tracing_mark_write: a: b", {"event": "trace.marker", "detail": "a: b"}),
    ("x: (a+0x1/0x2 [m] <- iommu_unmap) arg1=0x1000", {"event": "iommu.unmap_returned"}),
    ("x: (a+0x1/0x2 <- kvm_vm_ioctl [kvm]) ret=0xfffffff2", {"ret": -14}),
    ("p_iommu_domain_free_0: (ffffffff8163a030) domain=0x7", {"event": "iommu.domain_freed"}),
    ("iommu_unmap__exit: (ffffffff8163a030 <- ffffffff8163a031) arg1=0x7", {"ret": 7}),
    (
        "e: (syscalls.sys_enter_ioctl) fd=3 cmd=0x3b72 argsz=24 flags=0x2 a8=0x1000 a16=0x2000",
        {"event": "ioctl.arguments", "flags": 2, "iova": 0x1000, "size": 0x2000},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("event", "wanted"), SPELLED, ids=[e for e, _ in SPELLED])
def test_an_events_text_fills_its_columns(event: str, wanted: Row, tmp_path: Path) -> None:
    manifest, rows = of_text(tmp_path, line(event))
    (row,) = rows
    assert {k: row[k] for k in wanted} == wanted
    assert manifest.recorded[0].count == 1


def test_every_static_tracepoint_has_its_wordings() -> None:
    sources = {one.source for every in WORDINGS.values() for one in every}
    assert set(TRACEPOINTS) - sources == set()


@pytest.mark.parametrize(
    "event",
    [
        "x: (ffffffff8163a030) domain=0xffff8880 iova=0x1000",
        "x: (iommu_map+0x40/0x80) iova=0x1000",
        "e: (syscalls.sys_enter_read) fd=3 cmd=0x3b72",
        "map: IOMMU: iova=",
        "sched_switch: prev_comm=a prev_pid=1 ==> next_comm=b",
        "mutex_lock <-foo",
        "e: fd=3 cmd=(fault)",
    ],
)
def test_what_no_event_type_covers_is_counted_by_name(event: str, tmp_path: Path) -> None:
    manifest, rows = of_text(tmp_path, line(event) * 3)
    assert rows == []
    (left,) = manifest.unrecognised
    assert left.name == f"?:{event.split()[0].rstrip(':')}"
    assert left.count == 3


@pytest.mark.parametrize(
    ("flags", "context"),
    [
        ("d.h1.", 0x09),
        ("..s..", 0x10),
        ("dNH2.", 0x3D),
        ("b....", 0x80),
        ("...1", 0),
        ("Dpz..", 0xE1),
    ],
)
def test_flags_are_the_records_flags(flags: str, context: int, tmp_path: Path) -> None:
    _, rows = of_text(tmp_path, line("sys_close(fd: 1)").replace(".....", flags))
    assert rows[0]["context"] == context


# -- order ---------------------------------------------------------------------------------------


def fds(rows: list[Row], tid: int) -> list[int]:
    return [r["fd"] for r in rows if r["tid"] == tid and r["event"] == "close.entered"]


def test_a_thread_that_moves_within_a_microsecond_keeps_its_order(tmp_path: Path) -> None:
    text = "".join(line(f"sys_close(fd: {n})", cpu=n % 2 ^ 1) for n in range(9))
    _, rows = of_text(tmp_path, text)
    assert fds(rows, 7) == list(range(9))
    assert {r["ts_ns"] for r in rows} == {1_000_000_000}


def test_lines_of_different_cpus_are_brought_into_time_order(tmp_path: Path) -> None:
    early = line("sys_close(fd: 1)", "1.000001", cpu=1, tid=8)
    text = line("sys_close(fd: 2)", "1.000002") + early + line("sys_close(fd: 3)", "1.000003")
    manifest, rows = of_text(tmp_path, text)
    assert [r["fd"] for r in rows] == [1, 2, 3]
    assert "trace.clock_back" not in manifest.events


@pytest.mark.parametrize("cpu", [0, 1])
def test_time_that_runs_back_on_a_cpu_or_a_thread_is_marked(cpu: int, tmp_path: Path) -> None:
    text = line("sys_close(fd: 1)", "1.000009") + line("sys_close(fd: 2)", "1.000004", cpu=cpu)
    _, rows = of_text(tmp_path, text)
    assert [r["event"] for r in rows] == ["close.entered", "trace.clock_back", "close.entered"]
    assert fds(rows, 7) == [1, 2]
    assert rows[1]["until_ns"] == 1_000_004_000
    assert {r["ts_ns"] for r in rows} == {1_000_009_000}


def test_small_pieces_give_the_same_rows(sample: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, expected = imported(sample)
    monkeypatch.setattr(text_lines, "PIECE_BYTES", 1000)
    monkeypatch.setattr(text_records, "UNIT", 8192)
    _, rows = imported(sample)
    assert rows == expected


def test_the_texts_of_cpus_one_after_another_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(text_lines, "PIECE_BYTES", 1000)
    one = "".join(line("sys_close(fd: 1)", f"1.{n:06}", tid=5) for n in range(200))
    other = "".join(line("sys_close(fd: 1)", f"1.{n:06}", tid=6, cpu=1) for n in range(200))
    with pytest.raises(ImportFormatError, match=r"line 201 is .* older than lines far before"):
        of_text(tmp_path, one + other)


# -- damage --------------------------------------------------------------------------------------


def test_a_line_of_another_kind_is_refused_and_shown(tmp_path: Path) -> None:
    text = line("sys_close(fd: 1)") + "no \x1b[31mline\n" + line("sys_close(fd: 2)")
    with pytest.raises(ImportFormatError) as error:
        of_text(tmp_path, text)
    assert error.value.message == "t.txt line 2 is not an ftrace line\n    no \\x1b[31mline"
    assert not list(tmp_path.glob("*.parquet"))


@pytest.mark.parametrize("cut", range(1, 40, 3))
def test_a_cut_last_line_is_refused_or_salvaged(cut: int, tmp_path: Path) -> None:
    text = line("sys_close(fd: 1)") + line("sys_close(fd: 2)", "1.000002")
    with pytest.raises(ImportFormatError, match="line 2 does not end") as error:
        of_text(tmp_path, text[:-cut])
    assert "--salvage" in str(error.value.help)
    manifest, rows = of_text(tmp_path, text[:-cut], salvage=True)
    assert [r["event"] for r in rows] == ["close.entered", "trace.lost"]
    assert manifest.lost_unknown
    assert manifest.sources[0]["bad_lines_skipped"] == 1


def test_a_bad_line_that_is_skipped_is_a_hole_on_every_cpu(tmp_path: Path) -> None:
    around = [line("sys_close(fd: 1)", f"1.00000{n}", cpu=n % 2, tid=n % 2 + 5) for n in range(4)]
    text = "".join(around[:2]) + "rubbish\n" + "".join(around[2:])
    _, rows = of_text(tmp_path, text, salvage=True)
    holes = {r["cpu"]: (r["ts_ns"], r["until_ns"]) for r in rows if r["event"] == "trace.lost"}
    second = 1_000_000_000
    assert holes == {0: (second, second + 2000), 1: (second + 1000, second + 3000)}


def test_stamps_that_are_no_seconds_are_refused(tmp_path: Path) -> None:
    text = line("sys_close(fd: 1)").replace("1.000000", "123456")
    with pytest.raises(ImportFormatError, match="its stamp is no time") as error:
        of_text(tmp_path, text)
    assert "mono" in str(error.value.help)


def test_a_marker_of_several_lines_is_no_bad_line(tmp_path: Path) -> None:
    text = line("tracing_mark_write: one") + "two\nthree\n" + line("sys_close(fd: 1)")
    manifest, rows = of_text(tmp_path, text)
    assert [r["event"] for r in rows] == ["trace.marker", "close.entered"]
    assert manifest.sources[0]["marker_lines_not_kept"] == 2


def test_headings_and_stacks_are_no_bad_lines(tmp_path: Path) -> None:
    text = (
        "# tracer: nop\n#\n\ncpus=2\nCPU 1 is empty\n##### CPU 0 buffer started ####\n"
        + line("<stack trace>")
        + " => foo\n=> bar (ffffffff81000000)\n"
        + line("sys_close(fd: 1)")
    )
    _, rows = of_text(tmp_path, text.replace("\n", "\r\n"))
    assert [r["event"] for r in rows] == ["close.entered"]


def test_text_of_an_empty_buffer_is_an_empty_trace(tmp_path: Path) -> None:
    manifest, rows = of_text(tmp_path, "# tracer: nop\n#\n")
    assert rows == []
    assert manifest.span_ns is None


@pytest.mark.parametrize(
    ("start", "is_one"),
    [
        (b"# tracer: nop\n", True),
        (b"cpus=2\n  a-1 [000] 1.000000: x: y\n", True),
        (b"  a-1 ( 1) [000] d..1. 1.000000123: sys_x(a: 1)\n", True),
        (b"# a comment\nnot a line\n", False),
        (b"\x7fELF", False),
        (b"1@1.000000:vfio_x\n", False),
        (b"2026-11-22T10:00:00.000000Z kvm_x\n", False),
        (b"", False),
    ],
)
def test_text_is_recognised_by_its_first_line(start: bytes, is_one: bool) -> None:
    assert is_ftrace_text(start) is is_one


SAMPLE_LINES = (TEXT / "trace.txt").read_bytes().splitlines(keepends=True)
MUTATIONS = st.lists(
    st.tuples(
        st.integers(0, 10**6),
        st.integers(0, 30),
        st.one_of(
            st.binary(max_size=12),
            st.sampled_from(
                [b"-1 [000] 1.0", b"\n", b"=", b"(", b" <- ", b"0xffffffffffffffffff", b"9" * 25,
                 b"CPU:3 [LOST 99 EVENTS]\n", b" common_pid=1", b'"', b"\r\n", b"\0", b"[9999]"]
            ),
        ),
    ),
    max_size=8,
)  # fmt: skip


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(begin=st.integers(0, len(SAMPLE_LINES) - 1), changes=MUTATIONS, salvage=st.booleans())
def test_damaged_text_is_read_or_refused(
    begin: int, changes: list[tuple[int, int, bytes]], salvage: bool, tmp_path: Path
) -> None:
    text = b"".join(SAMPLE_LINES[begin : begin + 25])
    for at, size, new in changes:
        at %= len(text) + 1
        text = text[:at] + new + text[at + size :]
    started = time.monotonic()
    try:
        manifest, rows = of_text(tmp_path, text, salvage=salvage)
    except TracekitError as error:
        said = error.message
    else:
        said = ""
        times = [r["ts_ns"] for r in rows]
        assert times == sorted(times)
        assert manifest.rows == len(rows)
    assert said.replace("\n    ", "").isprintable()
    assert time.monotonic() - started < 5


@pytest.mark.parametrize(
    "body",
    [
        "x: (f+0x1/0x2)" + " a=(" * 10_000,
        "sched_process_exec: filename=" + " pid=" * 10_000,
        "sys_openat(dfd: " + ", filename: " * 5_000,
        "".join(f" f{n}={n}" for n in range(5_000)),
        "e: fd=1 cmd=2" + "".join(f" a{n}=1" for n in range(100)),
        "-1 [0] 1" * 8_000,
    ],
    ids=range(6),
)
def test_long_hostile_lines_take_no_long_time(body: str, tmp_path: Path) -> None:
    started = time.process_time()
    of_text(tmp_path, line("sys_close(fd: 1)") + line(body) * 20, salvage=True)
    assert time.process_time() - started < 5
