"""Records of several CPUs -> record batches in time order, with bounded memory.

Holds one chunk of records per CPU.  What was seen on the way is counted by event, so that nothing
is dropped in silence.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tracekit.compiled.kernels import kernel
from tracekit.errors import ImportFormatError
from tracekit.events import EVENT_TYPES
from tracekit.ftrace import ring_buffer
from tracekit.ftrace.columns import Columns, dictionary
from tracekit.ftrace.event_format import EventFormat
from tracekit.ftrace.gather import FULL, NEED, RESOLVE, SHORT, gather
from tracekit.ftrace.kallsyms import Kallsyms
from tracekit.ftrace.probes import Definition
from tracekit.ftrace.program import MAX_KINDS, Program, Recipe, column_index
from tracekit.ftrace.recognise import probe_address_field, recognise
from tracekit.ftrace.ring_buffer import Records

__all__ = ("Decoder", "RecordSource", "Recorded", "Stream")

BATCH_ROWS = 1 << 16
CHUNK_BYTES = 1 << 19
"""Pages held of one CPU; less where there are many CPUs."""
ALL_CHUNKS_BYTES = 32 << 20
SMALL = 2 << 20
"""Bytes of pages below which kernels run uncompiled: numba takes longer to load than they run."""


class RecordSource(Protocol):
    """Where a CPU's records come from: in their order of time."""

    @property
    def unit(self) -> int:
        """The least bytes of ``Records.pages`` that :meth:`fill` needs."""

    @property
    def finished(self) -> bool:
        """No more records."""

    def fill(self, records: Records) -> None:
        """Put the next records there; ``state[3]`` and ``state[4]`` say how many, and marks.

        ``state`` is what the last call left.  None may be filled before ``finished``.

        :raises ImportFormatError: damaged
        """


@dataclass(frozen=True)
class Stream:
    """One CPU's records, and how messages name them."""

    cpu: int
    source: RecordSource
    where: str
    dropped: int = 0
    until_ns: int = 0
    """Events that the full buffer refused, nobody knows when, and before which time."""


@dataclass(frozen=True)
class Recorded:
    """One event of the recording: how often it was there, and what became of it."""

    source: str
    count: int
    event: str | None
    function: str | None


class Decoder:
    """Decodes one recording.  Use it once: iterate :meth:`batches`, then read the counts."""

    def __init__(
        self,
        formats: Sequence[EventFormat],
        streams: Sequence[Stream],
        *,
        comms: Mapping[int, str],
        kallsyms: Kallsyms,
        definitions: Mapping[str, Definition],
        small: bool = False,
    ) -> None:
        """``definitions`` by SYSTEM:NAME.  ``small``: run the kernels uncompiled."""
        self._formats: dict[int, EventFormat] = {}
        for event in formats:
            other = self._formats.setdefault(event.id, event)
            if other.source != event.source:
                raise ImportFormatError(
                    f"events {other.source} and {event.source} have the same number {event.id}"
                )
        self._streams = list(streams)
        self._kallsyms = kallsyms
        self._definitions = definitions
        self._gather = kernel(gather, compile=not small)
        self._program = Program()
        self._event_names = list(EVENT_TYPES)
        self._source_names = list(dict.fromkeys(e.source for e in self._formats.values()))
        self._comm_names = list(dict.fromkeys(comms.values()))
        number_of = {c: i for i, c in enumerate(self._comm_names)}
        self._comm_tids = np.array(sorted(comms), np.int64)
        self._comm_of = np.array([number_of[comms[t]] for t in sorted(comms)], np.int32)
        self._seen = np.zeros(65536, np.int64)
        self._rows_of = np.zeros(MAX_KINDS, np.int64)
        self._doubted = np.zeros(MAX_KINDS, np.int64)
        self._begun: set[int] = set()
        self.rows = 0
        self.lost_events = 0
        self.loss_marks = 0
        self.clock_backs = 0
        self.lost_unknown = False
        self.span_ns: tuple[int, int] | None = None

    # -- results ---------------------------------------------------------------------------------

    @property
    def records_read(self) -> int:
        """Records in the pages decoded so far, recognised or not."""
        return int(self._seen.sum())

    def events(self) -> dict[str, int]:
        """Rows by event type."""
        found: dict[str, int] = {}
        for kind, recipe in enumerate(self._program.recipes):
            if recipe.event is not None and self._rows_of[kind]:
                found[recipe.event] = found.get(recipe.event, 0) + int(self._rows_of[kind])
        if self.loss_marks:
            found["trace.lost"] = self.loss_marks
        if self.clock_backs:
            found["trace.clock_back"] = self.clock_backs
        return dict(sorted(found.items()))

    def recorded(self) -> list[Recorded]:
        """Every event that was recorded, and those of known meaning that never came (count 0)."""
        found: list[Recorded] = []
        by_number: dict[int, list[Recipe]] = {}
        for kind, number in enumerate(self._program.ids):
            by_number.setdefault(number, []).append(self._program.recipes[kind])
        for number, event in self._formats.items():
            recipes = by_number.get(number, [])
            count = int(self._seen[number])
            if not count:
                recipe = self._recipe(event, [])
                if recipe.event is not None:
                    found.append(Recorded(event.source, 0, recipe.event, recipe.function))
                continue
            known = next((r for r in recipes if r.event is not None), None)
            shown = known or next(iter(recipes), None)
            found.append(
                Recorded(
                    event.source,
                    count,
                    known.event if known else None,
                    shown.function if shown else None,
                )
            )
        for number in np.flatnonzero(self._seen).tolist():
            if number not in self._formats:
                found.append(Recorded(f"?:{number}", int(self._seen[number]), None, None))
        return sorted(found, key=lambda r: r.source)

    def disagreements(self) -> dict[str, int]:
        """Values that could not be what their place says, by event type."""
        found: dict[str, int] = {}
        for kind, recipe in enumerate(self._program.recipes):
            if recipe.event is not None and self._doubted[kind]:
                found[recipe.event] = found.get(recipe.event, 0) + int(self._doubted[kind])
        return found

    # -- decoding --------------------------------------------------------------------------------

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The recording's rows in time order, each batch with memory of its own.

        :raises ImportFormatError: damaged pages or records
        """
        count = len(self._streams)
        share = min(CHUNK_BYTES, ALL_CHUNKS_BYTES // max(count, 1))
        unit = max((s.source.unit for s in self._streams), default=8)
        size = max(unit, share // unit * unit)
        room = Records(count, size, min((s.source.unit for s in self._streams), default=8))
        self._room = room
        head = np.zeros(count, np.int64)
        self._head, self._tail = head, np.zeros(count, np.int64)
        self._finished = np.zeros(count, np.int64)
        cpus = np.array([s.cpu for s in self._streams], np.int32)
        marks = np.array(
            [
                self._event_names.index("trace.lost"),
                self._event_names.index("trace.clock_back"),
                column_index("until_ns"),
                column_index("count"),
            ],
            np.int64,
        )
        columns = Columns(BATCH_ROWS)
        state = np.zeros(3, np.int64)
        dictionaries = (
            dictionary(self._comm_names),
            dictionary(self._source_names),
            dictionary(self._event_names),
        )
        for stream in range(count):
            self._refill(stream)
        while True:
            program = self._program
            result = self._gather(
                room.pages, room.words, room.ts, room.at, room.size, room.until, room.lost,
                self._head, self._tail, self._finished, cpus, program.kind_of,
                program.kinds, program.steps, program.cases, self._comm_tids, self._comm_of,
                marks, self._seen, self._rows_of, self._doubted, columns.ts, columns.cpu,
                columns.tid, columns.comm, columns.source, columns.event, columns.context,
                columns.values, columns.valid, columns.filled, columns.texts, state,
            )  # fmt: skip
            rows, texts, stream = (int(v) for v in state)
            if texts:
                columns.intern(columns.texts[:texts], room.pages)
                state[1] = 0
            if result == NEED:
                self._refill(stream)
            elif result == RESOLVE:
                self._resolve(stream)
            elif result == SHORT:
                raise self._short(stream)
            elif result != FULL or rows >= columns.rows:
                if rows:
                    first, last = int(columns.ts[0]), int(columns.ts[rows - 1])
                    self.span_ns = (self.span_ns[0] if self.span_ns else first, last)
                    self.rows += rows
                    yield columns.to_batch(rows, *dictionaries)
                    columns.reset()
                    state[0] = 0
                if result != FULL:
                    return

    def _refill(self, stream: int) -> None:
        """Take the next records of a stream, or note that there are none."""
        source, records = self._streams[stream].source, self._room.stream(stream)
        self._head[stream] = self._tail[stream] = 0
        if source.finished:
            self._finished[stream] = 1
            return
        records.state[3] = records.state[4] = 0
        source.fill(records)
        if records.state[3] and stream not in self._begun:
            self._begun.add(stream)
            if self._streams[stream].dropped:
                self._mark_dropped(stream)
        self._tail[stream] = records.state[3]
        self._count_marks(records)

    def _mark_dropped(self, stream: int) -> None:
        """Put a hole over the whole of a stream before its first record."""
        one, dropped = self._room.stream(stream), self._streams[stream]
        records, marks = int(one.state[3]), int(one.state[4])
        for column in (one.ts, one.at, one.size):
            column[1 : records + 1] = column[:records].copy()
        one.at[0], one.size[0] = ring_buffer.MARK_LOST, marks
        one.until[marks] = max(dropped.until_ns, int(one.ts[records]))
        one.lost[marks] = dropped.dropped
        one.state[3], one.state[4] = records + 1, marks + 1

    def _count_marks(self, one: Records) -> None:
        records, marks = int(one.state[3]), int(one.state[4])
        if not marks:
            return
        kinds = one.at[:records]
        counts = one.lost[one.size[:records][kinds == ring_buffer.MARK_LOST]]
        self.loss_marks += len(counts)
        self.lost_events += sum(c for c in counts.tolist() if c > 0)
        self.lost_unknown = self.lost_unknown or bool((counts < 0).any())
        self.clock_backs += int(np.count_nonzero(kinds == ring_buffer.MARK_CLOCK_BACK))

    def _record(self, stream: int) -> tuple[int, npt.NDArray[np.uint8]]:
        """Event number and payload of the next record of a stream."""
        one = self._room.stream(stream)
        at, size = (int(a[self._head[stream]]) for a in (one.at, one.size))
        payload = one.pages[at : at + size]
        return int(payload[0]) | int(payload[1]) << 8, payload

    def _resolve(self, stream: int) -> None:
        """Find a recipe for the next record of a stream."""
        number, payload = self._record(stream)
        event = self._formats.get(number)
        if event is None or self._program.full(number):
            self._program.close(number)
            return
        address, probe = probe_address_field(event), 0
        names: list[str] = []
        if address is not None and event.source not in self._definitions:
            if address.offset + 8 > len(payload):
                raise self._short(stream)
            piece = payload[address.offset : address.offset + 8].tobytes()
            probe = int.from_bytes(piece, "little", signed=True)
            names = self._kallsyms.functions_at(probe & 0xFFFFFFFFFFFFFFFF)
        recipe = self._recipe(event, names)
        if recipe == Recipe(event=None):
            self._program.close(number)
            return
        self._program.add(
            number,
            recipe,
            event=self._event_names.index(recipe.event) if recipe.event else -1,
            source=self._source_names.index(event.source),
            probe=probe,
        )

    def _recipe(self, event: EventFormat, functions: list[str]) -> Recipe:
        return recognise(event, self._definitions.get(event.source), functions)

    def _short(self, stream: int) -> ImportFormatError:
        number, payload = self._record(stream)
        event = self._formats.get(number)
        return ImportFormatError(
            f"{self._streams[stream].where}: a record of {event.source if event else number}"
            f" has {len(payload)} bytes, fewer than its format says"
        )
