"""What QEMU's ``simple`` trace back end writes (simpletrace, version 4) -> rows.

The file holds names of events and their bytes, no types: those come from the declarations here, or
from the ``trace-events-all`` file of the same QEMU.  Stamps are CLOCK_MONOTONIC; the process is
recorded, the thread is not.
"""

from __future__ import annotations

import re
import struct
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from tracekit.errors import ImportFormatError, UsageError
from tracekit.ftrace.byte_source import RegularFile
from tracekit.importers._define import Options
from tracekit.importers.qemu_events import (
    TRACE_EVENTS,
    Arguments,
    Row,
    read_integer,
    row_of_arguments,
)
from tracekit.importers.qemu_log import SOURCE
from tracekit.importers.row_batches import RowBatches
from tracekit.store import Manifest, RecordedName

__all__ = (
    "SimpletraceRecord",
    "SimpletraceSource",
    "is_simpletrace",
    "read_records",
    "read_trace_events",
    "take_arguments",
)

HEADER = (1 << 64) - 1
MAGIC = 0xF2B177CB0AA429B4
VERSION = 4
DROPPED = (1 << 64) - 2
MAPPING, EVENT = 0, 1

MAX_RECORD = 1 << 20
MAX_NAME = 1000
MAX_MAPPINGS = 200_000
MAX_TRACE_EVENTS = 16 << 20
MAX_TS = 1 << 62

_PIECE = 1 << 20
_DECLARATION = re.compile(r"(?:(?:disable|vcpu|tcg)\s+)*([A-Za-z_]\w*)\s*\(([^)]*)\)")

Signature = Sequence[tuple[str, str]]
"""An event's arguments: (type, name); ``str`` for text, the rest is a number."""


@dataclass(frozen=True)
class SimpletraceRecord:
    """An event as it was written.  ``name`` null: events were dropped before it."""

    ts_ns: int
    pid: int
    name: str | None
    payload: bytes


def is_simpletrace(path: Path, start: bytes) -> bool:
    """Whether a file that begins with ``start`` is one, of whatever version."""
    return _byte_order(start) is not None


def _byte_order(start: bytes) -> str | None:
    for order in "<>":
        if start[:16] == struct.pack(f"{order}QQ", HEADER, MAGIC):
            return order
    return None


def read_trace_events(path: Path) -> dict[str, Signature]:
    """The argument types of a QEMU build, from its ``trace-events-all``.

    :raises TracekitError: it cannot be read
    :raises UsageError: it declares nothing
    """
    with RegularFile(path) as file:
        if file.size > MAX_TRACE_EVENTS:
            raise UsageError(f"{path} is larger than {MAX_TRACE_EVENTS >> 20} MiB")
        text = file.read(0, file.size, "declarations").decode("utf-8", "replace")
    found: dict[str, Signature] = {}
    for line in text.splitlines():
        match = _DECLARATION.match(line)
        if match is not None:
            found[match[1]] = _signature(match[2])
    if not found:
        raise UsageError(
            f"{path} declares no trace events",
            help="--trace-events takes the trace-events-all file of the QEMU that was traced",
        )
    return found


def _signature(arguments: str) -> Signature:
    found = []
    for one in arguments.split(","):
        one = one.strip()
        if one in ("", "void"):
            continue
        name = re.split(r"[\s*]", one)[-1]
        is_text = one.count("*") == 1 and re.match(r"(const )?char ?\*", one) is not None
        found.append(("str" if is_text else "u64", name))
    return found


def take_arguments(
    payload: bytes, signature: Signature, order: str
) -> list[tuple[str, int | bytes]] | None:
    """A record's arguments by name, as they were written; none: it has others than these."""
    found: list[tuple[str, int | bytes]] = []
    at = 0
    for kind, name in signature:
        if kind == "str":
            if at + 4 > len(payload):
                return None
            (size,) = struct.unpack_from(f"{order}I", payload, at)
            at += 4
            if at + size > len(payload):
                return None
            found.append((name, payload[at : at + size]))
            at += size
        else:
            if at + 8 > len(payload):
                return None
            found.append((name, struct.unpack_from(f"{order}Q", payload, at)[0]))
            at += 8
    return found if at == len(payload) else None


class _Reader:
    """Bytes of a file one after the other."""

    def __init__(self, file: RegularFile) -> None:
        self._file = file
        self._held = b""
        self._start = 0
        self.at = 0

    @property
    def left(self) -> int:
        return self._file.size - self.at

    def take(self, size: int, what: str) -> bytes:
        begin = self.at - self._start
        if begin + size > len(self._held):
            if size > self.left:
                raise ImportFormatError(
                    f"cut off: {what} at byte {self.at} takes {size} bytes, {self.left} are left",
                    help="import it with --salvage to keep what comes before",
                )
            self._start, begin = self.at, 0
            self._held = self._file.read(self.at, min(max(size, _PIECE), self.left), what)
        self.at += size
        return self._held[begin : begin + size]


def read_records(file: RegularFile) -> Iterator[SimpletraceRecord]:
    """The records of a file, in its order.

    :raises ImportFormatError: another version, damaged or cut
    """
    reader = _Reader(file)
    order = _byte_order(reader.take(16, "header"))
    if order is None:
        raise ImportFormatError("no simpletrace header")
    (version,) = struct.unpack(f"{order}Q", reader.take(8, "version"))
    if version != VERSION:
        raise ImportFormatError(
            f"simpletrace version {version} is not read here",
            help=f"version {VERSION} is, which QEMU has written for years",
        )
    number = struct.Struct(f"{order}Q")
    mapping = struct.Struct(f"{order}QI")
    header = struct.Struct(f"{order}QQII")
    names: dict[int, str] = {}
    while reader.left:
        start = reader.at
        (kind,) = number.unpack(reader.take(8, "a record's type"))
        if kind == MAPPING:
            id, size = mapping.unpack(reader.take(12, "a mapping"))
            if not 0 < size <= MAX_NAME or len(names) >= MAX_MAPPINGS:
                raise _damaged(start, f"an event's name of {size} bytes")
            names[id] = reader.take(size, "an event's name").decode("utf-8", "replace")
            continue
        if kind != EVENT:
            raise _damaged(start, f"a record of type {kind}")
        id, ts_ns, size, pid = header.unpack(reader.take(24, "a record"))
        if not 24 <= size <= MAX_RECORD:
            raise _damaged(start, f"a record of {size} bytes")
        if ts_ns >= MAX_TS or pid >= 1 << 31:
            raise _damaged(start, f"a record of time {ts_ns} by process {pid}")
        if id != DROPPED and id not in names:
            raise _damaged(start, f"a record of event {id}, which has no name")
        payload = reader.take(size - 24, "a record's arguments")
        if id == DROPPED and len(payload) != 8:
            raise _damaged(start, f"a count of dropped events of {len(payload)} bytes")
        yield SimpletraceRecord(ts_ns, pid, None if id == DROPPED else names[id], payload)


def _damaged(at: int, what: str) -> ImportFormatError:
    return ImportFormatError(
        f"damaged at byte {at}: {what}", help="import it with --salvage to keep what comes before"
    )


class SimpletraceSource:
    """A simpletrace file as a source of rows.  Events that are not known are counted."""

    clock = "mono"

    def __init__(self, path: Path, options: Options) -> None:
        """Open ``path`` and what says its argument types.

        :raises TracekitError: a file cannot be read
        :raises ImportFormatError: another version
        """
        self.name = path.name
        self._salvage = options.salvage
        self._types: Mapping[str, Signature] = {}
        if options.trace_events is not None:
            self._types = read_trace_events(options.trace_events)
        self._rows = RowBatches()
        self._names: Counter[str] = Counter()
        self._unread: Counter[str] = Counter()
        self._lost = 0
        self._holes = 0
        self._cut = False
        self._file = RegularFile(path)
        try:
            start = self._file.read(0, min(24, self._file.size), "header")
            self._order = _byte_order(start) or "<"
        except BaseException:
            self.close()
            raise

    @property
    def rows(self) -> int:
        """Rows so far."""
        return self._rows.rows

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The recording's rows in time order.

        :raises ImportFormatError: damaged or cut, and not to be salvaged
        """
        before: int | None = None
        try:
            for record in read_records(self._file):
                if record.name is None:
                    self._dropped(record, before)
                else:
                    self._take(record, record.name)
                    before = record.ts_ns
                yield from self._rows.full()
        except ImportFormatError:
            if not self._salvage or not self._names:
                raise
            self._cut = True
            self._holes += 1
            last = self._rows.latest_ns or before or 0
            self._rows.add(last, None, "trace.lost", {"until_ns": last})
        yield from self._rows.rest()

    def manifest(self) -> Manifest:
        """What the recording says; once its batches were taken."""
        recorded = [
            RecordedName(
                name=SOURCE + name[:200],
                count=count,
                event=TRACE_EVENTS[name][0].event if name in TRACE_EVENTS else None,
            )
            for name, count in sorted(self._names.items())
        ]
        recorded += [
            RecordedName(name=f"{SOURCE}{name} (arguments not understood)", count=count)
            for name, count in sorted(self._unread.items())
        ]
        return Manifest(
            clock=self.clock,
            rows=self.rows,
            recorded=tuple(recorded),
            lost_events=self._lost,
            loss_marks=self._holes,
            lost_unknown=self._cut,
            sources=({"file": self.name, "format": f"QEMU simpletrace v{VERSION}"},),
        )

    def close(self) -> None:
        """Give the file back."""
        self._file.close()

    def _dropped(self, record: SimpletraceRecord, before: int | None) -> None:
        """A hole.  QEMU notes drops before it writes what its full buffer held meanwhile, so the
        hole begins at the record written before the note, and the note has the time it ends at."""
        (count,) = struct.unpack(f"{self._order}Q", record.payload)
        begin = record.ts_ns if before is None else min(before, record.ts_ns)
        row: Row = {"until_ns": record.ts_ns, "count": count}
        self._rows.add(begin, None, "trace.lost", row)
        self._lost += count
        self._holes += 1

    def _take(self, record: SimpletraceRecord, name: str) -> None:
        known = TRACE_EVENTS.get(name)
        if known is None:
            self._names[name] += 1
            return
        found = self._row(name, record.payload)
        if found is None:
            self._unread[name] += 1
            return
        self._names[name] += 1
        event, row = found
        self._rows.add(record.ts_ns, SOURCE + name, event, row, pid=record.pid)

    def _row(self, name: str, payload: bytes) -> tuple[str, Row] | None:
        """Event type and row of a known event's record; none: its arguments are others."""
        for known in TRACE_EVENTS[name]:
            signature = self._types.get(name, known.arguments)
            taken = take_arguments(payload, signature, self._order)
            if taken is None:
                continue
            kinds = {argument: kind for kind, argument in known.arguments}
            numbers: dict[str, int] = {}
            texts: dict[str, str] = {}
            for argument, value in taken:
                kind = kinds.get(argument)
                if isinstance(value, bytes):
                    texts[argument] = value.decode("utf-8", "replace")
                elif kind is not None and kind != "str":
                    # C widened it to 64 bits, with its sign.
                    number = read_integer(kind, value & _mask(kind))
                    assert number is not None
                    numbers[argument] = number
            found = row_of_arguments(known, Arguments(numbers, texts))
            if found is not None:
                return found
        return None


def _mask(kind: str) -> int:
    bits = {"bool": 8, "u16": 16, "u32": 32, "int": 32}.get(kind, 64)
    return (1 << bits) - 1
