"""How far one clock of a host is from another, and how sure that is.

QEMU prints a line shortly before or after a system call that the kernel's trace shows too.  A line
before its call says that the offset is at most the difference of their stamps, a line after it that
it is at least that; many of them leave an interval that holds the true offset.

The interval is right if lines were matched to their own calls, and if the two clocks kept their
distance.  So pairs count only where no other of the same arguments is near, and bounds that
contradict each other, as after a clock was set, give no offset at all.  Bounds of one side alone
give an offset whose error is a guess, and say so.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tracekit.errors import UsageError

__all__ = ("Anchors", "Offset", "estimate", "parse_clock_offset")

_UNITS = {"ns": 1, "us": 1000, "ms": 1_000_000, "s": 1_000_000_000, "min": 60_000_000_000}
_MAX_NS = 1 << 62
_NUMBER = r"(\d{1,19}(?:\.\d{1,9})?)\s*([a-z]+)"

MAX_ANCHORS = 200_000
MAX_REPEATS = 4096
"""Pairs of one kind and key that are looked at; where there are more, they tell nothing."""
VOTE_NS = 50_000_000
"""Differences that lie this close agree.  A thread was seen to wait 24 ms between line and call."""
NEAR_NS = 100_000_000
"""A line and a call belong together if no other of the same arguments is this near."""
LEAST_PAIRS = 3
LONGEST_WAIT_NS = 24_000_000
OWN_ERROR_NS = 1000
"""Of reading a clock in the kernel and in a process."""

_I64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Offset:
    """What is added to a source's stamps.  ``how``: where it is from.  ``error_ns``: not known."""

    ns: int
    error_ns: int | None
    how: str


def parse_clock_offset(text: str) -> Offset:
    """``--clock-offset``: ``-1.5s``, or with what it may be off by, ``-1.5s+-2ms``.

    :raises UsageError: not of that form, or more than a clock can show
    """
    match = re.fullmatch(rf"([+-]?)\s*{_NUMBER}(?:\s*\+-\s*{_NUMBER})?", text.strip())
    if match is None:
        raise UsageError(
            f"--clock-offset {text!r} is not a duration with a sign",
            help="for example -1795364545.25s, or with its error -1795364545.25s+-2ms",
        )
    sign, number, unit, error, error_unit = match.groups()
    ns = _nanoseconds(text, number, unit)
    return Offset(
        -ns if sign == "-" else ns,
        _nanoseconds(text, error, error_unit) if error else None,
        "--clock-offset",
    )


def _nanoseconds(text: str, number: str, unit: str) -> int:
    if unit not in _UNITS:
        raise UsageError(
            f"--clock-offset {text!r} has no unit we know ({unit!r})",
            help=f"units: {', '.join(_UNITS)}",
        )
    ns = int(Decimal(number) * _UNITS[unit])
    if ns > _MAX_NS:
        raise UsageError(f"--clock-offset {text!r} is more than a century")
    return ns


@dataclass(frozen=True)
class _Kind:
    """Rows that show a call, or a line about one.

    ``call``: what both are about.  ``key``: columns that tell which.  ``only``: a column and the
    values it has in such rows; ``bit``: they have this bit.  ``after``: the line is printed when
    the call is over.
    """

    call: str
    event: str
    key: tuple[str, ...]
    only: tuple[str, tuple[int, ...]] | None = None
    bit: int | None = None
    after: bool = False


_MAPS, _UNMAPS = (0x3B71, 0x3B85, 0x3B8F), (0x3B72, 0x3B86)
_SLOTS = (0x4020AE46, 0x40A0AE49)
_DMA, _SLOT, _GPA = ("iova", "size"), ("gpa", "size", "id"), ("gpa", "size", "attributes")

_LINES = (
    _Kind("attributes", "qemu.convert_memory", _GPA),
    _Kind("map", "qemu.region", _DMA, ("flags", (1,))),
    _Kind("unmap", "qemu.region", _DMA, ("flags", (0,))),
    _Kind("map", "qemu.iommufd_map", _DMA, after=True),
    _Kind("unmap", "qemu.iommufd_unmap", _DMA, after=True),
    _Kind("memslot", "qemu.set_user_memory", _SLOT, after=True),
    _Kind("discard", "qemu.discard_range", ("vaddr", "size"), bit=1, after=True),
)
_CALLS = (
    _Kind("attributes", "kvm.attributes", _GPA),
    _Kind("attributes", "ioctl.arguments", _GPA, ("cmd", (0x4020AED2,))),
    _Kind("map", "ioctl.arguments", _DMA, ("cmd", _MAPS)),
    _Kind("map", "vfio.type1_ioctl", _DMA, ("cmd", _MAPS)),
    _Kind("map", "iommufd.ioctl", _DMA, ("cmd", _MAPS)),
    _Kind("map", "iommufd.iopt_map_user", _DMA),
    _Kind("map", "iommufd.iopt_map_file", _DMA),
    _Kind("unmap", "ioctl.arguments", _DMA, ("cmd", _UNMAPS)),
    _Kind("unmap", "vfio.type1_ioctl", _DMA, ("cmd", _UNMAPS)),
    _Kind("unmap", "iommufd.ioctl", _DMA, ("cmd", _UNMAPS)),
    _Kind("unmap", "iommufd.iopt_unmap", _DMA),
    _Kind("memslot", "kvm.memslot", _SLOT),
    _Kind("memslot", "ioctl.arguments", _SLOT, ("cmd", _SLOTS)),
    _Kind("discard", "madvise.entered", ("vaddr", "size")),
)


class Anchors:
    """Rows of one clock's sources that another clock's may be matched to."""

    def __init__(self, lines: Anchors | None = None) -> None:
        """QEMU's lines; or, where those are given, the calls that could be theirs."""
        self._kinds = _LINES if lines is None else _CALLS
        self._found: dict[_Kind, list[_I64]] = {}
        self._count = 0
        self._wanted: dict[str, pa.Array] | None = None
        if lines is not None:
            first: dict[str, list[npt.NDArray[np.uint64]]] = {}
            for kind, table in lines.tables():
                first.setdefault(kind.call, []).append(table[:, 1].astype(np.uint64))
            self._wanted = {call: pa.array(np.concatenate(v)) for call, v in first.items()}

    def add(self, batch: pa.RecordBatch) -> None:
        """Take what is in a batch; beyond MAX_ANCHORS nothing more."""
        import pyarrow.compute as pc  # not for everybody who imports: it takes a while

        events = batch.column("event")
        present = set(events.dictionary.to_pylist())
        for kind in self._kinds:
            if kind.event not in present or self._count >= MAX_ANCHORS:
                continue
            mask = pc.equal(events, kind.event)
            columns = [*kind.key]
            if self._wanted is not None:
                if kind.call not in self._wanted:
                    continue
                wanted = self._wanted[kind.call]
                mask = pc.and_(mask, pc.is_in(batch.column(kind.key[0]), wanted))
            if kind.only is not None:
                column, values = kind.only
                found = batch.column(column)
                mask = pc.and_(mask, pc.is_in(found, pa.array(values, found.type)))
            if kind.bit is not None:
                columns.append("flags")
            for column in columns:
                mask = pc.and_(mask, pc.is_valid(batch.column(column)))
            rows = batch.filter(mask, null_selection_behavior="drop")
            if not rows.num_rows:
                continue
            keys = [rows.column(c).to_numpy().astype(np.uint64).view(np.int64) for c in columns]
            table = np.stack([rows.column("ts_ns").to_numpy(), *keys], axis=1)
            if kind.bit is not None:
                table = table[(table[:, -1] & kind.bit) != 0][:, :-1]
            self._found.setdefault(kind, []).append(table)
            self._count += len(table)

    def tables(self) -> Iterator[tuple[_Kind, _I64]]:
        """Each kind's rows: stamps, then key columns."""
        for kind, pieces in self._found.items():
            yield kind, np.concatenate(pieces)[:MAX_ANCHORS]


def estimate(lines: Anchors, calls: Anchors) -> Offset | None:
    """What to add to the lines' stamps to get the calls' clock; none: nothing sure can be said.

    ``error_ns`` covers every offset that the pairs allow.  With lines of one side only (before
    their calls, or after) the other bound is a guess: what the waits spread over.
    """
    pairs = list(_same_arguments(lines, calls))
    near = _vote([p.differences() for p in pairs])
    if near is None:
        return None
    before: list[_I64] = []
    after: list[_I64] = []
    for p in pairs:
        sure = p.only_ones_near(near)
        if len(sure):
            (after if p.after else before).append(sure)
    high = np.concatenate(before) if before else np.empty(0, np.int64)
    low = np.concatenate(after) if after else np.empty(0, np.int64)
    if len(high) + len(low) < LEAST_PAIRS:
        return None
    grain = 1000 if all(_in_microseconds(t) for _, t in lines.tables()) else 0
    bounds = f"{len(high):,} lines before and {len(low):,} after their system calls"
    if len(high) and len(low):
        most, least = int(high.min()), int(low.max()) - grain
        if most + OWN_ERROR_NS < least - OWN_ERROR_NS:
            return None  # a clock was set meanwhile, or calls were not those of the lines
        middle = (most + least) // 2
        error = abs(most - least + 1) // 2 + OWN_ERROR_NS
        return Offset(middle, error, f"matched calls: {bounds}")
    one = high if len(high) else -low
    wait = int(np.median(one) - one.min())
    if len(one) < 8:
        wait = max(wait, LONGEST_WAIT_NS)
    bound = int(one.min()) if len(high) else -int(one.min())
    return Offset(bound, 2 * wait + grain + OWN_ERROR_NS, f"matched calls, one bound: {bounds}")


@dataclass(frozen=True)
class _SameArguments:
    """Stamps of lines and calls of one kind, in groups of the same arguments."""

    after: bool
    groups: list[tuple[_I64, _I64]]

    def differences(self) -> tuple[_I64, npt.NDArray[np.float64]]:
        """Of every pair, and its weight: a group has as many true pairs as its smaller side."""
        found = [(calls[:, None] - lines[None, :]).ravel() for lines, calls in self.groups]
        weights = [
            np.full(len(lines) * len(calls), 1.0 / max(len(lines), len(calls)))
            for lines, calls in self.groups
        ]
        if not found:
            return np.empty(0, np.int64), np.empty(0, np.float64)
        return np.concatenate(found), np.concatenate(weights)

    def only_ones_near(self, near: int) -> _I64:
        """Differences of the pairs that cannot be others."""
        found = [np.empty(0, np.int64)]
        for lines, calls in self.groups:
            difference = calls[:, None] - lines[None, :]
            close = np.abs(difference - near) <= NEAR_NS
            alone = close & (close.sum(0) == 1)[None, :] & (close.sum(1) == 1)[:, None]
            found.append(difference[alone])
        return np.concatenate(found)


def _same_arguments(lines: Anchors, calls: Anchors) -> Iterator[_SameArguments]:
    known = list(calls.tables())
    for line_kind, line in lines.tables():
        for call_kind, call in known:
            if line_kind.call == call_kind.call:
                yield _SameArguments(line_kind.after, list(_groups(line, call)))


def _groups(line: _I64, call: _I64) -> Iterator[tuple[_I64, _I64]]:
    keys = np.concatenate([line[:, 1:], call[:, 1:]])
    _, number = np.unique(keys, axis=0, return_inverse=True)
    number = number.reshape(-1)
    of_line, of_call = number[: len(line)], number[len(line) :]
    common = np.intersect1d(of_line, of_call)
    line_of, line_at = _sorted_by(of_line, common)
    call_of, call_at = _sorted_by(of_call, common)
    for (first, last), (begin, end) in zip(line_at, call_at, strict=True):
        if (last - first) * (end - begin) <= MAX_REPEATS:
            yield line[line_of[first:last], 0], call[call_of[begin:end], 0]


def _sorted_by(number: _I64, common: _I64) -> tuple[_I64, list[tuple[int, int]]]:
    """Rows in the order of their number, and where in it each of ``common`` begins and ends."""
    order = np.argsort(number, kind="stable")
    ranked = number[order]
    begins = np.searchsorted(ranked, common, side="left").tolist()
    ends = np.searchsorted(ranked, common, side="right").tolist()
    return order, list(zip(begins, ends, strict=True))


def _vote(votes: Sequence[tuple[_I64, npt.NDArray[np.float64]]]) -> int | None:
    """The difference that most pairs share; none: too few do, or others as well."""
    if not votes:
        return None
    values = np.concatenate([v for v, _ in votes])
    weights = np.concatenate([w for _, w in votes])
    if not len(values):
        return None
    order = np.argsort(values, kind="stable")
    values, sums = values[order], np.r_[0.0, np.cumsum(weights[order])]
    ends = np.searchsorted(values, values + VOTE_NS, side="right")
    counts = sums[ends] - sums[: len(values)]
    best = int(np.argmax(counts))
    if counts[best] < LEAST_PAIRS - 1e-6:
        return None
    apart = np.abs(values - values[best]) > 2 * VOTE_NS
    if apart.any() and float(counts[apart].max()) > 0.75 * float(counts[best]):
        return None
    return int(np.median(values[best : int(ends[best])]))


def _in_microseconds(table: npt.NDArray[Any]) -> bool:
    return not bool((table[:, 0] % 1000).any())
