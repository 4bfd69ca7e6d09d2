"""The log that QEMU's ``log`` trace back end writes -> rows.  Plain, or compressed by gzip.

Up to 10.0 a line is ``TID@SECONDS.MICROSECONDS:EVENT ARGUMENTS``, later ``ISO-8601 EVENT
ARGUMENTS`` without a thread.  Warnings and whatever else QEMU prints stand between them.
"""

from __future__ import annotations

import calendar
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa

from tracekit.errors import ImportFormatError
from tracekit.ftrace.byte_source import RegularFile
from tracekit.importers._define import Options
from tracekit.importers.qemu_events import TRACE_EVENTS, row_of_text
from tracekit.importers.row_batches import RowBatches
from tracekit.store import Manifest, RecordedName

__all__ = ("QemuLogSource", "is_qemu_log")

SOURCE = "qemu:"
"""What the ``source`` column begins with in rows of QEMU's own traces."""

MAX_LINE = 1 << 16
MAX_EXPANDED = 1 << 36
"""Bytes that a compressed log may expand to."""
MAX_NAMES = 20_000
OTHER_NAMES = "qemu:(more names)"
GZIP = b"\x1f\x8b"

_NAME = r"([A-Za-z_][A-Za-z0-9_]{2,99})(?: (.*))?"
_WITH_THREAD = re.compile(r"([0-9]{1,10})@([0-9]{1,10})\.([0-9]{6}):" + _NAME, re.DOTALL)
_ISO = re.compile(
    r"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2})(?:\.([0-9]{6}))?Z " + _NAME,
    re.DOTALL,
)
_UNTIMED = re.compile(_NAME, re.DOTALL)
_PIECE = 1 << 18
_WITH_THREAD_STYLE, _ISO_STYLE = "TID@SECONDS", "ISO 8601"


def is_qemu_log(path: Path, start: bytes) -> bool:
    """Whether a file that begins with ``start`` holds lines of QEMU's trace events."""
    return bool(_timed(lines := _first_lines(start)) or _untimed(lines))


def _first_lines(start: bytes) -> list[str]:
    if start.startswith(GZIP):
        try:
            start = zlib.decompressobj(wbits=31).decompress(start, _PIECE)
        except zlib.error:
            return []
    return [_text(line) for line in start.split(b"\n")]


def _text(line: bytes) -> str:
    return line.removesuffix(b"\r").decode("utf-8", "replace")


def _timed(lines: list[str]) -> bool:
    """Trace events with their times: of a name that QEMU could have, as all of its have a ``_``."""
    for line in lines:
        match = _WITH_THREAD.fullmatch(line) or _ISO.fullmatch(line)
        if match is not None and "_" in match[match.re.groups - 1]:
            return True
    return False


def _untimed(lines: list[str]) -> bool:
    """Trace events that are known, printed without their time."""
    for line in lines:
        match = _UNTIMED.fullmatch(line)
        if match is not None and match[1] in TRACE_EVENTS:
            known = row_of_text(TRACE_EVENTS[match[1]], match[2] or "")
            if known is not None and "_" in line:
                return True
    return False


class QemuLogSource:
    """A QEMU log as a source of rows.  Lines of no known event are counted."""

    clock = "realtime"

    def __init__(self, path: Path, options: Options) -> None:
        """Open ``path``.

        :raises TracekitError: the file cannot be read
        :raises ImportFormatError: its lines carry no time
        """
        self.name = path.name
        self._salvage = options.salvage
        self._file = RegularFile(path)
        self._rows = RowBatches()
        self._names: Counter[str] = Counter()
        self._unread: Counter[str] = Counter()
        self._styles: Counter[str] = Counter()
        self._other_lines = 0
        self._cut = False
        self._seconds: dict[str, int] = {}
        try:
            size = min(self._file.size, 1 << 16)
            start = self._file.read(0, size, "start")
            self._gzip = start.startswith(GZIP)
            if not _timed(_first_lines(start)):
                raise ImportFormatError(
                    "the trace events in this QEMU log carry no time",
                    help="start QEMU with `-msg timestamp=on` besides `-trace` and `-D`",
                )
        except BaseException:
            self.close()
            raise

    @property
    def rows(self) -> int:
        """Rows so far."""
        return self._rows.rows

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The log's rows in time order.

        :raises ImportFormatError: a compressed log that is damaged or cut
        """
        for line in self._lines():
            self._take(line)
            yield from self._rows.full()
        if self._cut:
            last = self._rows.latest_ns or 0
            self._rows.add(last, None, "trace.lost", {"until_ns": last})
        yield from self._rows.rest()

    def manifest(self) -> Manifest:
        """What the log says; once its batches were taken."""
        recorded = [
            RecordedName(
                name=name if name == OTHER_NAMES else SOURCE + name,
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
            loss_marks=int(self._cut),
            lost_unknown=self._cut,
            sources=(
                {
                    "file": self.name,
                    "format": "QEMU log, " + (" and ".join(self._styles) or "no lines"),
                    "compression": "gzip" if self._gzip else None,
                    "other_lines": self._other_lines,
                },
            ),
        )

    def close(self) -> None:
        """Give the file back."""
        self._file.close()

    def _take(self, line: str) -> None:
        """One line: a row, a count of a name, or a count of other lines."""
        tid: int | None = None
        match = _WITH_THREAD.fullmatch(line)
        if match is not None:
            tid = int(match[1])
            if tid >= 1 << 31:
                tid = None
            ts_ns = int(match[2]) * 1_000_000_000 + int(match[3]) * 1000
            style = _WITH_THREAD_STYLE
        else:
            match = _ISO.fullmatch(line)
            second = None if match is None else self._second(match[1])
            if match is None or second is None:
                self._other_lines += 1 if line else 0
                return
            ts_ns = second * 1_000_000_000 + int(match[2] or 0) * 1000
            style = _ISO_STYLE
        name, arguments = match[match.re.groups - 1], match[match.re.groups] or ""
        if "_" not in name or ts_ns >= 1 << 63:
            self._other_lines += 1
            return
        self._styles[style] += 1
        known = TRACE_EVENTS.get(name)
        if known is None:
            if name not in self._names and len(self._names) >= MAX_NAMES:
                name = OTHER_NAMES
            self._names[name] += 1
            return
        found = row_of_text(known, arguments)
        if found is None:
            self._unread[name] += 1
            return
        self._names[name] += 1
        event, row = found
        self._rows.add(ts_ns, SOURCE + name, event, row, tid=tid)

    def _second(self, text: str) -> int | None:
        """``2026-11-22T16:36:17`` as seconds since 1970; none: there is no such moment."""
        found = self._seconds.get(text)
        if found is not None:
            return found
        year, month, day = int(text[:4]), int(text[5:7]), int(text[8:10])
        hour, minute, second = int(text[11:13]), int(text[14:16]), int(text[17:19])
        if year < 1970 or not 1 <= month <= 12 or hour > 23 or minute > 59 or second > 60:
            return None
        if not 1 <= day <= calendar.monthrange(year, month)[1]:
            return None
        found = calendar.timegm((year, month, day, hour, minute, second))
        if len(self._seconds) >= 1 << 12:
            self._seconds.clear()
        self._seconds[text] = found
        return found

    def _lines(self) -> Iterator[str]:
        """The log's lines; of one that is far too long the end is left out."""
        left = b""
        for piece in self._expanded() if self._gzip else self._pieces():
            lines = (left + piece).split(b"\n")
            left = lines.pop()
            if len(left) > MAX_LINE:
                left = left[:MAX_LINE]
            for line in lines:
                yield _text(line[:MAX_LINE])
        if left:
            self._other_lines += 1  # cut within its line: a number may lack digits

    def _pieces(self) -> Iterator[bytes]:
        at = 0
        while at < self._file.size:
            size = min(_PIECE, self._file.size - at)
            yield self._file.read(at, size, "lines")
            at += size

    def _expanded(self) -> Iterator[bytes]:
        """What a gzip file holds: one or more compressed pieces, one after the other."""
        total = 0
        stream = zlib.decompressobj(wbits=31)
        begun = False
        for piece in self._pieces():
            while piece:
                if not begun and not piece.strip(b"\0"):
                    break  # padding behind the last one
                begun = True
                try:
                    text = stream.decompress(piece, _PIECE)
                except zlib.error:
                    if self._salvage:
                        self._cut = True
                        return
                    raise ImportFormatError(
                        f"the compressed log is damaged near byte {total} of its text",
                        help="import it with --salvage to keep what comes before",
                    ) from None
                total += len(text)
                if total > MAX_EXPANDED:
                    raise ImportFormatError(
                        f"the compressed log expands to more than {MAX_EXPANDED >> 30} GiB",
                        help="expand it and import the part that matters",
                    )
                yield text
                if stream.eof:
                    piece, begun = stream.unused_data, False
                    stream = zlib.decompressobj(wbits=31)
                else:
                    piece = stream.unconsumed_tail
        if begun:
            if not self._salvage:
                raise ImportFormatError(
                    f"the compressed log is cut off after {total} bytes of its text",
                    help="import it with --salvage to keep what is there",
                )
            self._cut = True
