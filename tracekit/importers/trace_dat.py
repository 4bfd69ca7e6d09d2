"""trace.dat -> a trace."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from tracekit.errors import ImportFormatError, TracekitError
from tracekit.ftrace.clocks import (
    CYCLES,
    NO_TIME,
    Correction,
    Samples,
    Stamps,
    offset_number,
    time_shift,
    tsc_to_ns,
)
from tracekit.ftrace.decoder import SMALL, Decoder, RecordSource, Stream
from tracekit.ftrace.kallsyms import Kallsyms
from tracekit.ftrace.page_stream import PageRecords, PageStream
from tracekit.ftrace.probes import Definition
from tracekit.ftrace.ring_buffer import page_layout
from tracekit.ftrace.salvage import Left, Salvaged, shortest_records, survey
from tracekit.ftrace.trace_dat import (
    CPUCOUNT,
    DATE,
    OFFSET,
    TIME_SHIFT,
    TSC2NSEC,
    VERSION,
    Buffer,
    CpuData,
    TraceDat,
)
from tracekit.importers._define import Options
from tracekit.store import Manifest, RecordedName

__all__ = ("TraceDatSource", "command_lines", "decoder_of")

UNCOMPRESSED = 6
"""How much larger pages are than in the file, about; decides only whether kernels are compiled."""

MAX_NAME = 200
MAX_TOLD = 8
"""So many places of damage the manifest names."""
NO_CLOCK_OF_ALL = ("local",)
"""Clocks that every CPU has its own of."""
MICROSECOND = 1000


class TraceDatSource:
    """A trace.dat as a source of rows."""

    format = ""
    """What the manifest calls it; empty: trace.dat and its version."""

    def __init__(self, path: Path, options: Options) -> None:
        """Open ``path`` and read all but its pages; when salvaging, survey those too.

        :raises TracekitError: the file cannot be read
        :raises ImportFormatError: a damaged file, or stamps that are no time
        """
        self.name = path.name
        self._path = path
        self._salvage = options.salvage
        self._definitions: Sequence[Definition] = options.definitions
        try:
            self._recording = self.open_recording(path)
        except ImportFormatError as error:
            raise self._advised(error) from None
        try:
            self._correction = correction_of(self._recording)
            pages = Pages(self._recording, self._correction, salvage=options.salvage)
            self._pages = pages
            self._decoder = decoder_of(self._recording, pages, self._definitions)
        except ImportFormatError as error:
            self.close()
            raise self._advised(error) from None
        except BaseException:
            self.close()
            raise
        self.clock = clock_name(self._recording)

    def open_recording(self, path: Path) -> TraceDat:
        """The recording at ``path``, its metadata read.

        :raises TracekitError: it cannot be read
        :raises ImportFormatError: it is damaged
        """
        return TraceDat.open(path, salvage=self._salvage)

    @property
    def rows(self) -> int:
        """Rows so far."""
        return self._decoder.rows

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The recording's rows in time order.

        :raises ImportFormatError: damaged pages or records
        """
        try:
            yield from self._decoder.batches()
        except ImportFormatError as error:
            raise self._advised(error) from None

    def manifest(self) -> Manifest:
        """What the recording says; once its batches were taken."""
        made = manifest_of(self._recording, self._decoder, self._definitions)
        source = source_of(self._recording, self._correction)
        source.update(self._pages.told())
        if self.format:
            source["format"] = self.format
        return replace(made, sources=(source,))

    def close(self) -> None:
        """Give the file back."""
        self._recording.close()

    def _advised(self, error: ImportFormatError) -> ImportFormatError:
        """The error, with salvaging as its help where that would yield something."""
        if self._salvage:
            message = f"nothing of {self.name} can be salvaged: {error.message}"
            return ImportFormatError(message, help=error.help)
        if error.help is None:
            try:
                type(self)(self._path, Options(salvage=True)).close()
            except TracekitError:
                return error
            error.help = "`--salvage` keeps what is intact and marks the rest as lost"
        return error


@dataclass
class _CpuPages:
    """One CPU of one instance."""

    data: CpuData
    buffer: Buffer
    where: str
    stamps: Stamps | None = None
    left: Left | None = None


class Pages:
    """The pages of all instances and CPUs of a recording, as streams of records."""

    def __init__(self, recording: TraceDat, correction: Correction, *, salvage: bool) -> None:
        """When salvaging, everything is decoded once to know what is intact.

        :raises ImportFormatError: nothing is
        """
        self._recording = recording
        self._correction = correction
        self._shortest = shortest_records(recording.formats) if salvage else None
        self._cpus = [
            _CpuPages(data, buffer, where_of(recording, buffer, data))
            for buffer in recording.buffers
            for data in buffer.cpus
            if data.size or data.missing
        ]
        total = sum(
            cpu.data.size * (UNCOMPRESSED if cpu.data.compressed else 1) for cpu in self._cpus
        )
        self.small = total < SMALL
        if salvage:
            self._survey()

    def streams(self) -> list[Stream]:
        """Each CPU's records."""
        dropped = dropped_events(self._recording, self._correction)
        found = [cpu.left for cpu in self._cpus if cpu.left is not None and cpu.left.records]
        begin = min((one.first_ns for one in found), default=0)
        ends = [one.last_ns for one in found]
        ends += [until for _, until in dropped.values()]
        ends += last_times(self._recording, self._correction)
        streams = []
        for cpu in self._cpus:
            records = self._records(cpu)
            source: RecordSource = records
            if cpu.left is not None:
                source = Salvaged(records, begin, max(ends, default=0))
            key = (cpu.buffer.name, cpu.data.cpu)
            streams.append(Stream(cpu.data.cpu, source, cpu.where, *dropped.get(key, (0, 0))))
        return streams

    def told(self) -> dict[str, str | int | None]:
        """What the manifest says of the pages' source."""
        said: dict[str, str | int | None] = {}
        held = sum(cpu.stamps.held for cpu in self._cpus if cpu.stamps is not None)
        if held:
            said["times_held_by_correction"] = held
        if self._shortest is None:
            return said
        damage = [cpu.left.damage for cpu in self._cpus if cpu.left is not None]
        damage = [*self._recording.notes, *(d for d in damage if d)]
        said["salvaged"] = (
            "; ".join(d[:MAX_NAME] for d in damage[:MAX_TOLD]) or "nothing is damaged"
        )
        said["damages"] = len(damage)
        return said

    def _survey(self) -> None:
        for cpu in self._cpus:
            cpu.left = survey(self._records(cpu))
        lefts = [cpu.left for cpu in self._cpus if cpu.left is not None]
        if any(left.damage for left in lefts) and not any(left.records for left in lefts):
            raise ImportFormatError(next(left.damage for left in lefts if left.damage))

    def _records(self, cpu: _CpuPages) -> PageRecords:
        recording = self._recording
        size = cpu.buffer.page_size
        cpu.stamps = self._correction.of_cpu(cpu.data.cpu, cpu.where)
        return PageRecords(
            PageStream(recording.file, cpu.data, size, recording.compression),
            page_layout(recording.header_page, size),
            cpu.where,
            small=self.small,
            stamps=cpu.stamps,
            shortest=self._shortest,
        )


def where_of(recording: TraceDat, buffer: Buffer, data: CpuData) -> str:
    """How messages name a CPU."""
    instance = f", instance {buffer.name[:40]!r}" if buffer.name else ""
    return f"{recording.file.name}{instance}, CPU {data.cpu}"


def correction_of(recording: TraceDat) -> Correction:
    """What makes nanoseconds of the recording's stamps.

    :raises ImportFormatError: nothing does, or its options are damaged
    """
    name, clock = recording.file.name, recording.clock
    tsc: tuple[int, int] | None = None
    shifts: dict[int, Samples] = {}
    interpolate = False
    offset = 0
    for number, data in recording.options:
        if number == TSC2NSEC and clock in CYCLES:
            tsc = tsc_to_ns(data, name)
        elif number == TIME_SHIFT and len(data) >= 16:
            interpolate, shifts = time_shift(data, name)
        elif number in (DATE, OFFSET):
            text = data.split(b"\0", 1)[0].decode("ascii", "replace")
            moved = offset_number(text, f"{name}, {'DATE' if number == DATE else 'OFFSET'}")
            # A date before the clock's zero is a negative number in 64 bits.
            offset += _signed(moved * MICROSECOND) if number == DATE else moved
    if clock in NO_TIME:
        raise ImportFormatError(
            f"{name} was recorded with the trace clock {clock!r},"
            f" whose stamps are no time: {NO_TIME[clock]}",
            help="record with `trace-cmd record -C mono`",
        )
    if clock in CYCLES and tsc is None:
        raise ImportFormatError(
            f"{name} was recorded with the trace clock {clock!r},"
            " whose stamps count cycles, and does not say how long one is (TSC2NSEC)",
            help="record with `trace-cmd record -C mono`, or `-C x86-tsc --tsc2nsec`",
        )
    return Correction(tsc=tsc, shifts=shifts, interpolate=interpolate, offset_ns=offset)


def _signed(value: int) -> int:
    return ((value + (1 << 63)) & ((1 << 64) - 1)) - (1 << 63)


def clock_name(recording: TraceDat) -> str:
    """The clock of the corrected times by its name in tracefs; a date makes it the time of day."""
    if any(number == DATE for number, _ in recording.options):
        return "realtime"
    return "x86-tsc" if recording.clock in CYCLES else recording.clock[:MAX_NAME]


def decoder_of(
    recording: TraceDat, pages: Pages, definitions: Sequence[Definition] = ()
) -> Decoder:
    """A decoder of all instances and CPUs of a recording.

    :raises ImportFormatError: pages that are not read here
    """
    return Decoder(
        recording.formats,
        pages.streams(),
        comms=command_lines(recording.cmdlines),
        kallsyms=Kallsyms(recording.kallsyms),
        definitions={d.source: d for d in definitions},
        small=pages.small,
    )


def command_lines(text: bytes) -> dict[int, str]:
    """Thread names by thread id, from ``saved_cmdlines``: ``TID NAME`` lines."""
    found = {0: "<idle>"}
    for line in text.split(b"\n"):
        tid, _, name = line.strip().partition(b" ")
        if tid.isdigit() and len(tid) <= 10 and name:
            found[int(tid)] = name[:MAX_NAME].decode("utf-8", "replace")
    return found


def manifest_of(
    recording: TraceDat, decoder: Decoder, definitions: Sequence[Definition]
) -> Manifest:
    """What the recording and its decoding say about the trace; the decoder is used up."""
    host, kernel, machine = recording.uname
    return Manifest(
        host=host,
        kernel=kernel,
        machine=machine,
        clock=clock_name(recording),
        clock_comparable=recording.clock not in NO_CLOCK_OF_ALL,
        cpus=cpu_count(recording),
        span_ns=decoder.span_ns,
        rows=decoder.rows,
        events=decoder.events(),
        recorded=tuple(
            RecordedName(
                name=r.source[:MAX_NAME],
                count=r.count,
                event=r.event,
                function=None if r.function is None else r.function[:MAX_NAME],
            )
            for r in decoder.recorded()
        ),
        lost_events=decoder.lost_events,
        loss_marks=decoder.loss_marks,
        lost_unknown=decoder.lost_unknown,
        probes=tuple(d.text for d in definitions),
        disagreements=decoder.disagreements(),
    )


def cpu_count(recording: TraceDat) -> int:
    """CPUs of the recorded machine; where the file does not say, those with pages."""
    for number, data in recording.options:
        if number == CPUCOUNT and len(data) >= 4:
            return int.from_bytes(data[:4], "little")
    return len({c.cpu for b in recording.buffers for c in b.cpus})


def dropped_events(
    recording: TraceDat, correction: Correction
) -> dict[tuple[str, int], tuple[int, int]]:
    """By instance and CPU: events that the full buffer refused, and the end of recording in ns.

    Only the buffer's statistics tell; its pages do not show where.  CPUs without any are left out.
    """
    found: dict[tuple[str, int], tuple[int, int]] = {}
    for name, values in recording.statistics():
        cpu, count = values.get("CPU", ""), values.get("dropped events", "")
        if re.fullmatch(r"\d{1,5}", cpu) and re.fullmatch(r"\d{1,15}", count) and int(count):
            found[name, int(cpu)] = (int(count), _until_ns(values, correction))
    return found


def last_times(recording: TraceDat, correction: Correction) -> list[int]:
    """When the recording ended, as each CPU's statistics say."""
    return [_until_ns(values, correction) for _, values in recording.statistics()]


def _until_ns(values: Mapping[str, str], correction: Correction) -> int:
    """The time of a CPU's statistics, rounded up; 0 where they do not say one that can be."""
    text, cpu = values.get("now ts", ""), values.get("CPU", "")
    end = re.fullmatch(r"(\d{1,9})\.(\d{6})", text)
    if end is not None:
        stamp = (int(end[1]) * 1_000_000 + int(end[2]) + 1) * MICROSECOND
    elif re.fullmatch(r"\d{1,18}", text):
        stamp = int(text)
    else:
        return 0
    number = int(cpu) if re.fullmatch(r"\d{1,5}", cpu) else 0
    stamps = correction.of_cpu(number, "")
    if stamps is None:
        return stamp
    try:
        return int(stamps.ns(np.array([stamp], np.int64))[0])
    except ImportFormatError:
        return 0


def source_of(recording: TraceDat, correction: Correction) -> dict[str, str | int | None]:
    """The file and how it was recorded, for the manifest."""
    dropped = dropped_events(recording, correction)
    found: dict[str, str | int | None] = {
        "file": recording.file.name,
        "format": f"trace.dat v{recording.version}",
        "compression": recording.compression[:MAX_NAME],
        "recorder": recording.option_text(VERSION)[:MAX_NAME] or None,
        "dropped_events": sum(count for count, _ in dropped.values()),
    }
    if correction.offset_ns:
        found["offset_ns"] = correction.offset_ns
    if correction.tsc is None and any(n == TSC2NSEC for n, _ in recording.options):
        found["tsc2nsec_not_applied"] = f"the clock is {recording.clock}"[:MAX_NAME]
    if correction.tsc is not None:
        found["tsc2nsec"] = "{} >> {}".format(*correction.tsc)
    if correction.shifts:
        found["time_shift_samples"] = sum(len(s.times) for s in correction.shifts.values())
    instances = [b.name for b in recording.buffers if b.name]
    if instances:
        found["instances"] = ", ".join(instances)[:MAX_NAME]
    if unknown := recording.unknown_options():
        found["unknown_options"] = ", ".join(map(str, unknown))[:MAX_NAME]
    return found
