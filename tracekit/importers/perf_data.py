"""perf.data -> a trace."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from tracekit.errors import ImportFormatError
from tracekit.ftrace.byte_source import RegularFile
from tracekit.ftrace.decoder import SMALL, Decoder, Stream
from tracekit.ftrace.event_format import EventFormat
from tracekit.ftrace.functions import FUNCTIONS
from tracekit.ftrace.kallsyms import Kallsyms
from tracekit.ftrace.probes import Definition
from tracekit.importers._define import Options
from tracekit.importers.merge import PAIR_MONO, PAIR_REALTIME
from tracekit.perf.index import CpuRecords
from tracekit.perf.perf_data import (
    ARCH,
    CLOCK_DATA,
    HOSTNAME,
    NRCPUS,
    OSRELEASE,
    VERSION,
    PerfData,
)
from tracekit.store import Manifest, RecordedName

__all__ = ("PerfDataSource", "named_probes")

CLOCKS = {None: "perf", 0: "realtime", 1: "mono", 4: "mono_raw", 7: "boot", 11: "tai"}
"""What tracefs calls the clocks of perf record's -k."""
MONO = 1
MAX_NAME = 200
MAX_OPEN_BYTES = 64 << 20
"""Room for the largest record of every CPU."""
PROBES = "probe"
"""The system of the events that perf probe makes."""
RETURN = "__return"
KERNEL_TEXT = ("_text", "_stext")
"""Symbols that perf probe counts from."""


class PerfDataSource:
    """A perf.data as a source of rows."""

    def __init__(self, path: Path, options: Options) -> None:
        """Open ``path`` and read all but the records that rows are made of.

        :raises TracekitError: the file cannot be read, or there is no room to decompress it
        :raises ImportFormatError: a damaged file, or stamps of different clocks
        """
        self.name = path.name
        self._options = options
        with RegularFile(path) as file:
            small = file.size < SMALL
        self._recording = PerfData.open(path, salvage=options.salvage, small=small)
        try:
            self.clock = clock_of(self._recording)
            definitions = {d.source: d for d in options.definitions}
            self._by_name = named_probes(self._recording.formats, definitions)
            definitions.update((d.source, d) for d in self._by_name)
            opened = {a.config for a in self._recording.attributes if a.tracepoint}
            self._decoder = Decoder(
                [f for f in self._recording.formats if f.id in opened],
                streams_of(self._recording, small=small),
                comms={0: "<idle>", **self._recording.comms},
                kallsyms=Kallsyms(b""),
                definitions=definitions,
                small=small,
            )
        except BaseException:
            self.close()
            raise

    @property
    def rows(self) -> int:
        """Rows so far."""
        return self._decoder.rows

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The recording's rows in time order.

        :raises ImportFormatError: damaged records
        """
        return self._decoder.batches()

    def manifest(self) -> Manifest:
        """What the recording says; once its batches were taken."""
        recording, decoder = self._recording, self._decoder
        recorded = [
            RecordedName(
                name=r.source[:MAX_NAME],
                count=r.count,
                event=r.event,
                function=None if r.function is None else r.function[:MAX_NAME],
            )
            for r in decoder.recorded()
        ]
        return Manifest(
            host=recording.feature_text(HOSTNAME)[:MAX_NAME] or None,
            kernel=recording.feature_text(OSRELEASE)[:MAX_NAME] or None,
            machine=recording.feature_text(ARCH)[:MAX_NAME] or None,
            clock=self.clock,
            cpus=max(recording.feature_numbers(NRCPUS, (4, 4)) or (len(recording.cpus),)),
            span_ns=decoder.span_ns,
            rows=decoder.rows,
            events=decoder.events(),
            recorded=(*recorded, *other_events(recording)),
            lost_events=decoder.lost_events,
            loss_marks=decoder.loss_marks,
            lost_unknown=decoder.lost_unknown,
            sources=(self._source(),),
            probes=tuple(d.text for d in self._options.definitions),
            disagreements=decoder.disagreements(),
        )

    def close(self) -> None:
        """Give the file back."""
        self._recording.close()

    def _source(self) -> dict[str, str | int | None]:
        """The file and how it was recorded, for the manifest."""
        recording = self._recording
        found: dict[str, str | int | None] = {
            "file": self.name,
            "format": "perf.data, pipe mode" if recording.pipe else "perf.data",
            "compression": "zstd" if recording.compressed else "none",
            "recorder": f"perf {recording.feature_text(VERSION)[:MAX_NAME]}".strip(),
        }
        clock = recording.feature_numbers(CLOCK_DATA, (4, 4, 8, 8))
        if clock is not None and clock[1] == MONO and max(clock[2:]) < 1 << 63:
            found[PAIR_REALTIME], found[PAIR_MONO] = clock[2:]
        if recording.sampled:
            found["sampled"] = "of some events not every one was recorded (perf record -c, -F, :S)"
        if self._by_name:
            names = ", ".join(d.source for d in self._by_name)
            found["functions_by_event_name"] = names[:MAX_NAME]
        if self._options.salvage:
            found["salvaged"] = recording.damage[:MAX_NAME] or "nothing is damaged"
            found["damages"] = int(bool(recording.damage))
        if recording.formats_from:
            found["formats_from"] = recording.formats_from[:MAX_NAME]
        return found


def clock_of(recording: PerfData) -> str:
    """The clock's name.

    :raises ImportFormatError: there are several, or one that is not known here
    """
    clocks = recording.clocks or {None}
    if len(clocks) > 1:
        raise ImportFormatError(f"{recording.file.name}: events with different clocks")
    clock = clocks.pop()
    if clock not in CLOCKS:
        raise ImportFormatError(
            f"{recording.file.name}: stamped by a clock with the id {clock}",
            help="record with `perf record -k mono`",
        )
    return CLOCKS[clock]


def streams_of(recording: PerfData, *, small: bool = False) -> list[Stream]:
    """Each CPU's records.

    :raises ImportFormatError: too many CPUs for the sizes of their records
    """
    streams = []
    for cpu, index in sorted(recording.cpus.items()):
        source = CpuRecords(recording, index, small=small)
        streams.append(Stream(cpu, source, f"{recording.file.name}, CPU {cpu}"))
    largest = max((s.source.unit for s in streams), default=0)
    if len(streams) * largest > MAX_OPEN_BYTES:
        raise ImportFormatError(
            f"{recording.file.name}: {len(streams)} CPUs with records of {largest} bytes"
            " are too many"
        )
    return streams


def named_probes(
    formats: Sequence[EventFormat], definitions: Mapping[str, Definition]
) -> list[Definition]:
    """What perf probe's events say of themselves by their names; ``definitions`` by SYSTEM:NAME.

    perf.data has no symbols, so nothing shows which function an address belongs to; but perf probe
    calls an event as the function it is in, unless told otherwise.  Nor does its definition name
    the function, but a distance from the kernel's text: from that only the fields are taken.
    """
    found = []
    for event in formats:
        if event.system != PROBES:
            continue
        returns = "__probe_func" in event.fields
        function = event.name.removesuffix(RETURN) if returns else event.name
        if function not in FUNCTIONS or not (returns or "__probe_ip" in event.fields):
            continue
        known = definitions.get(event.source)
        if known is not None and known.target in KERNEL_TEXT:
            found.append(replace(known, target=function, at_entry=True))
        elif known is None:
            found.append(
                Definition(
                    kind="r" if returns else "p",
                    source=event.source,
                    target=function,
                    returns=returns,
                    at_entry=True,
                    fields={},
                    all_arguments=True,
                    text="",
                )
            )
    return found


def other_events(recording: PerfData) -> Iterator[RecordedName]:
    """Counts of samples that are no tracepoint's: nothing here says what they mean."""
    names = recording.attribute_names()
    counts: dict[str, int] = {}
    for attribute, name, count in zip(recording.attributes, names, recording.counts, strict=False):
        if not attribute.tracepoint:
            counts[name[:MAX_NAME]] = counts.get(name[:MAX_NAME], 0) + count
    if recording.counts[-1]:
        counts["perf:unknown-id"] = recording.counts[-1]
    for name, count in sorted(counts.items()):
        yield RecordedName(name=name, count=count)
