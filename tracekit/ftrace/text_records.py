"""Lines of ftrace text -> records of each CPU, as ring-buffer pages would hold them.

A text is nearly in the order of time: its readers take the earliest event that they see.  So lines
wait until others cannot come before them any more, and every CPU is told how far the others are.
"""

from __future__ import annotations

import gc
from collections import defaultdict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tracekit.errors import ImportFormatError
from tracekit.ftrace.ring_buffer import MARK_CLOCK_BACK, MARK_LOST, Records
from tracekit.ftrace.text_events import MAX_TEXT, Shape, TextEvents, numbers
from tracekit.ftrace.text_lines import Piece, TextLines
from tracekit.ftrace.text_wordings import Kind

__all__ = ("BEAT", "CpuText", "Survey", "TextRecords", "survey")

BEAT = 0xFFFF
"""The number of records that only say how far the other CPUs are; none is in the text."""
BEHIND = 4
"""Pieces that a line may stand behind later ones of other CPUs."""
UNIT = 8192
MAX_THREADS = 1 << 20
MAX_HOLES = 1000
"""Holes before one record; nobody shows more than one."""
UNKNOWN_NAME = b"<...>"
GRAIN = 1000
"""Nanoseconds in the last digit of a stamp in microseconds."""

_FLAGS = (
    {"d": 0x01, "D": 0x81, "b": 0x80},
    {"n": 0x04, "N": 0x24, "p": 0x20, "l": 0x02, "L": 0x22, "b": 0x06, "B": 0x26},
    {"h": 0x08, "H": 0x18, "s": 0x10, "z": 0x40, "Z": 0x48},
)
"""The letters of the three first columns of flags, as bits of common_flags."""

_I64 = npt.NDArray[np.int64]
Marks = list[tuple[int, int, int, int]]


@dataclass
class Survey:
    """What a first reading of a text tells."""

    cpus: set[int] = field(default_factory=set)
    names: dict[int, bytes] = field(default_factory=dict)
    processes: dict[int, int] = field(default_factory=dict)
    rows: int = 0
    exact: bool = False
    """Stamps have nine digits."""
    flags: bool = False


@contextmanager
def _uncollected() -> Iterator[None]:
    """Without the garbage collector, which would walk millions of tuples that are in no cycle."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@_uncollected()
def survey(lines: TextLines, events: TextEvents) -> Survey:
    """Read all lines once, and learn the events that they show.

    :raises ImportFormatError: a line that is none of ftrace's
    """
    found = Survey()
    for piece in lines.pieces():
        found.cpus.update(one.cpu for one in piece.lost if one.cpu >= 0)
        if not piece.rows:
            continue
        comms, tids, tgids, cpus, flags, lat_cpus, lat_flags, _, fractions, names, bodies = zip(
            *piece.rows, strict=True
        )
        found.rows += len(piece.rows)
        found.cpus.update(int(c or d) for c, d in set(zip(cpus, lat_cpus, strict=True)))
        for tid, comm in dict(zip(tids, comms, strict=True)).items():
            if comm != UNKNOWN_NAME and len(found.names) < MAX_THREADS:
                found.names[int(tid)] = comm
        for tid, tgid in dict(zip(tids, tgids, strict=True)).items():
            if tgid.isdigit() and len(found.processes) < MAX_THREADS:
                found.processes[int(tid)] = int(tgid)
        found.exact = found.exact or len(max(fractions, key=len)) == 9
        found.flags = found.flags or any(flags) or any(lat_flags)
        for name, rows in _by_name(names).items():
            events.learn(name, [bodies[row] for row in rows])
    return found


@dataclass
class _Run:
    """Records of one CPU that follow each other.  ``place``: where each begins in ``payload``.

    ``marks``: by the index of the record behind them, what (MARK_...), time, end and count of each.
    """

    ts: _I64
    place: _I64
    size: _I64
    payload: npt.NDArray[np.uint32]
    marks: deque[tuple[int, Marks]]
    taken: int = 0


class TextRecords:
    """The records of one text.  :meth:`streams` share its reading."""

    def __init__(self, lines: TextLines, events: TextEvents, found: Survey, where: str) -> None:
        self._pieces = lines.pieces()
        self._lines = lines
        self._events = events
        self._where = where
        self._grain = 1 if found.exact else GRAIN
        self._cpus = sorted(found.cpus)
        self._index = {cpu: i for i, cpu in enumerate(self._cpus)}
        count = len(self._cpus)
        self.runs: list[deque[_Run]] = [deque() for _ in range(count)]
        self._last = np.full(count, -1, np.int64)
        self._own = np.full(count, -1, np.int64)
        self._first = np.full(count, True)
        self._thread_last = np.full(0, -1, np.int64)
        self._holes: list[list[int]] = [[] for _ in range(count)]
        self._highs: deque[int] = deque([-1] * BEHIND, BEHIND)
        self._same: tuple[int, int] = (-1, 0)
        self._overwritten = lines.overwritten
        self.until = -1
        """No later line has a time before this one."""
        self.ended = False

    @property
    def grain(self) -> int:
        """Nanoseconds of a stamp's last digit.  What is below in a record's time is file order."""
        return self._grain

    def streams(self) -> list[CpuText]:
        """One of each CPU, in the order of CPUs."""
        return [CpuText(self, index, cpu) for index, cpu in enumerate(self._cpus)]

    @_uncollected()
    def advance(self) -> None:
        """Read on until ``until`` is later, or to the end.

        :raises ImportFormatError: a damaged line, or one that is far out of order
        """
        before = self.until
        while not self.ended and self.until == before:
            piece = next(self._pieces, None)
            if piece is None:
                self._end()
                return
            self._take(piece)
            self.until = max(self.until, self._highs[0])
            self._highs.append(max(self._highs[-1], int(self._last.max(initial=-1))))

    # -- one piece ---------------------------------------------------------------------------------

    def _take(self, piece: Piece) -> None:
        count = len(piece.rows)
        for one in piece.lost:
            if one.row >= count:
                self._open_hole(one.cpu, one.count)
        if not count:
            return
        _, tids, _, cpus, flags, lat_cpus, lat_flags, seconds, fractions, names, bodies = zip(
            *piece.rows, strict=True
        )
        index_of = {text: self._index[int(text)] for text in {*cpus, *lat_cpus} if text}
        cpu = np.array([index_of[c or d] for c, d in zip(cpus, lat_cpus, strict=True)], np.int64)
        tid = numbers(tids, Kind.NUMBER).astype(np.int64)
        number = np.zeros(count, np.int64)
        size = np.zeros(count, np.int64)
        texts: dict[int, list[tuple[int, bytes]]] = {}
        filled: list[tuple[Shape, _I64, list[tuple[bytes, ...]]]] = []
        for name, rows in _by_name(names).items():
            at = np.array(rows, np.int64)
            for shape, found, groups in self._events.take(name, [bodies[row] for row in rows]):
                mine = at[found]
                number[mine] = shape.number
                size[mine] = shape.size
                filled.append((shape, mine, groups))
                for column, (kind, where) in enumerate(shape.fields):
                    if kind is not Kind.TEXT:
                        continue
                    for row, group in zip(mine.tolist(), groups, strict=True):
                        texts.setdefault(row, []).append((where, group[column][:MAX_TEXT] + b"\0"))
        extra = {row: sum(len(t) + 3 & ~3 for _, t in every) for row, every in texts.items()}
        if extra:
            size[np.fromiter(extra, np.int64)] += np.fromiter(extra.values(), np.int64)
        size = size + 3 & ~3
        order = np.argsort(cpu, kind="stable")
        place = np.empty(count, np.int64)
        place[order] = np.cumsum(size[order]) - size[order]
        words = np.zeros(int(size.sum()) >> 2, np.uint32)
        common = _common_flags(flags, lat_flags)
        word = place >> 2
        words[word] = number | common << 16
        words[word + 1] = tid
        for shape, mine, groups in filled:
            _fill(words, word[mine], shape, groups)
        raw = words.view(np.uint8)
        for row, pieces in texts.items():
            base = int(place[row])
            behind = int(size[row]) - extra[row]
            for field_at, text in pieces:
                raw[base + behind : base + behind + len(text)] = np.frombuffer(text, np.uint8)
                words[(base + field_at) >> 2] = behind | len(text) << 16
                behind += len(text) + 3 & ~3
        stamp = numbers(seconds, Kind.NUMBER).astype(np.int64) * 1_000_000_000
        fraction = numbers(fractions, Kind.NUMBER).astype(np.int64)
        digits = np.fromiter(map(len, fractions), np.int64, count)
        stamp += np.where(digits == 6, fraction * 1000, fraction)
        ts, marks = self._times(piece, stamp, cpu, tid)
        begin = 0
        cpu_order = cpu[order]
        while begin < count:
            index = int(cpu_order[begin])
            end = int(np.searchsorted(cpu_order, index, side="right"))
            rows_of = order[begin:end]
            first = int(place[rows_of[0]])
            last = int(place[rows_of[-1]] + size[rows_of[-1]])
            run_marks: deque[tuple[int, Marks]] = deque()
            if marks:
                run_marks.extend(
                    (i, marks[r]) for i, r in enumerate(rows_of.tolist()) if r in marks
                )
            self.runs[index].append(
                _Run(
                    ts[rows_of], place[rows_of] - first, size[rows_of],
                    words[first >> 2 : last >> 2], run_marks,
                )
            )  # fmt: skip
            begin = end

    def _times(
        self, piece: Piece, stamp: _I64, cpu: _I64, tid: _I64
    ) -> tuple[_I64, dict[int, Marks]]:
        """Times that run back on no CPU and no thread, and the marks before rows."""
        ts = stamp + self._ordinals(stamp) if self._grain > 1 else stamp.copy()
        most = int(tid.max())
        if most >= len(self._thread_last):
            grown = np.full(max(most + 1, 2 * len(self._thread_last)), -1, np.int64)
            grown[: len(self._thread_last)] = self._thread_last
            self._thread_last = grown
        marks: dict[int, Marks] = {}
        holes = [one for one in piece.lost if one.row < len(stamp)]
        plain = (
            not holes
            and not any(self._holes)
            and not (self._overwritten and self._first[np.unique(cpu)].any())
            and _in_order(ts, cpu, self._last)
            and _in_order(ts, tid, self._thread_last, but=0)
        )
        if plain:
            _note(self._last, cpu, ts)
            _note(self._own, cpu, ts)
            _note(self._thread_last, tid, ts)
            self._first[np.unique(cpu)] = False
            self._check(piece, ts)
            return ts, marks
        due = deque(holes)
        for row, (own, c, t) in enumerate(
            zip(ts.tolist(), cpu.tolist(), tid.tolist(), strict=True)
        ):
            while due and due[0].row <= row:
                one = due.popleft()
                self._open_hole(one.cpu, one.count)
            last = int(self._last[c])
            thread = int(self._thread_last[t]) if t else -1
            now = max(own, last, thread)
            back = own // self._grain < max(int(self._own[c]), thread) // self._grain
            here = []
            if self._first[c] and self._overwritten:
                told = self._overwritten if self._first.all() else -1
                here.append((MARK_LOST, now, now, told))
            for told in self._holes[c]:
                since = max(last, self.until) if last >= 0 else now
                here.append((MARK_LOST, min(since, now), now, told))
            if back:
                here.append((MARK_CLOCK_BACK, now, own, -1))
            if here:
                marks[row] = here
            self._holes[c] = []
            self._first[c] = False
            self._own[c] = own
            self._last[c] = self._thread_last[t] = ts[row] = now
        self._check(piece, ts)
        return ts, marks

    def _check(self, piece: Piece, ts: _I64) -> None:
        """See that no line comes when later ones were given away.

        :raises ImportFormatError: one does
        """
        late = np.flatnonzero(ts < self.until)
        if len(late):
            row = int(late[0])
            behind = (self.until - int(ts[row])) / 1e9
            raise ImportFormatError(
                f"{self._where} line {piece.number(row)} is {behind:.6f} s older than lines far"
                " before it: is this the text of several CPUs, one after another?",
                help="import the text that shows all CPUs together (trace, trace_pipe)",
            )

    def _ordinals(self, stamp: _I64) -> _I64:
        """Of lines with one stamp, how many came before in the file: below the last digit."""
        order = np.argsort(stamp, kind="stable")
        ranked = stamp[order]
        new = np.r_[True, ranked[1:] != ranked[:-1]]
        begins = np.flatnonzero(new)
        rank = np.arange(len(stamp)) - np.repeat(begins, np.diff(np.r_[begins, len(stamp)]))
        same, before = self._same
        rank[ranked == same] += before
        self._same = (int(ranked[-1]), int(rank[-1]) + 1)
        found = np.empty(len(stamp), np.int64)
        found[order] = np.minimum(rank, self._grain - 1)
        return found

    def _open_hole(self, cpu: int, count: int) -> None:
        """Events are missing before the next record of a CPU, or of any (-1)."""
        for index in range(len(self._cpus)) if cpu < 0 else (self._index[cpu],):
            holes = self._holes[index]
            if len(holes) < (1 if cpu < 0 else MAX_HOLES):
                holes.append(count)

    def _end(self) -> None:
        """Close the holes that nothing came behind."""
        self.ended = True
        end = max(int(self._last.max(initial=0)), 0)
        for index, holes in enumerate(self._holes):
            if holes:
                since = max(int(self._last[index]), self.until, 0)
                marks = [(MARK_LOST, min(since, end), end, told) for told in holes]
                none = np.empty(0, np.int64)
                run = _Run(none, none, none, np.empty(0, np.uint32), deque([(0, marks)]))
                self.runs[index].append(run)
        self.until = np.iinfo(np.int64).max


class CpuText:
    """One CPU's records of a text."""

    unit = UNIT

    def __init__(self, text: TextRecords, index: int, cpu: int) -> None:
        self.cpu = cpu
        self._text = text
        self._runs = text.runs[index]
        self._beat = -1

    @property
    def finished(self) -> bool:
        """No more records."""
        return self._text.ended and not self._runs

    def fill(self, records: Records) -> None:
        """Put the next records there; or, if other CPUs were further, how far.

        :raises ImportFormatError: a damaged line
        """
        filled = _Filled(records)
        while not filled.rows:
            while self._runs and filled.take(self._runs[0], self._text.until):
                self._runs.popleft()
            if filled.rows:
                break
            if self._text.ended:
                break
            if self._beat < self._text.until:
                self._beat = self._text.until
                filled.beat(self._beat)
            else:
                self._text.advance()
        records.state[3], records.state[4] = filled.rows, filled.marks


class _Filled:
    """What was put into a buffer of records so far."""

    def __init__(self, records: Records) -> None:
        self._to = records
        self.rows = self.marks = self._bytes = 0

    def beat(self, ts: int) -> None:
        to = self._to
        to.words[:2] = (BEAT, 0)
        to.ts[0], to.at[0], to.size[0] = ts, 0, 8
        self.rows = 1

    def take(self, run: _Run, until: int) -> bool:
        """Copy records up to a moment, as far as there is room; whether that was all of them."""
        while True:
            if run.marks and run.marks[0][0] == run.taken and not self._mark(run, until):
                return False
            if run.taken == len(run.ts):
                return True
            end = run.marks[0][0] if run.marks else len(run.ts)
            count = int(np.searchsorted(run.ts[run.taken : end], until, side="right"))
            first = int(run.place[run.taken])
            room = len(self._to.pages) - self._bytes
            behind = run.place[run.taken : end] + run.size[run.taken : end] - first
            count = min(count, int(np.searchsorted(behind, room, side="right")))
            count = min(count, len(self._to.ts) - self.rows - 2)
            if count <= 0:
                return False
            self._copy(run, count, first, int(behind[count - 1]))
            if run.taken < end:
                return False

    def _copy(self, run: _Run, count: int, first: int, size: int) -> None:
        to, at, end = self._to, self.rows, self.rows + count
        here = slice(run.taken, run.taken + count)
        to.words[self._bytes >> 2 : (self._bytes + size) >> 2] = run.payload[
            first >> 2 : (first + size) >> 2
        ]
        to.ts[at:end] = run.ts[here]
        to.at[at:end] = run.place[here] - first + self._bytes
        to.size[at:end] = run.size[here]
        self.rows, self._bytes, run.taken = end, self._bytes + size, run.taken + count

    def _mark(self, run: _Run, until: int) -> bool:
        """Copy the marks before the next record; whether there was room and time for all."""
        to, marks = self._to, run.marks[0][1]
        while marks:
            what, ts, end, count = marks[0]
            if ts > until or self.rows + 2 >= len(to.ts) or self.marks + 1 >= len(to.until):
                return False
            to.ts[self.rows], to.at[self.rows], to.size[self.rows] = ts, what, self.marks
            to.until[self.marks], to.lost[self.marks] = end, count
            self.rows, self.marks = self.rows + 1, self.marks + 1
            marks.pop(0)
        run.marks.popleft()
        return True


def _by_name(names: tuple[bytes, ...]) -> dict[bytes, list[int]]:
    found: dict[bytes, list[int]] = defaultdict(list)
    for row, name in enumerate(names):
        found[name].append(row)
    return found


def _common_flags(flags: tuple[bytes, ...], latency: tuple[bytes, ...]) -> _I64:
    """The record header's flags, of the columns that show them."""
    shown = [one or other for one, other in zip(flags, latency, strict=True)]
    known = {text: _flags_of(text.decode("latin-1")) for text in set(shown)}
    return np.array([known[text] for text in shown], np.int64)


def _flags_of(text: str) -> int:
    if text.startswith("-0x"):
        digits = text[3:]
        return int(digits, 16) & 0xFF if set(digits) <= set("0123456789abcdef") and digits else 0
    return sum(bits.get(letter, 0) for bits, letter in zip(_FLAGS, text, strict=False))


def _fill(
    words: npt.NDArray[np.uint32], at: _I64, shape: Shape, groups: list[tuple[bytes, ...]]
) -> None:
    """Write the numbers of records that begin at words ``at``."""
    if shape.probe is not None:
        words[at + 2] = shape.probe & 0xFFFFFFFF
        words[at + 3] = shape.probe >> 32
    if not shape.fields:
        return
    for (kind, place), column in zip(shape.fields, zip(*groups, strict=True), strict=False):
        if kind is Kind.TEXT:
            continue
        values = numbers(column, kind)
        words[at + (place >> 2)] = (values & np.uint64(0xFFFFFFFF)).astype(np.uint32)
        words[at + (place >> 2) + 1] = (values >> np.uint64(32)).astype(np.uint32)


def _in_order(ts: _I64, of: _I64, last: _I64, but: int = -1) -> bool:
    """Whether times run back nowhere, each CPU or thread by itself."""
    order = np.argsort(of, kind="stable")
    group, time = of[order], ts[order]
    first = np.r_[True, group[1:] != group[:-1]]
    before = np.r_[np.int64(0), time[:-1]]
    before[first] = last[group[first]]
    return not bool(np.any((time < before) & (group != but)))


def _note(last: _I64, of: _I64, ts: _I64) -> None:
    """Note the last time of each; times are in order, so it is the highest."""
    np.maximum.at(last, of, ts)
