"""A copy of a tracefs instance, its pages raw, against the text that the kernel made of it."""

from __future__ import annotations

import re
import struct
import tarfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tracekit.errors import ImportFormatError, TracekitError
from tracekit.ftrace.writer import HEADER_PAGE, Record, event_format, pages, record
from tracekit.importers import import_files
from tracekit.importers.raw_pages import is_raw_pages
from tracekit.store import Manifest

SAMPLE = Path(__file__).parents[2] / "data" / "recordings" / "raw.tar.gz"
MAP = 700
LINE = re.compile(
    r"^ *.+?-(\d+) +\[(\d+)\] \S+ +(\d+)\.(\d{6}): (\w+)(: |\(| -> )(?:fd: (\w+)\))?", re.MULTILINE
)

Row = dict[str, object]


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    """A folder that the kernel's files were copied to."""
    with tarfile.open(SAMPLE) as archive:
        if hasattr(tarfile, "data_filter"):  # Python 3.11.4 and later
            archive.extraction_filter = tarfile.data_filter
        archive.extractall(tmp_path)
    return tmp_path / "raw"


def imported(folder: Path, *, salvage: bool = False) -> tuple[Manifest, list[Row]]:
    """The manifest and the rows."""
    out = folder.with_suffix(".parquet")
    manifest = import_files([folder], out, salvage=salvage)
    return manifest, pq.read_table(out).to_pylist()


def mapped(ts: int) -> Record:
    """A map."""
    return Record(ts, record(MAP, 42, struct.pack("<Q", 0x1000)))


def made(folder: Path, *cpus: Sequence[Record], page_size: int = 4096) -> Path:
    """The least that a folder of raw pages holds."""
    format = folder / "events" / "iommu" / "map" / "format"
    format.parent.mkdir(parents=True)
    format.write_text(event_format("map", MAP, [("u64 iova", 8, False)]))
    data = f"size:{page_size - 16};"
    (folder / "events" / "header_page").write_text(HEADER_PAGE.replace("size:4080;", data))
    for cpu, records in enumerate(cpus):
        (folder / "per_cpu" / f"cpu{cpu}").mkdir(parents=True)
        raw = folder / "per_cpu" / f"cpu{cpu}" / "trace_pipe_raw"
        raw.write_bytes(pages(records, page_size))
    return folder


def test_raw_pages_hold_what_the_kernels_text_shows(recorded: Path) -> None:
    manifest, rows = imported(recorded)
    shown = Counter[tuple[object, ...]]()
    for tid, cpu, seconds, micros, _, what, fd in LINE.findall(
        recorded.with_name("raw.txt").read_text()
    ):
        file = int(fd, 0) if fd else None
        shown[int(cpu), int(tid), int(seconds) * 10**6 + int(micros), what == "(", file] += 1
    found = Counter[tuple[object, ...]]()
    for row in rows:
        ts = row["ts_ns"]
        assert isinstance(ts, int)
        entered = row["source"] == "syscalls:sys_enter_close"
        fd_read = row["fd"] if entered else None
        found[row["cpu"], row["tid"], (ts + 500) // 1000, entered, fd_read] += 1
    assert len(rows) > 300
    assert found == shown
    assert (manifest.clock, manifest.cpus, manifest.machine) == ("mono", 2, "x86_64")
    assert manifest.kernel == "7.3.4-tracekit-lab"
    assert manifest.sources[0]["format"] == "raw ring-buffer pages"
    assert {r["comm"] for r in rows} == {"bash"}


@pytest.mark.parametrize("page_size", [4096, 16384])
def test_the_page_size_is_header_pages_or_said_apart(page_size: int, tmp_path: Path) -> None:
    records = [mapped(5 + i) for i in range(2000)]
    folder = made(tmp_path / "one", records, page_size=page_size)
    assert len(imported(folder)[1]) == 2000
    folder = made(tmp_path / "two", records, page_size=page_size)
    (folder / "events" / "header_page").write_text(HEADER_PAGE)
    (folder / "buffer_subbuf_size_kb").write_text(f"{page_size // 1024}\n")
    assert len(imported(folder)[1]) == 2000


def test_files_that_a_killed_trace_cmd_left_are_pages_too(tmp_path: Path) -> None:
    folder = made(tmp_path / "left")
    for cpu in (0, 3):
        (folder / f"trace.dat.cpu{cpu}").write_bytes(pages([mapped(5 + cpu)]))
    manifest, rows = imported(folder)
    assert [(r["cpu"], r["ts_ns"]) for r in rows] == [(0, 5), (3, 8)]
    assert not manifest.clock_comparable  # nothing says the clock, and the kernel's own is local


def test_its_own_definitions_say_what_probes_fetched(tmp_path: Path) -> None:
    folder = made(tmp_path / "one", [mapped(5)])
    (folder / "dynamic_events").write_text("p:vf/mapit iommu_map domain=$arg1:x64\n")
    assert imported(folder)[0].probes == ("p:vf/mapit iommu_map domain=$arg1:x64",)


def test_what_the_buffer_refused_is_told(tmp_path: Path) -> None:
    folder = made(tmp_path / "one", [mapped(5_000)])
    (folder / "per_cpu" / "cpu0" / "stats").write_text(
        "entries: 1\nnow ts:     0.000012\ndropped events: 3\n"
    )
    assert imported(folder)[0].lost_events == 3


def test_a_cut_off_file_is_refused_or_salvaged(tmp_path: Path) -> None:
    records = [mapped(5 + i) for i in range(1000)]
    folder = made(tmp_path / "one", records, records)
    raw = folder / "per_cpu" / "cpu1" / "trace_pipe_raw"
    raw.write_bytes(raw.read_bytes()[:-100])
    with pytest.raises(ImportFormatError, match=r"cpu1/trace_pipe_raw has .* is it cut") as caught:
        imported(folder)
    assert caught.value.help is not None
    assert "--salvage" in caught.value.help
    manifest, rows = imported(folder, salvage=True)
    lost = [r for r in rows if r["event"] == "trace.lost"]
    assert [(r["cpu"], r["until_ns"], r["count"]) for r in lost] == [(1, 1004, None)]
    assert sum(r["cpu"] == 0 for r in rows) == 1000
    assert "CPU 1" in str(manifest.sources[0]["salvaged"])


def test_other_folders_are_not_taken_for_one(tmp_path: Path) -> None:
    assert not is_raw_pages(tmp_path)
    (tmp_path / "per_cpu" / "cpu0").mkdir(parents=True)
    assert not is_raw_pages(tmp_path)
    with pytest.raises(TracekitError, match="is a folder"):
        imported(tmp_path)


@pytest.mark.parametrize(
    ("gone", "put", "match"),
    [
        ("events/header_page", None, "no events/header_page"),
        ("events/iommu/map/format", None, "holds no events/SYSTEM/NAME/format"),
        ("events/iommu/map/format", "nonsense", "events/iommu/map/format: "),
        ("events/header_page", "nonsense", "pages of 0 bytes"),
        ("buffer_subbuf_size_kb", "5", "pages of 5120 bytes"),
        ("buffer_subbuf_size_kb", "many", "pages of 0 bytes"),
        ("per_cpu/cpu0/trace_pipe_raw", None, "holds no per_cpu/cpuN/trace_pipe_raw"),
        ("trace_clock", "local [counter]", "it counts events"),
        ("trace_clock", "local [x86-tsc]", "does not say how long one is"),
        ("trace.dat.cpu0", "", "CPU 0 is there twice"),
    ],
)
def test_what_a_folder_lacks_is_said(
    gone: str, put: str | None, match: str, tmp_path: Path
) -> None:
    folder = made(tmp_path / "one", [mapped(5)])
    if put is None:
        (folder / gone).unlink()
    else:
        (folder / gone).write_text(put)
    with pytest.raises(ImportFormatError, match=match) as caught:
        imported(folder)
    assert "\n" not in caught.value.message
    assert not (tmp_path / "one.parquet").exists()
