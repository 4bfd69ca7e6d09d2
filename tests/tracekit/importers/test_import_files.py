"""Files of all kinds -> a trace, or one clear message and nothing left behind."""

from __future__ import annotations

import os
import random
import re
import shutil
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracekit.errors import ImportFormatError, TracekitError, UsageError
from tracekit.ftrace import decoder
from tracekit.ftrace.columns import ARROW_SCHEMA
from tracekit.ftrace.writer import Lost, Record, Recording, event_format, record
from tracekit.importers import import_files, trace_dat
from tracekit.store import Manifest, batch_schema

MAP, UNMAP, ATTACH, OTHER, PRINT, PROBE = range(700, 706)


def numbers(*names: str) -> list[tuple[str, int, bool]]:
    """Fields of eight bytes each."""
    return [(f"u64 {name}", 8, False) for name in names]


MARKER = event_format("print", PRINT, [("unsigned long ip", 8, False), ("char buf", 0, False)])
DEVICE = [("__data_loc char[] device", 4, False)]
FORMATS = [
    ("ftrace", MARKER.replace("field:char buf;", "field:char buf[];")),
    ("iommu", event_format("map", MAP, numbers("iova", "paddr", "size"))),
    ("iommu", event_format("unmap", UNMAP, numbers("iova", "size", "unmapped_size"))),
    ("iommu", event_format("attach_device_to_domain", ATTACH, DEVICE)),
    ("other", event_format("thing", OTHER, numbers("value"))),
    ("vf", event_format("remap", PROBE, numbers("__probe_ip", "domain", "iova"))),
]
LAYOUTS = [(6, "none"), (7, "none"), (7, "zstd")]


def mapped(ts: int, iova: int = 0x1000, tid: int = 42) -> Record:
    """A map of one page."""
    return Record(ts, record(MAP, tid, struct.pack("<QQQ", iova, 2 * iova, 4096)))


def text(ts: int, number: int, what: bytes) -> Record:
    """A marker, or a device's attachment."""
    if number == PRINT:
        return Record(ts, record(PRINT, 42, bytes(8) + what + b"\n\0"))
    return Record(ts, record(ATTACH, 42, struct.pack("<HH", 12, len(what) + 1) + what + b"\0"))


def recording(*cpus: Sequence[Record | Lost]) -> Recording:
    """A recording of these CPUs."""
    return Recording(
        formats=FORMATS,
        cpus=cpus,
        command_lines={42: "qemu"},
        kallsyms="ffffffff81001000 T iommu_map\nffffffff81002000 T iommu_unmap\n",
    )


def imported(
    made: Recording, folder: Path, version: int = 7, compression: str = "zstd"
) -> tuple[Manifest, list[dict[str, object]]]:
    """The manifest and the rows of a made recording."""
    made.write(folder / "t.dat", version=version, compression=compression)
    manifest = import_files([folder / "t.dat"], folder / "t.parquet")
    return manifest, pq.read_table(folder / "t.parquet").to_pylist()


@pytest.mark.parametrize(("version", "compression"), LAYOUTS)
def test_every_layout_holds_the_same(version: int, compression: str, tmp_path: Path) -> None:
    made = recording([mapped(5), text(6, ATTACH, b"0000:00:10.0")], [text(5, PRINT, b"hello")])
    manifest, rows = imported(made, tmp_path, version, compression)
    assert [(r["ts_ns"], r["cpu"], r["event"], r["comm"]) for r in rows] == [
        (5, 0, "iommu.map", "qemu"),
        (5, 1, "trace.marker", "qemu"),
        (6, 0, "iommu.attach", "qemu"),
    ]
    assert (rows[0]["iova"], rows[0]["paddr"], rows[0]["size"]) == (0x1000, 0x2000, 4096)
    assert rows[1]["detail"] == "hello"
    assert rows[2]["name"] == "0000:00:10.0"
    assert (manifest.clock, manifest.kernel, manifest.host) == ("mono", "7.3.4", "host")
    assert (manifest.cpus, manifest.span_ns, manifest.rows) == (2, (5, 6), 3)


def test_batches_have_the_columns_that_the_store_takes() -> None:
    assert ARROW_SCHEMA.names == batch_schema().names
    assert ARROW_SCHEMA.types == batch_schema().types


def test_what_no_event_type_covers_is_counted_by_name(tmp_path: Path) -> None:
    other = Record(7, record(OTHER, 1, bytes(8)))
    foreign = Record(8, record(999, 1, bytes(8)))
    manifest, rows = imported(recording([mapped(5), other, other, foreign]), tmp_path)
    assert len(rows) == 1
    assert {r.name: r.count for r in manifest.unrecognised} == {"other:thing": 2, "?:999": 1}
    never = {r.name for r in manifest.recorded if r.event is not None and not r.count}
    assert never == {"ftrace:print", "iommu:unmap", "iommu:attach_device_to_domain"}


def test_one_name_on_two_functions_is_two_event_types(tmp_path: Path) -> None:
    def hit(ts: int, address: int) -> Record:
        return Record(ts, record(PROBE, 1, struct.pack("<QQQ", address, 0xD0, 0x3000)))

    unknown = [hit(9 + i, 0xFFFFFFFF90000000 + 64 * i) for i in range(200)]
    calls = [hit(5, 0xFFFFFFFF81001004), hit(6, 0xFFFFFFFF81002004), hit(7, 0xFFFFFFFF81001004)]
    manifest, rows = imported(recording(calls + unknown), tmp_path)
    assert [r["event"] for r in rows] == [
        "iommu.map_called", "iommu.unmap_called", "iommu.map_called",
    ]  # fmt: skip
    assert {r.name: r.count for r in manifest.recorded if r.count} == {"vf:remap": 203}


def test_lost_events_become_rows_between_their_neighbours(tmp_path: Path) -> None:
    made = recording([mapped(5), Lost(17), mapped(9), Lost(None), mapped(11)], [mapped(7)])
    manifest, rows = imported(made, tmp_path)
    lost = [(r["ts_ns"], r["until_ns"], r["count"], r["cpu"]) for r in rows if r["until_ns"]]
    assert lost == [(5, 9, 17, 0), (9, 11, None, 0)]
    assert (manifest.lost_events, manifest.loss_marks, manifest.lost_unknown) == (17, 2, True)
    assert manifest.events == {"iommu.map": 4, "trace.lost": 2}
    assert all(r["tid"] is None and r["source"] is None for r in rows if r["until_ns"])


def test_a_clock_that_runs_back_is_held_and_told(tmp_path: Path) -> None:
    manifest, rows = imported(recording([mapped(100), mapped(40), mapped(120)]), tmp_path)
    assert [(r["ts_ns"], r["event"]) for r in rows] == [
        (100, "iommu.map"), (100, "trace.clock_back"), (100, "iommu.map"), (120, "iommu.map"),
    ]  # fmt: skip
    assert rows[1]["until_ns"] == 40
    assert manifest.events["trace.clock_back"] == 1


def test_events_that_a_full_buffer_refused_leave_a_hole_over_the_whole_cpu(tmp_path: Path) -> None:
    made = recording([mapped(5_000), mapped(9_000)], [mapped(7_000)])
    made.statistics = [
        "CPU: 0\nentries: 0\noverrun: 0\nnow ts:     0.000012\ndropped events: 3\n",
        "CPU: 1\nentries: 0\noverrun: 0\nnow ts:     0.000012\ndropped events: 0\n",
    ]
    manifest, rows = imported(made, tmp_path)
    assert rows[0]["event"] == "trace.lost"
    assert (rows[0]["ts_ns"], rows[0]["until_ns"], rows[0]["count"]) == (5_000, 13_000, 3)
    assert [r["ts_ns"] for r in rows[1:]] == [5_000, 7_000, 9_000]
    assert (manifest.lost_events, manifest.loss_marks) == (3, 1)


def test_pages_that_two_cpus_share_are_refused(tmp_path: Path) -> None:
    many = [mapped(5 + i) for i in range(4000)]
    recording(many, many).write(tmp_path / "t.dat", version=6)
    raw = bytearray((tmp_path / "t.dat").read_bytes())
    places = raw.index(b"flyrecord\0") + 10
    size = len(raw) - struct.unpack_from("<Q", raw, places)[0]
    for cpu in range(2):
        struct.pack_into("<QQ", raw, places + 16 * cpu, len(raw) - size, size)
    (tmp_path / "t.dat").write_bytes(raw)
    refused(tmp_path / "t.dat", tmp_path / "t.parquet", "data overlap")


def test_a_chunk_that_claims_to_be_huge_is_refused(tmp_path: Path) -> None:
    recording([mapped(5 + i) for i in range(4000)]).write(tmp_path / "t.dat", compression="zstd")
    raw = bytearray((tmp_path / "t.dat").read_bytes())
    at = raw.rindex(struct.pack("<I", 40960))
    struct.pack_into("<I", raw, at, 1 << 30)
    (tmp_path / "t.dat").write_bytes(raw)
    refused(tmp_path / "t.dat", tmp_path / "t.parquet", "too many|cannot hold")


ticks = st.lists(st.integers(0, 1 << 40), max_size=60).map(sorted)


@given(st.lists(ticks, min_size=1, max_size=4), st.sampled_from(LAYOUTS), st.booleans())
@settings(max_examples=40, deadline=None)
def test_what_is_written_is_what_is_read_in_time_order(
    tmp_path_factory: pytest.TempPathFactory,
    cpus: list[list[int]],
    layout: tuple[int, str],
    small: bool,
) -> None:
    made = recording(*[[mapped(t, iova=i << 12) for i, t in enumerate(c)] for c in cpus])
    folder = tmp_path_factory.mktemp("w")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trace_dat, "SMALL", 1 << 30 if small else 0)
        patch.setattr(decoder, "BATCH_ROWS", 16)
        patch.setattr(decoder, "CHUNK_BYTES", 4096)
        _, rows = imported(made, folder, *layout)
    expected = sorted((t, n, i << 12) for n, c in enumerate(cpus) for i, t in enumerate(c))
    assert [(r["ts_ns"], r["cpu"], r["iova"]) for r in rows] == expected
    assert [r["seq"] for r in rows] == list(range(len(rows)))


@pytest.mark.parametrize(("version", "compression"), LAYOUTS)
def test_trace_cmd_reads_what_is_written(version: int, compression: str, tmp_path: Path) -> None:
    if shutil.which("trace-cmd") is None:
        pytest.skip("trace-cmd is not installed")
    many: list[Record | Lost] = [mapped(1000 + 7 * i, iova=i << 12) for i in range(3000)]
    far: list[Record | Lost] = [
        text(1 << 36, ATTACH, b"0000:00:10.0"),
        Lost(17),
        mapped(1 << 37),
        Lost(),
        mapped(2 << 37),
    ]
    path = tmp_path / "t.dat"
    recording([*many, *far], many[:5], []).write(path, version=version, compression=compression)
    run = subprocess.run(
        ["trace-cmd", "report", "-R", str(path)], capture_output=True, text=True, check=True
    )
    assert len(re.findall(r" map: +iova=0x", run.stdout)) == 3007
    assert "qemu-42" in run.stdout
    assert "iova=0xbb7000 paddr=0x176e000 size=0x1000" in run.stdout
    assert "attach_device_to_domain:  device=0000:00:10.0" in run.stdout
    assert "CPU:0 [17 EVENTS DROPPED]" in run.stdout
    assert "CPU:0 [EVENTS DROPPED]" in run.stdout


# -- what is no recording -----------------------------------------------------------------------


def refused(path: Path, out: Path, match: str) -> None:
    """The import says why, in one line, and leaves nothing."""
    before = sorted(out.parent.iterdir())
    with pytest.raises(TracekitError, match=match) as caught:
        import_files([path], out)
    assert "\n" not in caught.value.message
    assert sorted(out.parent.iterdir()) == before


def test_what_is_no_regular_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    out = tmp_path / "t.parquet"
    refused(tmp_path, out, "is a folder")
    refused(Path("/dev/zero"), out, "not a regular file")
    refused(tmp_path / "none.dat", out, "there is no file")
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", out, "not a regular file")
    (tmp_path / "secret.dat").touch(mode=0)
    if os.geteuid() != 0:
        refused(tmp_path / "secret.dat", out, "no permission")


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "is empty"),
        (b"\x7fELF" + bytes(100), "begins with 7f 45 4c 46"),
        (b"\x17\x08\x44tracing", "does not end"),
        (b"\x17\x08\x44tracing8\0", "version '8'"),
        (b"\x17\x08\x44tracing6\0\1\x08", "big-endian"),
        (b"\x17\x08\x44tracing6\0\0\x04", "32-bit long"),
        (b"\x17\x08\x44tracing6\0\0\x08" + struct.pack("<I", 65537), "pages of 65537 bytes"),
        (b"\x17\x08\x44tracing7\0\0\x08" + struct.pack("<I", 4096) + b"lz4\x001\x00", "'lz4'"),
    ],
)
def test_a_foreign_file_is_named(content: bytes, match: str, tmp_path: Path) -> None:
    (tmp_path / "x.dat").write_bytes(content)
    refused(tmp_path / "x.dat", tmp_path / "t.parquet", match)


def test_no_file_and_one_file_twice_are_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no file"):
        import_files([], tmp_path / "t.parquet")
    (tmp_path / "a").write_bytes(b"x")
    with pytest.raises(UsageError, match="twice"):
        import_files([tmp_path / "a", tmp_path / "a"], tmp_path / "t.parquet")


@pytest.mark.parametrize(("version", "compression"), LAYOUTS)
def test_a_recording_without_events_is_an_empty_trace(
    version: int, compression: str, tmp_path: Path
) -> None:
    manifest, rows = imported(recording([], []), tmp_path, version, compression)
    assert rows == []
    assert (manifest.rows, manifest.span_ns, manifest.events) == (0, None, {})


def test_a_recording_is_not_overwritten_by_its_own_trace(tmp_path: Path) -> None:
    recording([mapped(5)]).write(tmp_path / "t.dat")
    before = (tmp_path / "t.dat").read_bytes()
    with pytest.raises(UsageError, match="the recording itself"):
        import_files([tmp_path / "t.dat"], tmp_path / "t.dat")
    assert (tmp_path / "t.dat").read_bytes() == before


@pytest.mark.parametrize(("version", "compression"), LAYOUTS)
def test_a_file_cut_anywhere_is_refused_and_leaves_nothing(
    version: int, compression: str, tmp_path: Path
) -> None:
    path, out = tmp_path / "t.dat", tmp_path / "t.parquet"
    many = [mapped(5 + i, iova=i << 12) for i in range(2000)]
    recording(many, many).write(path, version=version, compression=compression)
    whole = path.read_bytes()
    for size in [*range(0, 400, 7), *range(400, len(whole), len(whole) // 60)]:
        path.write_bytes(whole[:size])
        with pytest.raises(ImportFormatError):
            import_files([path], out)
        assert not out.exists()


@pytest.mark.parametrize(("version", "compression"), LAYOUTS)
def test_a_flipped_bit_gives_a_trace_or_a_message_never_a_crash(
    version: int, compression: str, tmp_path: Path
) -> None:
    path, out = tmp_path / "t.dat", tmp_path / "t.parquet"
    calls = [Record(i, record(PROBE, 1, struct.pack("<QQQ", 0xFFFFFFFF81001000, i, i)))
             for i in range(100, 150)]  # fmt: skip
    texts = [text(200 + i, (PRINT, ATTACH)[i % 2], b"0000:00:10.0") for i in range(40)]
    recording([*calls, *texts, Lost(3), mapped(900)], [mapped(5), mapped(6)]).write(
        path, version=version, compression=compression
    )
    whole = path.read_bytes()
    rng = random.Random(version * 10 + len(compression))
    outcomes = {"trace": 0, "refused": 0}
    for _ in range(250):
        broken = bytearray(whole)
        for _ in range(rng.choice((1, 1, 8))):
            broken[rng.randrange(len(broken))] ^= 1 << rng.randrange(8)
        path.write_bytes(broken)
        try:
            import_files([path], out)
            said = ""
            outcomes["trace"] += 1
            out.unlink()
        except TracekitError as error:
            said = error.message
            outcomes["refused"] += 1
        assert not out.exists()
        assert "\n" not in said
    assert min(outcomes.values()) > 0, outcomes


def test_a_trace_that_was_there_before_survives_a_failed_import(tmp_path: Path) -> None:
    out = tmp_path / "t.parquet"
    imported(recording([mapped(5)]), tmp_path)
    before = out.read_bytes()
    damaged = (tmp_path / "t.dat").read_bytes()[:-4096]
    (tmp_path / "t.dat").write_bytes(damaged)
    with pytest.raises(ImportFormatError):
        import_files([tmp_path / "t.dat"], out)
    assert out.read_bytes() == before


@pytest.mark.parametrize("clock", ["counter", "uptime", "x86-tsc"])
def test_stamps_that_are_no_time_are_refused(clock: str, tmp_path: Path) -> None:
    made = recording([mapped(5)])
    made.clock = clock
    made.write(tmp_path / "t.dat")
    refused(tmp_path / "t.dat", tmp_path / "t.parquet", f"trace clock '{clock}'")


# -- with and without definitions ---------------------------------------------------------------

DEFINITIONS = {
    "kvm": "kvm/dynamic_events-7.3.4-tracekit-lab.txt",
    "long": "kvm/dynamic_events-7.3.4-tracekit-lab.txt",
    "qemu": "qemu/dynamic_events-qemu.txt",
    "vfio": "vfio/dynamic_events-6.12.95+deb12-amd64.txt",
}


def test_definitions_change_nothing_but_a_field_that_reads_something_else(
    traces: Path, tmp_path: Path
) -> None:
    compared = 0
    for path in sorted(traces.glob("*/*.dat")):
        folder = "kvm" if "iommufd-correct" in path.name else path.parent.name
        if folder not in DEFINITIONS:
            continue
        plain = import_files([path], tmp_path / "a.parquet")
        defined = import_files([path], tmp_path / "b.parquet", probes=traces / DEFINITIONS[folder])
        assert plain.events == defined.events, path.name
        assert defined.probes
        assert not defined.disagreements
        for column in ARROW_SCHEMA.names:  # one at a time: the long recording is large
            one, other = (
                pq.read_table(tmp_path / f"{n}.parquet", columns=[*{column, "source"}])
                for n in "ab"
            )
            if column != "gpa" or "kvm.attributes_post" not in plain.events:
                assert one[column].equals(other[column]), (path.name, column)
                continue
            post = pc.equal(one["source"].cast(pa.utf8()), "vf:kvm_post_set")
            rest = pc.invert(post)
            assert one["gpa"].filter(rest).equals(other["gpa"].filter(rest)), path.name
            assert one["gpa"].filter(post).null_count == plain.events["kvm.attributes_post"]
            assert other["gpa"].filter(post).null_count == 0
        compared += 1
    print(f"{compared} recordings compared")
    assert compared
