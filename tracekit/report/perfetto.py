"""A trace for the Perfetto viewer: calls as slices on their threads, findings, loss and counters.

Source: protos/perfetto/trace/perfetto_trace.proto, as the ``perfetto`` package ships it.  Packets
are written one by one, so memory does not grow with the trace.  Times are the trace's own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import TracePacket, TrackEvent
from perfetto.trace_builder.proto_builder import StreamingTraceProtoBuilder

from tracekit.findings import Finding, Occurrence, ReplayResult
from tracekit.report.escape import visible
from tracekit.report.memory_picture import Sampled
from tracekit.report.survey import Survey
from tracekit.report.telling import in_reading_order
from tracekit.store import Trace

__all__ = ("write_perfetto",)

_SEQUENCE = 1
_COLUMNS = (
    "ts_ns", "seq", "pid", "tid", "comm", "event", "cmd", "fd", "iova", "gpa", "size", "ret",
    "until_ns", "count",
)  # fmt: skip
_TOLD = ("iova", "gpa", "size", "ret", "fd", "cmd")
_HEX = frozenset(("iova", "gpa", "size", "cmd"))
_COMMANDS = {
    0x3B66: "VFIO_SET_IOMMU",
    0x3B71: "VFIO_IOMMU_MAP_DMA",
    0x3B72: "VFIO_IOMMU_UNMAP_DMA",
    0x3B81: "IOMMU_IOAS_ALLOC",
    0x3B85: "IOMMU_IOAS_MAP",
    0x3B86: "IOMMU_IOAS_UNMAP",
    0x3B8F: "IOMMU_IOAS_MAP_FILE",
    0xAE01: "KVM_CREATE_VM",
    0xAE80: "KVM_RUN",
    0x4020AE46: "KVM_SET_USER_MEMORY_REGION",
    0x40A0AE49: "KVM_SET_USER_MEMORY_REGION2",
    0x4020AED2: "KVM_SET_MEMORY_ATTRIBUTES",
    0xC040AED4: "KVM_CREATE_GUEST_MEMFD",
}
_ENDS = {
    "iommu.map_called": "iommu.map_returned",
    "iommu.unmap_called": "iommu.unmap_returned",
    "iommufd.iopt_map_user": "iommufd.iopt_map_returned",
    "iommufd.iopt_map_file": "iommufd.iopt_map_returned",
    "vsock.linger": "vsock.lingered",
    "vsock.release": "vsock.released",
    "vsock.transport_release": "vsock.transport_released",
}
"""Pairs whose names do not say so."""
_MOST_OPEN = 64


def write_perfetto(
    trace: Trace,
    result: ReplayResult,
    scale: Survey,
    sampled: Sampled,
    out: Path,
    progress: Callable[[int], None],
) -> None:
    """Write the file.  ``scale`` and ``sampled`` give the counters.

    :raises TraceFormatError: the trace breaks off or is damaged
    """
    with out.open("wb") as file:
        tracks = _Tracks(StreamingTraceProtoBuilder(file))
        _write_findings(tracks, result)
        _write_counters(tracks, scale, sampled)
        _write_calls(tracks, trace, progress)


class _Tracks:
    """Writes packets, and a track's description before its first event."""

    def __init__(self, builder: Any) -> None:
        self._builder = builder
        self._next = 0
        self._first = True
        self._processes: dict[int, int] = {}

    def track(self, name: str, *, parent: int | None = None, unit: str | None = None) -> int:
        """A track of its own; with ``unit`` a counter."""
        packet, uuid = self._described()
        packet.track_descriptor.name = visible(name)
        if parent is not None:
            packet.track_descriptor.parent_uuid = parent
        if unit is not None:
            packet.track_descriptor.counter.unit_name = unit
        self._write(packet)
        return uuid

    def thread(self, pid: int, tid: int, name: str | None) -> int:
        """A thread's track, under its process's."""
        if pid not in self._processes:
            packet, uuid = self._described()
            packet.track_descriptor.process.pid = pid
            if name and pid == tid:
                packet.track_descriptor.process.process_name = visible(name)
            self._write(packet)
            self._processes[pid] = uuid
        packet, uuid = self._described()
        thread = packet.track_descriptor.thread
        thread.pid, thread.tid = pid, tid
        if name:
            thread.thread_name = visible(name)
        packet.track_descriptor.parent_uuid = self._processes[pid]
        self._write(packet)
        return uuid

    def begin(self, track: int, ts: int, name: str, told: Iterable[tuple[str, str]] = ()) -> None:
        self._event(track, ts, TrackEvent.TYPE_SLICE_BEGIN, name, told)

    def end(self, track: int, ts: int) -> None:
        self._event(track, ts, TrackEvent.TYPE_SLICE_END)

    def instant(self, track: int, ts: int, name: str, told: Iterable[tuple[str, str]] = ()) -> None:
        self._event(track, ts, TrackEvent.TYPE_INSTANT, name, told)

    def counter(self, track: int, ts: int, value: float) -> None:
        packet = self._packet()
        packet.timestamp = max(ts, 0)
        packet.track_event.type = TrackEvent.TYPE_COUNTER
        packet.track_event.track_uuid = track
        packet.track_event.double_counter_value = value
        self._write(packet)

    def _event(
        self, track: int, ts: int, kind: int, name: str = "", told: Iterable[tuple[str, str]] = ()
    ) -> None:
        packet = self._packet()
        packet.timestamp = max(ts, 0)
        event = packet.track_event
        event.type = kind
        event.track_uuid = track
        if name:
            event.name = name
            event.categories.append("tracekit")
        for key, value in told:
            note = event.debug_annotations.add()
            note.name, note.string_value = key, value
        self._write(packet)

    def _described(self) -> tuple[Any, int]:
        self._next += 1
        packet = self._packet()
        packet.track_descriptor.uuid = self._next
        return packet, self._next

    def _packet(self) -> Any:
        packet = self._builder.create_packet()
        packet.trusted_packet_sequence_id = _SEQUENCE
        if self._first:
            packet.sequence_flags = TracePacket.SEQ_INCREMENTAL_STATE_CLEARED
            self._first = False
        return packet

    def _write(self, packet: Any) -> None:
        self._builder.write_packet(packet)


def _write_findings(tracks: _Tracks, result: ReplayResult) -> None:
    """A track each finding; occurrences that overlap in time go onto further ones."""
    if not result.findings:
        return
    top = tracks.track("findings")
    last = result.trace.span_ns[1]
    for finding in in_reading_order(result.findings):
        name = f"{finding.severity.value} {finding.code} {finding.title}"
        free: list[tuple[int, int]] = []
        for one in sorted(finding.occurrences, key=lambda o: o.from_ns):
            until = max(one.from_ns, last if one.until_ns is None else one.until_ns)
            lane = next((i for i, (_, end) in enumerate(free) if end <= one.from_ns), None)
            if lane is None:
                free.append((tracks.track(name, parent=top), 0))
                lane = len(free) - 1
            track = free[lane][0]
            free[lane] = (track, until)
            tracks.begin(track, one.from_ns, visible(finding.title), _facts(finding, one))
            tracks.end(track, until)


def _facts(finding: Finding, one: Occurrence) -> Iterator[tuple[str, str]]:
    yield "id", finding.id
    yield "confidence", one.confidence.value
    yield "vm", visible(finding.vm.name or "not named")
    if finding.device is not None:
        yield "device", visible(finding.device)
    for name, value in (("gpa", one.gpa), ("iova", one.iova), ("size", one.size)):
        if value is not None:
            yield name, f"{value:#x}"
    yield "events", ", ".join(f"#{seq}" for seq in one.events[:20])


def _write_counters(tracks: _Tracks, scale: Survey, sampled: Sampled) -> None:
    for name, counts in scale.rates.items():
        track = tracks.track(f"{name} a second", unit="1/s")
        for i, count in enumerate(counts.tolist()):
            at = scale.start_ns + int(i * scale.step_ns)
            tracks.counter(track, at, count / (scale.step_ns / 1e9))
    for one in sampled.entries:
        track = tracks.track(f"DMA entries of {one.pid}, {one.name}", unit="entries")
        for ts, count in zip(sampled.at_ns, one.entries, strict=False):
            if count is not None:
                tracks.counter(track, ts, count)


class _Call(NamedTuple):
    """``end``: the event that is awaited; ``about``: the addresses, which tell calls apart."""

    end: str | None
    name: str
    about: tuple[int | None, int | None]


@dataclass
class _Thread:
    track: int
    open: list[_Call] = field(default_factory=list)
    """The calls that it is in, innermost last."""


def _write_calls(tracks: _Tracks, trace: Trace, progress: Callable[[int], None]) -> None:
    threads: dict[int, _Thread] = {}
    ends = _pairs(trace.manifest.events)
    lost: tuple[int, int, int] | None = None
    loss_track: int | None = None
    done, last = 0, 0
    for batch in trace.batches(_COLUMNS):
        for row in batch.to_pylist():
            last = row["ts_ns"]
            if row["event"] == "trace.lost":
                loss_track = tracks.track("events lost") if loss_track is None else loss_track
                lost = _lose(tracks, loss_track, lost, row)
            elif row["tid"] is not None:
                thread = threads.get(row["tid"])
                if thread is None:
                    pid = row["tid"] if row["pid"] is None else row["pid"]
                    thread = _Thread(tracks.thread(pid, row["tid"], row["comm"]))
                    threads[row["tid"]] = thread
                _call(tracks, thread, row, ends)
        done += batch.num_rows
        progress(done)
    if lost is not None and loss_track is not None:
        _lost_slice(tracks, loss_track, lost)
    for thread in threads.values():
        for _ in thread.open:
            tracks.end(thread.track, last)


def _pairs(events: Mapping[str, int]) -> dict[str, str | None]:
    """What begins a slice, and what ends it; null: nothing that was recorded does."""
    pairs: dict[str, str | None] = {}
    for name in events:
        end = _ENDS.get(name)
        if name.endswith(".entered"):
            end = name.removesuffix("entered") + "returned"
            pairs[name] = end if events.get(end) else None
            continue
        if end is None and f"{name}_returned" not in _ENDS.values():
            end = f"{name}_returned"
        if end is not None and events.get(end):
            pairs[name] = end
    return pairs


def _call(
    tracks: _Tracks, thread: _Thread, row: Mapping[str, Any], ends: Mapping[str, str | None]
) -> None:
    name, ts = row["event"], row["ts_ns"]
    told = [
        (key, f"{row[key]:#x}" if key in _HEX else str(row[key]))
        for key in _TOLD
        if row[key] is not None
    ]
    told.append(("event", f"#{row['seq']}"))
    if name in ends:
        call = _Call(ends[name], name, (row["iova"], row["size"]))
        if name.endswith(".entered"):
            # A thread is in one system call: what was open and never seen to end is over.
            _close(tracks, thread, ts, 0)
        else:
            _close(tracks, thread, ts, _depth_left(thread.open, call))
        if len(thread.open) < _MOST_OPEN:
            tracks.begin(thread.track, ts, _name(row), told)
            thread.open.append(call)
        return
    awaited = [call.end for call in thread.open]
    if name in awaited:
        depth = len(awaited) - 1 - awaited[::-1].index(name)
        while depth and thread.open[depth - 1] == thread.open[depth]:
            depth -= 1  # the function it was probed in first, whose own end has no event
        _close(tracks, thread, ts, depth)
    else:
        tracks.instant(thread.track, ts, _name(row), told)


def _depth_left(calls: list[_Call], new: _Call) -> int:
    """How many calls a thread is still in when ``new`` begins.

    These functions do not call themselves, so the same event about other addresses says that the
    earlier call is over.  About the same addresses it is one call, probed in two functions.
    """
    for depth, call in enumerate(calls):
        if call.name == new.name and call.about != new.about:
            return depth
    return len(calls)


def _close(tracks: _Tracks, thread: _Thread, ts: int, depth: int) -> None:
    while len(thread.open) > depth:
        thread.open.pop()
        tracks.end(thread.track, ts)


def _name(row: Mapping[str, Any]) -> str:
    """``ioctl KVM_RUN``, ``iommu.map``."""
    name = str(row["event"]).removesuffix(".entered")
    command = row["cmd"]
    if command is None or "ioctl" not in name:
        return name
    return f"{name} {_COMMANDS.get(command, f'{command:#x}')}"


def _lose(
    tracks: _Tracks, track: int, lost: tuple[int, int, int] | None, row: Mapping[str, Any]
) -> tuple[int, int, int]:
    """Losses that overlap (of several CPUs) become one, which is written when the next begins."""
    ts = row["ts_ns"]
    until, count = max(ts, row["until_ns"] or ts), row["count"] or 0
    if lost is not None and ts <= lost[1]:
        return lost[0], max(lost[1], until), lost[2] + count
    if lost is not None:
        _lost_slice(tracks, track, lost)
    return ts, until, count


def _lost_slice(tracks: _Tracks, track: int, lost: tuple[int, int, int]) -> None:
    said = f"{lost[2]:,} events lost" if lost[2] else "events lost, not counted"
    tracks.begin(track, lost[0], said)
    tracks.end(track, lost[1])
