"""ftrace text, line by line: what the tracefs files ``trace`` and ``trace_pipe`` show, and
``trace-cmd report``.

A line is ``COMM-TID (TGID) [CPU] FLAGS SECONDS: NAME and its arguments``; the process, the flags,
and the brackets around the CPU may be missing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from tracekit.errors import ImportFormatError
from tracekit.ftrace.byte_source import RegularFile

__all__ = ("LINE", "Lost", "Piece", "TextLines", "is_ftrace_text")

PIECE_BYTES = 2 << 20
MAX_LINE = 1 << 16

LINE = re.compile(
    # A name has at most 15 bytes, so the first place that fits is the right one, whatever the
    # name or the text behind it pretends.
    rb"^ *([^\n-]{0,64}(?:-[^\n-]{0,64}){0,16}?)-([0-9]{1,7}+) ++"
    rb"(?:\( *([0-9]{1,7}|-+)\) ++)?"
    rb"(?:\[([0-9]{1,4}+)\](?: ++([^ \n]{4,8}+))?|([0-9]{1,4})([^ \n0-9][^ \n]{1,9}+)) ++"
    rb"([0-8][0-9]{9}|[0-9]{1,9})\.([0-9]{6}(?:[0-9]{3})?): ++(?:\([+-][0-9]+\) +)?"
    rb"([A-Za-z_<][^:( \n]*+)([^\n]*+)$",
    re.MULTILINE,
)
"""Groups: name of the thread, thread, process, CPU and flags, again CPU and flags where there are
no brackets, seconds, their fraction, name of the event, and the rest."""

_LOST = re.compile(
    rb"^ *CPU:([0-9]{1,4}) "
    rb"\[(?:LOST(?: ([0-9]{1,18}))? EVENTS|(?:([0-9]{1,18}) )?EVENTS DROPPED)\] *$"
)
_HEADING = re.compile(
    rb"^(?:#.*|cpus=[0-9]+|version = [0-9]+|CPU [0-9]+ is empty|trace-cmd .*| *=> .*|)\s*$"
)
_ENTRIES = re.compile(rb"^# entries-in-buffer/entries-written: ([0-9]{1,18})/([0-9]{1,18}) ")
_COUNTING = re.compile(rb"^ *[^\n]{0,64}?-[0-9]{1,7} [^\n]{0,40}? [0-9]+: +[A-Za-z_]")
_MARKERS = frozenset((b"tracing_mark_write", b"print", b"bprint", b"bputs"))
"""Events whose text may go on on the next line."""


@dataclass(frozen=True)
class Lost:
    """Before row ``row`` of a piece, events of ``cpu`` are missing (-1: of any).

    ``count`` -1: nobody counted them.
    """

    row: int
    cpu: int
    count: int


@dataclass
class Piece:
    """Some lines: of each event's, the groups of ``LINE``, and where its number is not ``first`` +
    its index, its number."""

    first: int
    rows: list[tuple[bytes, ...]]
    numbers: list[int] | None = None
    lost: list[Lost] = field(default_factory=list)

    def number(self, row: int) -> int:
        """Of a row, its line's number in the file."""
        return self.first + row if self.numbers is None else self.numbers[row]


def is_ftrace_text(start: bytes) -> bool:
    """Whether a file that begins with ``start`` is ftrace's text: its first event's line says."""
    lines = start.split(b"\n")
    for line in lines[: max(len(lines) - 1, 1)]:
        line = line.removesuffix(b"\r")
        if line.startswith(b"# tracer: ") or LINE.match(line) or _COUNTING.match(line):
            return True
        if not (_HEADING.match(line) or _LOST.match(line)):
            return False
    return False


class TextLines:
    """The lines of one file.  May be read several times; the counts are the last time's."""

    def __init__(self, file: RegularFile, *, salvage: bool) -> None:
        self._file = file
        self._salvage = salvage
        self.lines = 0
        self.bad = 0
        self.continued = 0
        self.held: int | None = None
        self.written: int | None = None

    @property
    def overwritten(self) -> int:
        """Events that the full buffer gave up before it was read, as its heading says."""
        return max((self.written or 0) - (self.held or 0), 0)

    def pieces(self) -> Iterator[Piece]:
        """All of it, in pieces of bounded size.

        :raises ImportFormatError: a line of another kind, or a last line that does not end
        """
        self.lines = self.bad = self.continued = 0
        at, left, skipping, marker = 0, b"", False, False
        while at < self._file.size:
            size = min(PIECE_BYTES, self._file.size - at)
            text = left + self._file.read(at, size, "lines")
            at += size
            end = text.rfind(b"\n") + 1
            left, text = text[end:], text[:end]
            if text and skipping:
                text, skipping = text[text.find(b"\n") + 1 :], False
            if text:
                piece, marker = self._piece(text, marker)
                yield piece
            if len(left) > MAX_LINE:
                if not skipping:
                    yield self._refused(left, "is longer than any of ftrace")
                left, skipping = b"", True
        if left and not skipping:
            yield self._refused(left, "does not end: is the file cut off?")

    def _piece(self, text: bytes, marker: bool) -> tuple[Piece, bool]:
        """Whole lines; and whether the last one is a marker's, which may go on."""
        if b"\r\n" in text:
            text = text.replace(b"\r\n", b"\n")
        first, count = self.lines + 1, text.count(b"\n")
        rows = LINE.findall(text)
        if len(rows) == count:
            self.lines += count
            return Piece(first, rows), rows[-1][9] in _MARKERS
        piece = Piece(first, [], [])
        assert piece.numbers is not None
        for line in text.split(b"\n")[:-1]:
            self.lines += 1
            match = LINE.match(line)
            if match is not None:
                piece.rows.append(match.groups(b""))
                piece.numbers.append(self.lines)
                marker = match[10] in _MARKERS
            elif lost := _LOST.match(line):
                told = lost[2] or lost[3]
                piece.lost.append(Lost(len(piece.rows), int(lost[1]), int(told) if told else -1))
            elif marker and not line.startswith(b"#"):
                self.continued += 1
            elif not _HEADING.match(line):
                self.lines -= 1
                piece.lost += self._refused(line, "is not an ftrace line", len(piece.rows)).lost
            elif entries := _ENTRIES.match(line):
                self.held, self.written = int(entries[1]), int(entries[2])
        return piece, marker

    def _refused(self, line: bytes, why: str, row: int = 0) -> Piece:
        """What a bad line becomes when salvaging.

        :raises ImportFormatError: not salvaging
        """
        self.lines += 1
        self.bad += 1
        if not self._salvage:
            if _COUNTING.match(line):
                raise ImportFormatError(
                    f"{self._file.name} line {self.lines}: its stamp is no time in seconds\n"
                    f"    {shown(line)}",
                    help="record with the trace clock mono",
                )
            raise ImportFormatError(
                f"{self._file.name} line {self.lines} {why}\n    {shown(line)}",
                help="`--salvage` counts and skips such lines, and marks events as lost there",
            )
        return Piece(self.lines, [], None, [Lost(row, -1, -1)])


def shown(line: bytes, width: int = 90) -> str:
    """A line for a message: shortened, its control characters spelled out."""
    text = line[: 4 * width].decode("utf-8", "replace")
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return text if len(text) <= width else text[: width - 3] + "..."
