"""Pages go into files as they are; what they do not show is written beside them."""

from __future__ import annotations

import errno
import json
import os
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest
from fake_host import FakeTracefs

from collectors.recorder import CHUNKS, COMPLETE, Chunk, Limits, Recorder
from collectors.tracefs.cpu_pages import CpuPages, Stats
from tracekit.ftrace.writer import Record, event_format, pages, record
from tracekit.importers import import_files

NUMBER = 700
Told = dict[str, object]


def page_bytes(times: Sequence[int]) -> bytes:
    return pages([Record(ts, record(NUMBER, 42, bytes(8))) for ts in times])


@pytest.fixture
def host(tracefs: FakeTracefs, tmp_path: Path) -> Host:
    return Host(tracefs, tmp_path / "out")


class Host:
    """Two CPUs whose pages are files; recorded by a thread."""

    def __init__(self, tracefs: FakeTracefs, out: Path) -> None:
        self.tracefs = tracefs
        self.out = out
        out.mkdir()
        self.online = out.parent / "online"
        self.online.write_text("0-1\n")

    def add(self, cpu: int, data: bytes) -> None:
        with (self.tracefs.root / f"per_cpu/cpu{cpu}/trace_pipe_raw").open("ab") as raw:
            raw.write(data)

    def count(self, cpu: int, **counts: int) -> None:
        text = "".join(f"{name.replace('_', ' ')}: {n}\n" for name, n in counts.items())
        (self.tracefs.root / f"per_cpu/cpu{cpu}/stats").write_text(text)

    def recorded(self, limits: Limits, seconds: float = 0.1, *, chunks: bool = False) -> Told:
        """Record for a while; what was told last."""
        cpus = []
        for cpu in range(2):
            folder = f"per_cpu/cpu{cpu}"
            raw = self.tracefs.open(f"{folder}/trace_pipe_raw", os.O_RDONLY)
            stats = self.tracefs.open(f"{folder}/stats", os.O_RDONLY)
            cpus.append(CpuPages(cpu, raw, stats, 4096))
        cmdlines = self.tracefs.open("saved_cmdlines", os.O_RDONLY)
        recorder = Recorder(
            cpus, limits, folder=self.out, saved_cmdlines=cmdlines, online=self.online
        )
        stop, to_stop = os.pipe()
        said, say = os.pipe()
        waked, wake = os.pipe()
        arguments = (stop, say, wake if chunks else -1)
        thread = threading.Thread(target=recorder.run, args=arguments)
        thread.start()
        thread.join(seconds)
        os.close(to_stop)
        thread.join(10)
        assert not thread.is_alive()
        os.close(say)
        os.close(wake)
        with os.fdopen(said) as lines:
            last: Told = json.loads(lines.readlines()[-1])
        os.close(waked)
        return last

    def importable(self) -> Path:
        """The folder, with what the pages mean in it."""
        (self.out / "events/iommu/map").mkdir(parents=True)
        text = event_format("map", NUMBER, [("u64 iova", 8, False)])
        (self.out / "events/iommu/map/format").write_text(text)
        header = self.tracefs.read("events/header_page")
        (self.out / "events/header_page").write_text(header)
        (self.out / "trace_clock").write_text("[mono]\n")
        return self.out


SPOOL = Limits(flush_ns=20_000_000)


def test_a_spool_is_what_an_import_reads(host: Host, tmp_path: Path) -> None:
    first, second = page_bytes(range(1000, 3000)), page_bytes(range(1500, 2000))
    host.add(0, first)
    host.add(1, second)
    host.count(0, read_events=2000)
    host.count(1, read_events=500, overrun=7)
    told = host.recorded(SPOOL)
    assert told["events"] == 2500
    assert told["lost"] == 7
    assert told["moved"] == len(first) + len(second)
    assert told["ended"] == "asked"
    assert (host.out / "per_cpu/cpu0/trace_pipe_raw").read_bytes() == first
    manifest = import_files([host.importable()], tmp_path / "t.parquet")
    assert manifest.rows == 2500
    assert manifest.lost_events == 0  # an overrun shows in the pages
    assert not (host.out / ".reserve").exists()


def test_nobody_else_may_read_the_files(host: Host) -> None:
    host.add(0, page_bytes([1]))
    host.recorded(SPOOL)
    files = [p for p in host.out.rglob("*") if p.is_file()]
    assert len(files) >= 5
    assert {p.stat().st_mode & 0o077 for p in files} == {0}


def test_what_the_pages_do_not_show_as_lost_is_an_interval_of_its_cpu(
    host: Host, tmp_path: Path
) -> None:
    host.add(0, page_bytes([10_000]))
    host.count(0, read_events=1, commit_overrun=3, dropped_events=2)
    told = host.recorded(SPOOL)
    assert told["lost"] == 5
    (line,) = (host.out / "losses").read_text().splitlines()
    cpu, begin, end, count = map(int, line.split())
    assert (cpu, count) == (0, 5)
    assert 0 < end - begin < 60_000_000_000
    manifest = import_files([host.importable()], tmp_path / "t.parquet")
    assert (manifest.lost_events, manifest.loss_marks) == (5, 1)
    assert manifest.events == {"iommu.map": 1, "trace.lost": 1}


def test_chunks_follow_each_other_and_say_when_they_are_complete(host: Host) -> None:
    host.add(0, page_bytes([1, 2, 3]))
    limits = Limits(flush_ns=10_000_000, chunk_ns=30_000_000)
    host.recorded(limits, 0.2, chunks=True)
    folders = sorted(p for p in (host.out / CHUNKS).iterdir())
    chunks = [Chunk.from_json((f / COMPLETE).read_text()) for f in folders]
    assert len(chunks) >= 3
    assert [c.number for c in chunks] == list(range(1, len(chunks) + 1))
    marks = [c.watermark_ns for c in chunks]
    assert marks[-1] == 0
    assert marks[:-1] == sorted(set(marks[:-1]))
    assert chunks[0].comms == {"42": "vmm"}
    assert (folders[0] / "cpu0").read_bytes() == page_bytes([1, 2, 3])
    assert not (folders[0] / "cpu1").exists()


def test_a_cpu_that_comes_up_later_is_recorded_and_one_that_never_does_has_no_file(
    host: Host,
) -> None:
    host.online.write_text("0\n")
    host.recorded(SPOOL)
    assert not (host.out / "per_cpu/cpu1").exists()
    for path in host.out.rglob("trace_pipe_raw"):
        path.unlink()
    host.add(1, page_bytes([5]))
    host.recorded(SPOOL)
    assert (host.out / "per_cpu/cpu1/trace_pipe_raw").read_bytes() == page_bytes([5])


def test_a_full_disk_ends_the_recording_with_whole_pages_and_an_unknown_loss(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    host.add(0, page_bytes(range(1000, 100_000)))
    real, room = os.splice, [20_000]

    def splice(source: int, target: int, count: int, **options: int) -> int:
        try:
            os.lseek(target, 0, os.SEEK_CUR)
        except OSError:
            return real(source, target, count, **options)  # into the pipe
        if not room[0]:
            raise OSError(errno.ENOSPC, "No space left on device")
        moved = real(source, target, min(count, room[0]), **options)
        room[0] -= moved
        return moved

    monkeypatch.setattr(os, "splice", splice)
    told = host.recorded(SPOOL)
    assert told["ended"] == "the disk is full"
    assert (host.out / "per_cpu/cpu0/trace_pipe_raw").stat().st_size == 4 * 4096
    manifest = import_files([host.importable()], tmp_path / "t.parquet")
    assert manifest.lost_unknown
    assert manifest.events["trace.lost"] == 2  # one a CPU
    assert manifest.events["iommu.map"] > 100


def test_a_spool_ends_when_it_is_as_large_as_allowed(host: Host) -> None:
    host.add(0, page_bytes(range(1000, 5000)))
    told = host.recorded(Limits(flush_ns=10_000_000, most_bytes=8192), 5.0)
    assert told["ended"] == "as large as --max-size allows"
    assert told["moved"] == len(page_bytes(range(1000, 5000)))  # drained all the same


def test_statistics_are_read_as_the_kernel_writes_them() -> None:
    text = """entries: 0
overrun: 12
commit overrun: 3
bytes: 160
oldest event ts:  2404.864609
now ts:  2404.865052
dropped events: 4
read events: 1234567890123
"""
    stats = Stats(text)
    assert (stats.read, stats.overrun, stats.unmarked) == (1234567890123, 12, 7)
    assert Stats("").read == 0
