"""The Perfetto export, read back by the published definitions and held against its rules.

The rules: every event's track was described before, slices on a track are balanced and nest, and
counters have values on counter tracks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from judging import events_of
from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace, TrackEvent

from replay import run
from tracekit.importers import import_files
from tracekit.report.memory_picture import sample_memory
from tracekit.report.perfetto import write_perfetto
from tracekit.report.survey import survey
from tracekit.store import open_trace, write_events

STORY = """
    0us   vmm   create-vm
    1us   vmm   memory
    2us   vmm   set-iommu
    3us   vmm   map 0x100000+64K each=32K
    9us   vmm   private 0x100000+64K no-exit
    10us  vmm2  private 0x900000+64K for=20us
    20us  vmm   run
    lost cpu0 44us..50us
    lost cpu1 46us..52us
    60us  vmm   run
    90us  end
"""


RECORDING = Path(__file__).parents[2] / "data" / "traces" / "kvm"


def exported(folder: Path) -> Trace:
    write_events(folder / "t.parquet", events_of(STORY))
    return export_of(folder)


def export_of(folder: Path) -> Trace:
    trace = open_trace(folder / "t.parquet")
    scale = survey(trace)
    out = folder / "t.pftrace"
    write_perfetto(trace, run(trace), scale, sample_memory(trace, scale), out, lambda done: None)
    parsed = Trace()
    parsed.ParseFromString(out.read_bytes())
    return parsed


def slices(trace: Trace) -> Iterator[tuple[str, int, int, str]]:
    """Track, from, until and name of every slice; checks the rules on the way."""
    tracks: dict[int, str] = {}
    counters: set[int] = set()
    open_on: dict[int, list[tuple[int, str]]] = {}
    for packet in trace.packet:
        assert packet.trusted_packet_sequence_id
        if packet.HasField("track_descriptor"):
            told = packet.track_descriptor
            assert told.uuid not in tracks
            assert not told.parent_uuid or told.parent_uuid in tracks
            tracks[told.uuid] = told.name or told.thread.thread_name or str(told.process.pid)
            if told.HasField("counter"):
                counters.add(told.uuid)
            continue
        event = packet.track_event
        assert event.track_uuid in tracks
        assert (event.track_uuid in counters) == (event.type == TrackEvent.TYPE_COUNTER)
        stack = open_on.setdefault(event.track_uuid, [])
        if event.type == TrackEvent.TYPE_SLICE_BEGIN:
            assert not stack or stack[-1][0] <= packet.timestamp
            stack.append((packet.timestamp, event.name))
        elif event.type == TrackEvent.TYPE_SLICE_END:
            begun, name = stack.pop()
            assert begun <= packet.timestamp
            yield tracks[event.track_uuid], begun, packet.timestamp, name
        elif event.type == TrackEvent.TYPE_COUNTER:
            assert event.HasField("double_counter_value")
    assert not any(open_on.values())


def test_calls_are_slices_on_their_threads(tmp_path: Path) -> None:
    found = list(slices(exported(tmp_path)))
    names = [name for _, _, _, name in found]
    assert "ioctl VFIO_IOMMU_MAP_DMA" in names
    assert "vfio.type1_ioctl VFIO_IOMMU_MAP_DMA" in names
    (long,) = [(a, b) for _, a, b, name in found if "SET_MEMORY" in name and b - a == 20_000]
    assert long == (10_000, 30_000)


def test_a_call_without_a_recorded_end_is_over_at_the_next_one(tmp_path: Path) -> None:
    found = list(slices(exported(tmp_path)))
    (one,) = [
        (a, b) for _, a, b, name in found
        if name == "ioctl KVM_SET_MEMORY_ATTRIBUTES" and a == 9_000
    ]  # fmt: skip
    assert one == (9_000, 20_000)


def test_a_call_that_two_probes_saw_ends_once_and_its_tracepoint_is_an_instant(
    tmp_path: Path,
) -> None:
    """iommu_map() and what it calls were both probed, and the end of the first alone."""
    kernel = "7.3.4-tracekit-lab"
    probes = RECORDING / f"dynamic_events-{kernel}.txt"
    out = tmp_path / "t.parquet"
    import_files([RECORDING / f"trace-fmt-default-{kernel}.dat"], out, probes=probes)
    events = open_trace(out).manifest.events
    assert events["iommu.map_called"] == 2 * events["iommu.map_returned"] > 0
    trace = export_of(tmp_path)
    instants = Counter(
        p.track_event.name for p in trace.packet
        if p.track_event.type == TrackEvent.TYPE_INSTANT
    )  # fmt: skip
    assert instants["iommu.map"] == events["iommu.map"]
    assert instants["iommu.map_returned"] == 0
    maps = [(a, b) for _, a, b, name in slices(trace) if name == "iommu.map_called"]
    assert len(maps) == events["iommu.map_called"]
    inner, outer = maps[::2], maps[1::2]  # in the order of their ends
    for (a, b), (c, d) in zip(inner, outer, strict=True):
        assert c <= a <= b == d
    assert all(d <= c for (_, d), (c, _) in pairwise(outer))


def test_losses_that_overlap_are_one_slice(tmp_path: Path) -> None:
    found = list(slices(exported(tmp_path)))
    assert [s for s in found if s[0] == "events lost"] == [
        ("events lost", 44_000, 52_000, "events lost, not counted")
    ]


def test_findings_have_tracks_with_their_ids(tmp_path: Path) -> None:
    trace = exported(tmp_path)
    found = [s for s in slices(trace) if s[0].startswith("error TK101")]
    assert [(a, b) for _, a, b, _ in found] == [(10_000, 90_000)]
    notes = {
        note.name: note.string_value
        for p in trace.packet
        for note in p.track_event.debug_annotations
        if p.track_event.name == found[0][3]
    }
    assert notes["id"].startswith("TK101-")
    assert notes["gpa"] == "0x100000"


def test_counters_count_entries_and_rates(tmp_path: Path) -> None:
    trace = exported(tmp_path)
    counters = {
        p.track_descriptor.uuid: p.track_descriptor.name
        for p in trace.packet
        if p.track_descriptor.HasField("counter")
    }
    values: dict[str, list[float]] = {}
    for p in trace.packet:
        if p.track_event.type == TrackEvent.TYPE_COUNTER:
            name = counters[p.track_event.track_uuid]
            values.setdefault(name, []).append(p.track_event.double_counter_value)
    assert max(values["DMA entries of 100, container 1"]) == 1
    assert {"events a second", "to private a second", "map a second"} <= values.keys()
