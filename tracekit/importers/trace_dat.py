"""trace.dat -> a trace."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa

from tracekit.errors import ImportFormatError
from tracekit.ftrace.decoder import SMALL, Decoder, Stream
from tracekit.ftrace.kallsyms import Kallsyms
from tracekit.ftrace.page_stream import PageRecords, PageStream
from tracekit.ftrace.probes import Definition
from tracekit.ftrace.ring_buffer import page_layout
from tracekit.ftrace.trace_dat import (
    CPUCOUNT,
    CPUSTAT,
    DATE,
    OFFSET,
    TIME_SHIFT,
    TSC2NSEC,
    VERSION,
    TraceDat,
)
from tracekit.importers._define import Options
from tracekit.store import Manifest, RecordedName

__all__ = ("TraceDatSource", "command_lines", "decoder_of")

UNCOMPRESSED = 6
"""How much larger pages are than in the file, about; decides only whether kernels are compiled."""

NOT_NANOSECONDS = {
    "counter": "it counts events",
    "uptime": "it counts jiffies",
    "x86-tsc": "it counts cycles",
}
MAX_NAME = 200


class TraceDatSource:
    """A trace.dat as a source of rows."""

    def __init__(self, path: Path, options: Options) -> None:
        """Open ``path`` and read all but its pages.

        :raises TracekitError: the file cannot be read
        :raises ImportFormatError: a damaged file, or stamps that are no time
        """
        self.name = path.name
        self._definitions = options.definitions
        self._recording = TraceDat.open(path)
        try:
            check_clock(self._recording)
            self._decoder = decoder_of(self._recording, options.definitions)
        except BaseException:
            self.close()
            raise
        self.clock = self._recording.clock[:MAX_NAME]

    @property
    def rows(self) -> int:
        """Rows so far."""
        return self._decoder.rows

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The recording's rows in time order.

        :raises ImportFormatError: damaged pages or records
        """
        return self._decoder.batches()

    def manifest(self) -> Manifest:
        """What the recording says; once its batches were taken."""
        return manifest_of(self._recording, self._decoder, self._definitions)

    def close(self) -> None:
        """Give the file back."""
        self._recording.file.close()


def check_clock(recording: TraceDat) -> None:
    """See that the recording's stamps are nanoseconds.

    :raises ImportFormatError: they are not
    """
    clock = recording.clock
    if clock in NOT_NANOSECONDS:
        raise ImportFormatError(
            f"{recording.file.name} was recorded with the trace clock {clock!r},"
            f" whose stamps are no time: {NOT_NANOSECONDS[clock]}",
            help="record with `trace-cmd record -C mono`",
        )


def decoder_of(recording: TraceDat, definitions: Sequence[Definition] = ()) -> Decoder:
    """A decoder of all instances and CPUs of a recording.

    :raises ImportFormatError: pages that are not read here
    """
    sizes = {b.page_size for b in recording.buffers}
    if len(sizes) > 1:
        raise ImportFormatError(f"{recording.file.name}: instances with pages of different sizes")
    page_size = sizes.pop()
    layout = page_layout(recording.header_page, page_size)
    dropped = dropped_events(recording)
    total = sum(
        cpu.size * (UNCOMPRESSED if cpu.compressed else 1)
        for buffer in recording.buffers
        for cpu in buffer.cpus
    )
    small = total < SMALL
    streams = []
    for buffer in recording.buffers:
        for cpu in buffer.cpus:
            if cpu.size:
                pages = PageStream(recording.file, cpu, page_size, recording.compression)
                where = f"{recording.file.name}, CPU {cpu.cpu}"
                records = PageRecords(pages, layout, where, small=small)
                streams.append(Stream(cpu.cpu, records, where, *dropped.get(cpu.cpu, (0, 0))))
    return Decoder(
        recording.formats,
        streams,
        comms=command_lines(recording.cmdlines),
        kallsyms=Kallsyms(recording.kallsyms),
        definitions={d.source: d for d in definitions},
        small=small,
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
        clock=recording.clock[:MAX_NAME],
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
        sources=(source_of(recording),),
        probes=tuple(d.text for d in definitions),
        disagreements=decoder.disagreements(),
    )


def cpu_count(recording: TraceDat) -> int:
    """CPUs of the recorded machine; where the file does not say, those with pages."""
    for number, data in recording.options:
        if number == CPUCOUNT and len(data) >= 4:
            return int.from_bytes(data[:4], "little")
    return len({c.cpu for b in recording.buffers for c in b.cpus})


def dropped_events(recording: TraceDat) -> dict[int, tuple[int, int]]:
    """By CPU: events that the full ring buffer refused, and the end of recording in ns.

    Only the buffer's statistics tell; its pages do not show where.  CPUs without any are left out.
    """
    found: dict[int, tuple[int, int]] = {}
    for text in recording.option_texts(CPUSTAT):
        values: dict[str, str] = {}
        for line in text.splitlines():
            name, _, value = line.partition(":")
            values.setdefault(name.strip(), value.strip())
        cpu, count = values.get("CPU", ""), values.get("dropped events", "")
        end = re.fullmatch(r"(\d{1,9})\.(\d{6})", values.get("now ts", ""))
        if re.fullmatch(r"\d{1,5}", cpu) and re.fullmatch(r"\d{1,15}", count) and int(count):
            until = (int(end[1]) * 1_000_000 + int(end[2]) + 1) * 1000 if end else 0
            found[int(cpu)] = (int(count), until)
    return found


def source_of(recording: TraceDat) -> dict[str, str | int | None]:
    """The file and how it was recorded, for the manifest."""
    found: dict[str, str | int | None] = {
        "file": recording.file.name,
        "format": f"trace.dat v{recording.version}",
        "compression": recording.compression[:MAX_NAME],
        "recorder": recording.option_text(VERSION)[:MAX_NAME] or None,
        "dropped_events": sum(count for count, _ in dropped_events(recording).values()),
    }
    for name, number in (("date", DATE), ("offset", OFFSET)):
        if text := recording.option_text(number):
            found[f"{name}_not_applied"] = text[:MAX_NAME]
    present = {number for number, _ in recording.options}
    for name, number in (("time_shift", TIME_SHIFT), ("tsc2nsec", TSC2NSEC)):
        if number in present:
            found[f"{name}_not_applied"] = "present"
    instances = [b.name for b in recording.buffers if b.name]
    if instances:
        found["instances"] = ", ".join(instances)[:MAX_NAME]
    return found
