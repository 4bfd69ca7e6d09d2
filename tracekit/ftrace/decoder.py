"""Pages of several CPUs -> record batches in time order, with bounded memory.

Holds one chunk of pages per CPU.  What was seen on the way is counted by event, so that nothing is
dropped in silence.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tracekit.errors import ImportFormatError
from tracekit.events import EVENT_TYPES
from tracekit.ftrace import ring_buffer
from tracekit.ftrace._jit import kernel
from tracekit.ftrace.columns import Columns, dictionary
from tracekit.ftrace.event_format import EventFormat
from tracekit.ftrace.gather import FULL, NEED, RESOLVE, SHORT, gather
from tracekit.ftrace.kallsyms import Kallsyms
from tracekit.ftrace.probes import Definition
from tracekit.ftrace.program import MAX_KINDS, Program, Recipe, column_index
from tracekit.ftrace.recognise import probe_address_field, recognise
from tracekit.ftrace.ring_buffer import FAULTS, PageLayout, Records, decode_pages

__all__ = ("Decoder", "PageSource", "Recorded", "Stream")

BATCH_ROWS = 1 << 16
CHUNK_BYTES = 1 << 19
"""Pages held of one CPU; less where there are many CPUs."""
ALL_CHUNKS_BYTES = 32 << 20
SMALL = 2 << 20
"""Bytes of pages below which kernels run uncompiled: numba takes longer to load than they run."""


class PageSource(Protocol):
    """Where a CPU's pages come from."""

    @property
    def finished(self) -> bool:
        """No more pages."""

    def fill(self, target: memoryview) -> int:
        """Put whole pages into ``target``; how many bytes."""


@dataclass(frozen=True)
class Stream:
    """One CPU's pages, and how messages name them."""

    cpu: int
    source: PageSource
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
        layout: PageLayout,
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
        self._layout = layout
        self._streams = list(streams)
        self._kallsyms = kallsyms
        self._definitions = definitions
        self._decode = kernel(decode_pages, compile=not small)
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
        page_size = self._layout.page_size
        share = min(CHUNK_BYTES, ALL_CHUNKS_BYTES // max(count, 1))
        self._chunk_pages = max(1, share // page_size)
        room = Records(self._chunk_pages, self._layout)
        self._pages = np.zeros((count, self._chunk_pages * page_size), np.uint8)
        self._words = self._pages.view(np.uint32)
        self._ts = np.zeros((count, len(room.ts)), np.int64)
        self._at = np.zeros((count, len(room.at)), np.int32)
        self._size = np.zeros((count, len(room.size)), np.int32)
        self._until = np.zeros((count, len(room.until)), np.int64)
        self._lost = np.zeros((count, len(room.lost)), np.int64)
        self._time = np.zeros((count, len(room.state)), np.int64)
        self._read = np.zeros(count, np.int64)
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
                self._pages, self._words, self._ts, self._at, self._size, self._until,
                self._lost, self._head, self._tail, self._finished, cpus, program.kind_of,
                program.kinds, program.steps, program.cases, self._comm_tids, self._comm_of,
                marks, self._seen, self._rows_of, self._doubted, columns.ts, columns.cpu,
                columns.tid, columns.comm, columns.source, columns.event, columns.context,
                columns.values, columns.valid, columns.filled, columns.texts, state,
            )  # fmt: skip
            rows, texts, stream = (int(v) for v in state)
            if texts:
                columns.intern(columns.texts[:texts], self._pages)
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
        """Decode the next pages of a stream, or note that there are none."""
        source = self._streams[stream].source
        size = 0
        if not source.finished:
            size = source.fill(memoryview(self._pages[stream]).cast("B"))
        self._head[stream] = self._tail[stream] = 0
        if not size:
            self._finished[stream] = 1
            return
        layout, state = self._layout, self._time[stream]
        fault = self._decode(
            self._words[stream], size // layout.page_size, layout.page_size, layout.stamp,
            layout.commit, layout.data, self._ts[stream], self._at[stream], self._size[stream],
            self._until[stream], self._lost[stream], state,
        )  # fmt: skip
        if fault:
            page = int(self._read[stream]) + int(state[5])
            raise ImportFormatError(
                f"{self._streams[stream].where}: page {page} is damaged: {FAULTS[fault]}"
            )
        if state[3] and stream not in self._begun:
            self._begun.add(stream)
            if self._streams[stream].dropped:
                self._mark_dropped(stream)
        self._read[stream] += size // layout.page_size
        self._tail[stream] = state[3]
        self._count_marks(stream, int(state[3]), int(state[4]))

    def _mark_dropped(self, stream: int) -> None:
        """Put a hole over the whole of a stream before its first record."""
        state, dropped = self._time[stream], self._streams[stream]
        records, marks = int(state[3]), int(state[4])
        for column in (self._ts[stream], self._at[stream], self._size[stream]):
            column[1 : records + 1] = column[:records].copy()
        self._at[stream, 0], self._size[stream, 0] = ring_buffer.MARK_LOST, marks
        self._until[stream, marks] = max(dropped.until_ns, int(self._ts[stream, records]))
        self._lost[stream, marks] = dropped.dropped
        state[3], state[4] = records + 1, marks + 1

    def _count_marks(self, stream: int, records: int, marks: int) -> None:
        if not marks:
            return
        kinds = self._at[stream, :records]
        lost_at = self._size[stream, :records][kinds == ring_buffer.MARK_LOST]
        counts = self._lost[stream, lost_at]
        self.loss_marks += len(counts)
        self.lost_events += sum(c for c in counts.tolist() if c > 0)
        self.lost_unknown = self.lost_unknown or bool((counts < 0).any())
        self.clock_backs += int(np.count_nonzero(kinds == ring_buffer.MARK_CLOCK_BACK))

    def _record(self, stream: int) -> tuple[int, npt.NDArray[np.uint8]]:
        """Event number and payload of the next record of a stream."""
        at, size = (int(a[stream, self._head[stream]]) for a in (self._at, self._size))
        payload = self._pages[stream, at : at + size]
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
