"""trace.dat of every kind that trace-cmd writes, against trace-cmd's own report of it.

The reports beside the recordings are ``trace-cmd report -t -R`` of version 3.4, which reads them
all; the 3.1 of Debian 12 reads no zlib.
"""

from __future__ import annotations

import gzip
import re
import struct
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tracekit.errors import ImportFormatError
from tracekit.ftrace.trace_dat import OFFSET, TraceDat
from tracekit.ftrace.writer import Instance, Lost, Record, Recording, event_format, record
from tracekit.importers import import_files
from tracekit.store import Manifest

SAMPLES = Path(__file__).parents[2] / "data" / "recordings"
KINDS = {
    "zlib": ("trace.dat v7", "zlib", "mono"),
    "v6-instances": ("trace.dat v6", "none", "mono"),
    "v7-instances": ("trace.dat v7", "zstd", "mono"),
    "date-v6": ("trace.dat v6", "none", "realtime"),
    "ts-offset": ("trace.dat v7", "zstd", "boot"),
    "tsc2nsec": ("trace.dat v7", "zstd", "x86-tsc"),
    "subbuf": ("trace.dat v7", "zstd", "mono"),
}
LINE = re.compile(
    r"^(?:\S+: )? *.+?-(\d+) +\[(\d+)\]\S* +(?:(\d+)\.)?(\d+): (\S+?): +(.*)$", re.MULTILINE
)
LAYOUTS = [(6, "none"), (7, "none"), (7, "zstd"), (7, "zlib")]
MAP = 700
FORMATS = [("iommu", event_format("map", MAP, [(f"u64 {n}", 8, False) for n in ("iova", "size")]))]

Row = dict[str, object]


def unpacked(name: str, folder: Path) -> Path:
    """A sample, as a file."""
    path = folder / f"{name}.dat"
    path.write_bytes(gzip.decompress((SAMPLES / f"{name}.dat.gz").read_bytes()))
    return path


def imported(path: Path) -> tuple[Manifest, list[Row]]:
    """The manifest and the rows."""
    out = path.with_suffix(".parquet")
    manifest = import_files([path], out)
    return manifest, pq.read_table(out).to_pylist()


def mapped(ts: int, iova: int = 0x1000) -> Record:
    """A map of one page."""
    return Record(ts, record(MAP, 42, struct.pack("<QQ", iova, 4096)))


def recording(*cpus: list[Record | Lost]) -> Recording:
    """A recording of these CPUs."""
    return Recording(formats=FORMATS, cpus=cpus)


@pytest.mark.parametrize("name", KINDS)
def test_every_event_has_the_time_and_the_fields_that_trace_cmd_shows(
    name: str, tmp_path: Path
) -> None:
    manifest, rows = imported(unpacked(name, tmp_path))
    text = gzip.decompress((SAMPLES / f"{name}.report.txt.gz").read_bytes()).decode()
    shown, counts = Counter[tuple[object, ...]](), Counter[str]()
    for tid, cpu, seconds, rest, event, fields in LINE.findall(text):
        # Of a clock that it has no name for, trace-cmd shows the whole time in nanoseconds.
        ts = int(seconds) * 10**9 + int(rest) if seconds else int(rest)
        fd = re.search(r"\bfd=(0x[0-9a-f]+)", fields)
        file = int(fd[1], 16) if fd is not None else None
        shown[event, int(cpu), int(tid), ts, file] += 1
        counts[event] += 1
    found = Counter[tuple[object, ...]]()
    for row in rows:
        event = str(row["source"]).partition(":")[2]
        fd_shown = row["fd"] if event == "sys_enter_close" else None
        found[event, row["cpu"], row["tid"], row["ts_ns"], fd_shown] += 1
    assert sum(counts.values()) > 100
    assert found == shown
    assert {r.name.partition(":")[2]: r.count for r in manifest.recorded if r.count} == counts
    source = manifest.sources[0]
    assert (source["format"], source["compression"], manifest.clock) == KINDS[name]
    assert not any(key.endswith("_not_applied") for key in source)


def test_instances_are_read_in_both_versions(tmp_path: Path) -> None:
    for name in ("v6-instances", "v7-instances"):
        manifest, rows = imported(unpacked(name, tmp_path))
        assert manifest.sources[0]["instances"] == "two, one"
        sources = Counter(row["source"] for row in rows)
        assert min(sources[f"syscalls:sys_{way}_openat"] for way in ("enter", "exit")) > 20


def test_instances_have_pages_of_their_own_size(tmp_path: Path) -> None:
    path = unpacked("subbuf", tmp_path)
    with TraceDat.open(path) as file:
        assert {b.name: b.page_size for b in file.buffers} == {"": 16384, "one": 8192}


@pytest.mark.parametrize(("version", "compression"), LAYOUTS)
def test_what_is_written_in_several_instances_and_page_sizes_is_read(
    version: int, compression: str, tmp_path: Path
) -> None:
    top = [mapped(5 + 2 * i, i << 12) for i in range(1500)]
    other = [mapped(6 + 2 * i, i << 12) for i in range(900)]
    for page_size, other_size in ((4096, 4096), (16384, 16384), (8192, 65536)):
        if version == 6 and page_size != other_size:
            continue
        made = recording(top, [])
        made.page_size = page_size
        made.instances = [Instance(name="more", cpus=[[], other], page_size=other_size)]
        made.write(tmp_path / "t.dat", version=version, compression=compression)
        manifest, rows = imported(tmp_path / "t.dat")
        assert [r["ts_ns"] for r in rows if r["cpu"] == 0] == [r.ts_ns for r in top]
        assert [r["ts_ns"] for r in rows if r["cpu"] == 1] == [r.ts_ns for r in other]
        assert manifest.sources[0]["instances"] == "more"


def test_what_an_instances_buffer_refused_is_that_instances(tmp_path: Path) -> None:
    made = recording([mapped(5_000)], [])
    made.instances = [Instance(name="more", cpus=[[mapped(7_000)], []])]
    stats = "CPU: 0\nentries: 1\nnow ts:     0.000012\ndropped events: {}\n"
    made.statistics = [stats.format(2), "\nBuffer: more\n\n", stats.format(5)]
    made.write(tmp_path / "t.dat")
    manifest, rows = imported(tmp_path / "t.dat")
    lost = [(r["ts_ns"], r["until_ns"], r["count"]) for r in rows if r["event"] == "trace.lost"]
    assert lost == [(5_000, 13_000, 2), (7_000, 13_000, 5)]
    assert manifest.lost_events == 7
    assert manifest.sources[0]["dropped_events"] == 7


def test_an_empty_instance_may_have_another_clock(tmp_path: Path) -> None:
    made = recording([mapped(5)])
    made.instances = [Instance(name="more", cpus=[[]], clock="boot")]
    made.write(tmp_path / "t.dat")
    assert imported(tmp_path / "t.dat")[0].clock == "mono"
    made.instances = [Instance(name="more", cpus=[[mapped(7)]], clock="boot")]
    made.write(tmp_path / "t.dat")
    with pytest.raises(ImportFormatError, match="different clocks: 'boot', 'mono'"):
        imported(tmp_path / "t.dat")


@pytest.mark.parametrize("version", [6, 7])
def test_options_that_nobody_knows_are_skipped_and_named(version: int, tmp_path: Path) -> None:
    made = recording([mapped(5)])
    made.extra_options = [(77, b"\1\2\3"), (900, b"")]
    made.write(tmp_path / "t.dat", version=version)
    manifest, rows = imported(tmp_path / "t.dat")
    assert len(rows) == 1
    assert manifest.sources[0]["unknown_options"] == "77, 900"


def test_options_may_be_spread_in_any_order_and_be_there_twice(tmp_path: Path) -> None:
    path = tmp_path / "t.dat"
    made = recording([mapped(5 + i) for i in range(300)], [mapped(6)])
    made.extra_options = [(OFFSET, b"1000\0")]
    made.write(path, compression="zlib")
    raw = bytearray(path.read_bytes())
    with TraceDat.open(path) as file:
        options = list(file.options)
    # Each option in a section of its own, the last one first, and all of them twice but one.
    at_first = raw.index(b"zlib\0") + 12
    chain = [(number, data) for number, data in reversed(options)]
    chain += [o for o in options if o[0] != OFFSET]
    at = len(raw)
    struct.pack_into("<Q", raw, at_first, at)
    for i, (number, data) in enumerate(chain):
        body = struct.pack("<HI", number, len(data)) + data
        at += 16 + len(body) + 14
        body += struct.pack("<HIQ", 0, 8, at if i + 1 < len(chain) else 0)
        raw += struct.pack("<HHIQ", 0, 0, 0, len(body)) + body
    path.write_bytes(raw)
    _, rows = imported(path)
    assert [r["ts_ns"] for r in rows if r["cpu"] == 0] == [1005 + i for i in range(300)]
    assert [r["ts_ns"] for r in rows if r["cpu"] == 1] == [1006]


def test_a_local_clock_is_taken_and_told_to_be_no_clock_of_all_cpus(tmp_path: Path) -> None:
    made = recording([mapped(5)])
    for clock in ("local", "global", "perf", "mono_raw", "tai", "boot"):
        made.clock = clock
        made.write(tmp_path / "t.dat")
        manifest, _ = imported(tmp_path / "t.dat")
        assert (manifest.clock, manifest.clock_comparable) == (clock, clock != "local")
        again = Manifest.from_json(manifest.to_json(), tmp_path)
        assert again.clock_comparable == manifest.clock_comparable
