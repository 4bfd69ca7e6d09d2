"""Segments hold every event once, in order, and never overlap in time."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from collectors.live import Segments, decode_chunks
from collectors.recorder import CHUNKS, COMPLETE, Chunk, Loss
from tracekit.errors import ImportFormatError
from tracekit.ftrace.writer import HEADER_PAGE, Lost, Record, event_format, pages, record
from tracekit.store import open_trace

NUMBER = 700
S = 1_000_000_000
Times = Sequence[int | Lost]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A recording's folder, with what pages mean in it."""
    about = tmp_path / "trace" / CHUNKS / "about"
    (about / "events" / "iommu" / "map").mkdir(parents=True)
    format = event_format("map", NUMBER, [("u64 iova", 8, False)])
    (about / "events" / "iommu" / "map" / "format").write_text(format)
    (about / "events" / "header_page").write_text(HEADER_PAGE)
    for name, text in (
        ("dynamic_events", ""),
        ("kallsyms", ""),
        ("trace_clock", "local [mono]\n"),
        ("uname", "Linux host 6.12.1 #1 SMP x86_64 GNU/Linux\n"),
        (
            "collected.json",
            json.dumps({"purpose": "dma", "host": {"config": {"CONFIG_HZ": "250"}}}),
        ),
    ):
        (about / name).write_text(text)
    return tmp_path / "trace"


def chunk(
    folder: Path, number: int, watermark: int, cpus: dict[int, Times], losses: Sequence[Loss] = ()
) -> Chunk:
    """Write a complete chunk."""
    place = folder / CHUNKS / f"{number:06}"
    place.mkdir(parents=True)
    for cpu, times in cpus.items():
        items = [
            t if isinstance(t, Lost) else Record(t, record(NUMBER, 42, cpu.to_bytes(8, "little")))
            for t in times
        ]
        (place / f"cpu{cpu}").write_bytes(pages(items))
    made = Chunk(
        number=number,
        watermark_ns=watermark,
        overrun=sum(t.count or 0 for c in cpus.values() for t in c if isinstance(t, Lost)),
        losses=tuple(losses),
        comms={"42": "vmm"},
    )
    (place / COMPLETE).write_bytes(made.to_json())
    return made


def segments_of(folder: Path) -> list[list[tuple[int, int]]]:
    """By segment: time and CPU of its rows."""
    return [
        [(r["ts_ns"], r["cpu"]) for r in pq.read_table(p, columns=["ts_ns", "cpu"]).to_pylist()]
        for p in sorted(folder.glob("*.parquet"))
    ]


def decoded(folder: Path) -> dict[str, object]:
    """Decode all chunks; what was told last."""
    wake, waker = os.pipe()
    said, say = os.pipe()
    os.close(waker)
    decode_chunks(folder, wake, say)
    os.close(say)
    os.close(wake)
    with os.fdopen(said) as lines:
        told: dict[str, object] = json.loads(lines.readlines()[-1])
    return told


def test_a_busy_cpu_beside_one_with_an_event_every_ten_seconds(folder: Path) -> None:
    busy = [list(range(k * S, (k + 1) * S, 2_000_000)) for k in range(1, 31)]
    rare = {10: [10 * S + 5], 20: [20 * S + 5], 30: [30 * S + 5]}
    for k, times in enumerate(busy, 1):
        cpus: dict[int, Times] = {0: times}
        if k in rare:
            cpus[1] = rare[k]
        chunk(folder, k, (k + 1) * S - 100_000_000 if k < 30 else 0, cpus)
    told = decoded(folder)
    found = segments_of(folder)
    assert told["done"]
    assert told["late"] == 0
    assert len(found) == 30
    rows = [row for segment in found for row in segment]
    assert rows == sorted(rows)
    wanted = [(t, 0) for times in busy for t in times] + [(t[0], 1) for t in rare.values()]
    assert rows == sorted(wanted)
    for before, after in itertools.pairwise(found):
        assert before[-1][0] < after[0][0]
    trace = open_trace(folder)
    assert len(trace) == len(wanted)
    assert (trace.manifest.cpus, trace.manifest.kernel, trace.manifest.hz) == (2, "6.12.1", 250)
    assert not (folder / CHUNKS).exists()


def test_events_after_the_watermark_wait_for_the_next_segment(folder: Path) -> None:
    chunk(folder, 1, 100, {0: [10, 120], 1: [90, 101, 130]})
    chunk(folder, 2, 200, {0: [125, 199], 1: [140, 205]})
    chunk(folder, 3, 0, {0: [300]})
    decoded(folder)
    assert segments_of(folder) == [
        [(10, 0), (90, 1)],
        [(101, 1), (120, 0), (125, 0), (130, 1), (140, 1), (199, 0)],
        [(205, 1), (300, 0)],
    ]


def test_an_event_that_comes_after_its_segment_is_held_and_counted(folder: Path) -> None:
    chunk(folder, 1, 100, {0: [10, 120]})
    chunk(folder, 2, 0, {0: [130], 1: [50, 60, 140]})
    told = decoded(folder)
    assert told["late"] == 2
    assert segments_of(folder) == [
        [(10, 0)],
        [(100, 1), (100, 1), (120, 0), (130, 0), (140, 1)],
    ]


def test_losses_are_rows_between_the_others(folder: Path) -> None:
    chunk(folder, 1, 100, {0: [10, 90]}, [Loss(cpu=1, from_ns=20, until_ns=80, count=7)])
    chunk(folder, 2, 0, {}, [Loss(cpu=0, from_ns=150, until_ns=180, count=-1)])
    decoded(folder)
    trace = open_trace(folder)
    lost = trace.events("trace.lost").collect().to_dicts()
    assert [(r["cpu"], r["ts_ns"], r["until_ns"], r["count"]) for r in lost] == [
        (1, 20, 80, 7),
        (0, 150, 180, None),
    ]
    assert (trace.manifest.lost_events, trace.manifest.lost_unknown) == (7, True)


def test_a_loss_between_two_chunks_begins_at_the_last_event_of_the_first(folder: Path) -> None:
    chunk(folder, 1, 100, {0: [10, 90]})
    chunk(folder, 2, 0, {0: [Lost(5), 500]})
    assert decoded(folder)["late"] == 0
    (lost,) = open_trace(folder).events("trace.lost").collect().to_dicts()
    # The last event was at 90; the segment that held it was closed at 100.
    assert (lost["ts_ns"], lost["until_ns"], lost["count"]) == (100, 500, 5)


def test_the_oldest_segments_go_when_there_are_too_many(folder: Path) -> None:
    segments = Segments(folder, max_segments=2)
    for k in range(1, 6):
        segments.add(chunk(folder, k, k * 100, {0: [k * 100 - 50]}))
    assert [p.name for p in sorted(folder.glob("*.parquet"))] == [
        "000004.parquet",
        "000005.parquet",
    ]
    trace = open_trace(folder)
    assert trace.manifest.first_seq == 3
    assert segments.segments == 5


def test_the_oldest_segments_go_when_they_are_too_large(folder: Path) -> None:
    segments = Segments(folder, max_bytes=20_000)
    for k in range(1, 6):
        segments.add(chunk(folder, k, k * 100, {0: [k * 100 - 50]}))
    assert segments.written <= 20_000
    assert (folder / "000005.parquet").exists()
    assert not (folder / "000001.parquet").exists()


def test_a_recording_of_nothing_is_a_trace_without_rows(folder: Path) -> None:
    chunk(folder, 1, 100, {})
    chunk(folder, 2, 0, {})
    decoded(folder)
    assert len(open_trace(folder)) == 0


def test_damaged_pages_end_decoding_and_leave_the_segments_before(folder: Path) -> None:
    chunk(folder, 1, 100, {0: [10]})
    chunk(folder, 2, 0, {0: [150]})
    damaged = folder / CHUNKS / "000002" / "cpu0"
    damaged.write_bytes(b"\xff" * 4096)
    told = decoded(folder)
    assert "page 0 is damaged" in str(told["error"])
    assert segments_of(folder) == [[(10, 0)]]
    damaged.write_bytes(b"\xff" * 100)
    with pytest.raises(ImportFormatError, match="no whole number of pages"):
        Segments(folder).add(Chunk.from_json((damaged.parent / COMPLETE).read_text()))
