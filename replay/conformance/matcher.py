"""Calls against one generation of QEMU: the kernel's driver, and what it tells."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from replay.conformance.calls import load_kernel
from replay.conformance.kernel import layout as K
from replay.conformance.kernel import state as S
from replay.conformance.order import PERIOD, InOrder

__all__ = ("GENERATIONS", "Call", "Deviation", "Matcher", "Tally")

GENERATIONS = {"v4": K.V4, "merged": K.MERGED, "11.1": K.SOURCES}
"""Names of ``--generation``, and the kernel's numbers."""

REASONS = {
    K.Y_LOSS: "loss",
    K.Y_END: "trace_end",
    K.Y_LATE: "late_start",
    K.Y_ARGUMENTS: "unknown_arguments",
    K.Y_CONCURRENT: "concurrent",
    K.Y_CONTAINERS: "unknown_container",
    K.Y_REQUEST: "unknown_request",
    K.Y_MEMORY: "too_large",
}
TOLD_AT_MOST = 4096
"""Deviations told of one batch of calls; all are counted."""
KEPT_DEVIATIONS = 1000
"""Deviations of a trace that are told; all are counted in the tally."""
SHOWN_CALLS = 48
"""Calls remembered of one deviation."""
MOST_ROWS = 6144
"""Chunks of 128 MiB with more than one state: 768 GiB of memory, 192 MiB of tables; a third of it
for each generation where all three are followed."""


@dataclass(frozen=True)
class Call:
    """One call of a conversion; neighbouring 4 KiB maps are one, ``count`` says how many."""

    kind: str
    """attribute, map, unmap, punch (guest_memfd), discard (the shared side)."""
    address: int | None
    size: int
    private: bool | None = None
    ret: int = 0
    count: int = 1
    space: int | None = None
    ts_ns: int = 0
    seq: int = -1
    last_ns: int = 0
    last_seq: int = -1


@dataclass(frozen=True)
class Deviation:
    """A conversion that is not what the generation does, or a known hazard of it that struck.

    ``what`` as in kernel/layout.py.  ``got``: which of ``calls`` differs first; None: it ended.
    """

    what: int
    process: int
    thread: int
    space: int
    gpa: int
    size: int
    private: bool
    expected: Call
    got: int | None
    calls: tuple[Call, ...]
    spaces: tuple[int, ...] = ()
    """The containers that hear of conversions, oldest first."""
    before: tuple[tuple[int, int, int], ...] = ()
    """(from, to, state) of the memory before it, as far as it was remembered."""
    huge: bool = False
    """The shared side is of huge pages."""


@dataclass
class Tally:
    """How many conversions of a trace one generation explains."""

    conforming: int = 0
    diverging: int = 0
    telling: int = 0
    """Conforming ones with a map, unmap or discard: those say something."""
    slots: int = 0
    replayed: int = 0
    """Calls of listeners that were registered or unregistered, as predicted."""
    reasons: dict[str, int] = field(default_factory=dict)

    @property
    def compared(self) -> int:
        return self.conforming + self.diverging

    @property
    def share(self) -> float:
        return self.conforming / self.compared if self.compared else 0.0


_KINDS = {
    K.K_NONE: "nothing",
    K.K_ATTR: "attribute",
    K.K_MAP: "map",
    K.K_UNMAP: "unmap",
    K.K_PUNCH: "punch",
    K.K_DISCARD: "discard",
    K.K_EXIT: "exit",
}


class Matcher:
    """Feed it calls in order, then :meth:`finish`; ``deviations`` and ``tally`` are the answer.

    ``punches``, ``discards``: whether discards of the private and the shared side were recorded.
    ``leaves``: ``left`` is to hold, in order, the calls that listeners look at.  ``beside``: how
    many more matchers follow the same calls.
    """

    def __init__(
        self,
        generation: str,
        *,
        punches: bool,
        discards: bool,
        compiled: bool,
        leaves: bool = False,
        beside: int = 0,
    ) -> None:
        self._kernel = load_kernel("follow", compiled=compiled)
        self.generation = generation
        self.left: list[Any] = []
        self._order = InOrder() if leaves else None
        self._reached = 0
        self._places = np.zeros(0, np.int64)
        self._number = GENERATIONS[generation]
        self._discards = np.array([punches, discards], np.int64)
        self._processes = np.zeros((0, S.P_COLS), np.int64)
        self._threads = np.zeros((0, S.T_COLS), np.int64)
        self._table = _table(1 << 6)
        self._data = np.zeros((4, K.CHUNK), np.uint8)
        self._most_rows = MOST_ROWS // (1 + beside)
        self._counts = np.zeros(3, np.int64)
        self._totals = np.zeros(K.N_COLS, np.int64)
        self._walk = np.zeros(S.S_SIZE, np.int64)
        self._pending = np.zeros((0, K.C_COLS), np.int64)
        self._used = np.zeros(0, np.int8)
        self._follower = np.zeros(0, np.int64)
        self._told: list[_Told] = []
        self._based: set[int] = set()
        self._out = np.zeros((TOLD_AT_MOST, K.D_COLS), np.int64)
        self._rows = np.zeros(SHOWN_CALLS * TOLD_AT_MOST, np.int64)
        self._snap = np.zeros((16 * TOLD_AT_MOST, 4), np.int64)

    @property
    def deviations(self) -> list[Deviation]:
        """What did not conform, in order; of many the first."""
        out = []
        for told in self._told:
            if int(told.row[K.D_WHAT]) != K.W_KEPT:
                out.append(_deviation(told))
            elif int(told.row[K.D_REASON]) in self._based:
                out.append(replace(_deviation(told), what=K.W_DIVERGES))
        return out

    def feed(self, calls: Any) -> None:
        """Take more calls."""
        at = 0
        while at < len(calls):
            end = at + min(len(calls) - at, PERIOD - self._reached % PERIOD)
            self._take(calls[at:end])
            at = end

    def _take(self, calls: Any, *, last: bool = False) -> None:
        first = len(self._pending)
        every = np.concatenate([self._pending, calls]) if first else calls
        n = len(every)
        used = np.zeros(n, np.int8)
        used[:first] = self._used
        follower = np.full(n, -1, np.int64)
        follower[:first] = self._follower
        self._grow(calls)
        told = np.zeros(3, np.int64)
        group = np.zeros(n + 1, np.int64)
        self._kernel.match(
            every, first, self._number, self._discards, self._processes, self._threads, follower,
            self._table, self._data, self._counts, self._totals, group, self._walk, self._out, told,
            self._rows, self._snap, used, int(last),
        )  # fmt: skip
        kept: dict[int, _Told] = {}
        for number, row in enumerate(self._out[: told[0]]):
            if row[K.D_WHAT] == K.W_BASE:
                self._based.add(int(row[K.D_REASON]))
            elif len(self._told) < KEPT_DEVIATIONS:
                kept[number] = self._tell(row, every, self._rows)
                self._told.append(kept[number])
        for number, lo, hi, value in self._snap[: told[2]].tolist():
            if number in kept:
                kept[number].before.append((lo << 12, hi << 12, value))
        places = np.concatenate([self._places, np.arange(len(calls)) + self._reached])
        self._reached += len(calls)
        if self._reached % PERIOD == 0:
            self._let_go(follower, places)
        self._keep(every, used, follower, places)

    def finish(self) -> None:
        """The trace ends."""
        self._take(np.zeros((0, K.C_COLS), np.int64), last=True)

    @property
    def tally(self) -> Tally:
        """The counts so far."""
        t = self._totals
        reasons = {word: int(t[K.N_REASON + y]) for y, word in REASONS.items()}
        return Tally(
            conforming=int(t[K.N_CONFORM]),
            diverging=int(t[K.N_DIVERGE]),
            telling=int(t[K.N_TELLING]),
            slots=int(t[K.N_SLOTS]),
            replayed=int(t[K.N_REPLAYED]),
            reasons={word: count for word, count in reasons.items() if count},
        )

    def _grow(self, calls: Any) -> None:
        """Room for the threads, processes and chunks of memory that these calls touch."""
        most = int(calls[:, [K.C_THREAD, K.C_PROC]].max(initial=0)) + 1
        if most > len(self._threads):
            threads = np.zeros((2 * most, S.T_COLS), np.int64)
            threads[:, [S.T_HEAD, S.T_TAIL, S.T_ATTR]] = -1
            threads[: len(self._threads)] = self._threads
            processes = np.zeros((2 * most, S.P_COLS), np.int64)
            processes[: len(self._processes)] = self._processes
            self._threads, self._processes = threads, processes
        changes = calls[(calls[:, K.C_KIND] == K.K_ATTR) & (calls[:, K.C_SIZE] > 0)]
        if not len(changes):
            return
        shift = K.CHUNK_SHIFT + 12
        first = changes[:, K.C_ADDR] >> shift
        last = (changes[:, K.C_ADDR] + changes[:, K.C_SIZE] - 1) >> shift
        edges: Any = np.unique(np.concatenate([first, last]))
        owners = len(np.unique(changes[:, K.C_PROC]))
        rows: int = int(self._counts[1]) + len(edges) * owners
        most_rows = self._most_rows
        if rows > len(self._data) and len(self._data) < most_rows:
            data = np.zeros((min(max(rows, 2 * len(self._data)), most_rows), K.CHUNK), np.uint8)
            data[: len(self._data)] = self._data
            self._data = data
        between = np.clip(last - first - 1, 0, 1 << 16)
        spans = {(int(first[i]), int(last[i])): int(between[i]) for i in _few(between)}
        inner = sum(spans.values())
        need: int = (int(self._counts[0]) + len(edges) * owners + min(inner, 1 << 20)) * 2
        if need > len(self._table):
            old, self._table = self._table, _table(1 << (need - 1).bit_length())
            slot = load_kernel("pages", compiled=False)._slot
            for row in old[old[:, K.H_KEY] != -1]:
                self._table[slot(self._table, int(row[K.H_KEY]))] = row

    def _keep(self, calls: Any, used: Any, follower: Any, places: Any) -> None:
        """What is pending stays, renumbered; of the rest the unexplained DMA calls are left."""
        threads = self._threads
        pending: list[int] = []
        for thread in np.flatnonzero(threads[:, S.T_HEAD] >= 0).tolist():
            row = int(threads[thread, S.T_HEAD])
            while row >= 0:
                pending.append(row)
                row = int(follower[row])
        keep = np.array(sorted(pending), np.int64)
        place = {int(row): i for i, row in enumerate(keep)}
        if self._order is not None:
            gone = np.ones(len(calls), bool)
            gone[keep] = False
            kinds = calls[:, K.C_KIND]
            gone &= (_IS_LEFT[kinds] & (used == 0)) | (_IS_SEEN[kinds] & (used != 3))
            self._order.add(calls[gone], places[gone])
            free = self._order.ready(places[keep], self._reached)
            if len(free):
                self.left.append(free)
        self._pending, self._used, self._places = calls[keep], used[keep], places[keep]
        self._follower = np.array([place.get(int(f), -1) for f in follower[keep]], np.int64)
        for column in (S.T_HEAD, S.T_TAIL, S.T_ATTR):
            old = threads[:, column]
            threads[:, column] = [place.get(int(row), -1) for row in old]

    def _let_go(self, follower: Any, places: Any) -> None:
        """Threads forget the old calls that no attribute change followed: none will be theirs."""
        threads = self._threads
        waiting = (threads[:, S.T_HEAD] >= 0) & (threads[:, S.T_ATTR] < 0)
        for thread in np.flatnonzero(waiting).tolist():
            row = int(threads[thread, S.T_HEAD])
            while row >= 0 and places[row] < self._reached - PERIOD:
                row = int(follower[row])
                threads[thread, S.T_COUNT] -= 1
            threads[thread, S.T_HEAD] = row
            if row < 0:
                threads[thread, S.T_TAIL] = -1

    def _spaces(self, process: int) -> tuple[int, ...]:
        row = self._processes[process]
        first = S.P_CONTAINERS
        return tuple(row[first : first + row[S.P_NC]].tolist())

    def _tell(self, row: Any, calls: Any, rows: Any) -> _Told:
        listed = rows[int(row[K.D_FIRST]) : int(row[K.D_FIRST] + row[K.D_COUNT])].tolist()
        got = int(row[K.D_GOT])
        place = listed.index(got) if got in listed else None
        begin = max(0, (place or 0) - SHOWN_CALLS // 2)
        return _Told(
            row=row.copy(),
            got=None if place is None else place - begin,
            calls=calls[listed[begin : begin + SHOWN_CALLS]],
            spaces=self._spaces(int(row[K.D_PROC])),
        )


@dataclass
class _Told:
    """What the kernel told of a deviation; most are never looked at."""

    row: Any
    got: int | None
    calls: Any
    spaces: tuple[int, ...]
    before: list[tuple[int, int, int]] = field(default_factory=list)


def _deviation(told: _Told) -> Deviation:
    row = told.row
    return Deviation(
        what=int(row[K.D_WHAT]),
        process=int(row[K.D_PROC]),
        thread=int(row[K.D_THREAD]),
        space=int(row[K.D_SPACE]),
        gpa=int(row[K.D_ADDR]) & (1 << 64) - 1,
        size=int(row[K.D_SIZE]) & (1 << 64) - 1,
        private=bool(row[K.D_PRIVATE]),
        expected=Call(
            _KINDS[int(row[K.D_EXPECTED])],
            int(row[K.D_EXPECTED_ADDR]),
            int(row[K.D_EXPECTED_SIZE]),
            private=bool(row[K.D_PRIVATE]),
            space=int(row[K.D_SPACE]),
        ),
        got=told.got,
        calls=tuple(call_of(call) for call in told.calls),
        spaces=told.spaces,
        before=tuple(told.before),
        huge=bool(row[K.D_HUGE]),
    )


_LEFT = (
    K.K_MAP, K.K_UNMAP, K.K_DISCARD, K.K_PUNCH, K.K_CONTAINER, K.K_CLOSE, K.K_SLOT, K.K_LOST,
    K.K_EXIT, K.K_DIRTY,
)  # fmt: skip
_IS_LEFT = np.isin(np.arange(K.K_MMAP + 1), _LEFT)
_SEEN = (K.K_ATTR, K.K_REQUEST, K.K_VIRTIO_MEM, K.K_REGION)
"""What listeners look at, whether a conversion took it or not."""
_IS_SEEN = np.isin(np.arange(K.K_MMAP + 1), _SEEN)


def call_of(row: Any) -> Call:
    """A row of the kernel's table, for people."""
    kind = int(row[K.C_KIND])
    address = int(row[K.C_ADDR])
    return Call(
        _KINDS.get(kind, "other"),
        None if address == K.NULL else address & (1 << 64) - 1,
        int(row[K.C_SIZE]) & (1 << 64) - 1,
        private=bool(row[K.C_FLAG]) if kind == K.K_ATTR else None,
        ret=int(row[K.C_RET]),
        count=int(row[K.C_COUNT]),
        space=int(row[K.C_SPACE]),
        ts_ns=int(row[K.C_TS0]),
        seq=int(row[K.C_SEQ0]),
        last_ns=int(row[K.C_TS1]),
        last_seq=int(row[K.C_SEQ1]),
    )


def _few(between: Any) -> list[int]:
    """Which requests span whole chunks."""
    found: list[int] = np.flatnonzero(between).tolist()
    return found


def _table(size: int) -> Any:
    table = np.zeros((size, 3), np.int64)
    table[:, K.H_KEY] = -1
    return table
