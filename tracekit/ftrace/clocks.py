"""What a recording says about its stamps -> nanoseconds of one clock.

A trace.dat can carry three corrections, applied in trace-cmd's order: TIME_SHIFT takes a guest's
stamps to its host's clock, TSC2NSEC takes cycles to nanoseconds, OFFSET and DATE move the result.
(trace-cmd's TSC2NSEC also has an offset, which trace-cmd writes as zero and never adds; neither do
we.)  Products that need 128 bits get them: in four parts of 32 bits.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from tracekit.errors import ImportFormatError
from tracekit.ftrace.byte_source import Cursor

__all__ = (
    "CYCLES",
    "NO_TIME",
    "Correction",
    "Samples",
    "Stamps",
    "offset_number",
    "time_shift",
    "tsc_to_ns",
)

NO_TIME = {"counter": "it counts events", "uptime": "it counts jiffies"}
"""Clocks whose stamps are no time, and why."""
CYCLES = ("x86-tsc", "tsc2nsec")
"""Clocks that count cycles, by their names in tracefs and in trace-cmd's files."""

MOST_NS = 0x7FFFFFFFFFFFFFFF
MAX_SHIFT = 63
MAX_SAMPLES = 1 << 20
MAX_CPUS = 8192
ALL_CPUS = -1
"""The CPU of samples that are every CPU's."""
INTERPOLATE = 1
"""The flag of a TIME_SHIFT whose offsets change steadily from one sample to the next."""

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Samples:
    """When a guest's clock was compared with its host's, and what was found: in order of time."""

    times: tuple[int, ...]
    offsets: tuple[int, ...]
    scalings: tuple[int, ...]
    fractions: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Correction:
    """What a recording's stamps need.  ``shifts`` by CPU; a CPU without samples is not shifted."""

    tsc: tuple[int, int] | None = None
    shifts: Mapping[int, Samples] = field(default_factory=dict)
    interpolate: bool = False
    offset_ns: int = 0

    def of_cpu(self, cpu: int, where: str) -> Stamps | None:
        """How the stamps of a CPU become nanoseconds; ``None``: they are."""
        samples = self.shifts.get(cpu) or self.shifts.get(ALL_CPUS)
        if self.tsc is None and samples is None and not self.offset_ns:
            return None
        return Stamps(self, samples, where)


class Stamps:
    """Corrects the stamps of one CPU, which come in their order, and keeps that order."""

    def __init__(self, correction: Correction, samples: Samples | None, where: str) -> None:
        self._correction = correction
        self._samples = samples
        self._where = where
        self._last = 0
        self.held = 0
        """How many stamps a step back of the correction would have put before an earlier one."""

    def in_order(self, stamps: Numbers) -> Numbers:
        """The nanoseconds of the next records, never decreasing.

        :raises ImportFormatError: one is before zero or past 63 bits
        """
        corrected = self.ns(stamps)
        if not len(corrected):
            return corrected
        held = np.maximum(np.maximum.accumulate(corrected), self._last)
        self.held += int(np.count_nonzero(held > corrected))
        self._last = int(held[-1])
        return held

    def ns(self, stamps: Numbers) -> Numbers:
        """The nanoseconds of some stamps, in any order.

        :raises ImportFormatError: one is before zero or past 63 bits
        """
        one = self._correction
        if self._samples is not None:
            stamps = self._shifted(stamps, self._samples)
        if one.tsc is not None:
            stamps = self._scaled(stamps, *one.tsc)
        return self._moved(stamps, one.offset_ns)

    # -- pieces ------------------------------------------------------------------------------------

    def _shifted(self, stamps: Numbers, samples: Samples) -> Numbers:
        """What trace-cmd makes of a guest's stamps, without its overflows."""
        count = len(samples.times)
        if count == 1 or not len(stamps):
            return self._moved(stamps, samples.offsets[0])
        times = np.array(samples.times, np.int64)
        which = np.clip(np.searchsorted(times, stamps, "right") - 1, 0, count - 2)
        # A stamp at or after the last sample belongs to the last pair, as one before the first
        # to the first.
        shifted = np.empty_like(stamps)
        order = np.argsort(which, kind="stable")
        for of_pair in np.split(order, np.flatnonzero(np.diff(which[order])) + 1):
            pair = int(which[of_pair[0]])
            shifted[of_pair] = self._between(stamps[of_pair], samples, pair)
        return shifted

    def _between(self, stamps: Numbers, samples: Samples, pair: int) -> Numbers:
        scaled = self._scaled(stamps, samples.scalings[pair], samples.fractions[pair])
        first = samples.offsets[pair]
        if not self._correction.interpolate:
            return self._moved(scaled, first)
        begin, span = samples.times[pair], samples.times[pair + 1] - samples.times[pair]
        change = samples.offsets[pair + 1] - first
        reach = max(abs(int(stamps.min()) - begin), abs(int(stamps.max()) - begin))
        product_most = reach * abs(change) + span
        furthest = product_most // span + abs(first)
        if max(abs(change), product_most, furthest, int(scaled.max()) + furthest) > MOST_NS:
            # Numbers past 63 bits on the way are rare enough for Python's own.
            exact = [first + _quotient((s - begin) * change, span) for s in stamps.tolist()]
            sums = [s + o for s, o in zip(scaled.tolist(), exact, strict=True)]
            self._check(min(sums), max(sums))
            return np.array(sums, np.int64)
        product = (stamps - begin) * change + span // 2
        # C's division: towards zero.
        shifted: Numbers = scaled + np.sign(product) * (np.abs(product) // span) + first
        self._check(int(shifted.min()), int(shifted.max()))
        return shifted

    def _scaled(self, stamps: Numbers, multiplier: int, shift: int) -> Numbers:
        """``stamps * multiplier >> shift``."""
        if (multiplier, shift) == (1, 0) or not len(stamps):
            return stamps
        self._check(0, int(stamps.max()) * multiplier >> shift)
        whole = stamps.astype(np.uint64)
        mask = np.uint64(0xFFFFFFFF)
        half = np.uint64(32)
        low, high = whole & mask, whole >> half
        by_low, by_high = np.uint64(multiplier & 0xFFFFFFFF), np.uint64(multiplier >> 32)
        bottom, one, other = low * by_low, low * by_high, high * by_low
        middle = (bottom >> half) + (one & mask) + (other & mask)
        top = high * by_high + (one >> half) + (other >> half) + (middle >> half)
        product = (bottom & mask) | (middle << half)
        if shift:
            product = (product >> np.uint64(shift)) | (top << np.uint64(64 - shift))
        scaled: Numbers = product.astype(np.int64)
        return scaled

    def _moved(self, stamps: Numbers, offset: int) -> Numbers:
        if not offset or not len(stamps):
            return stamps
        self._check(int(stamps.min()) + offset, int(stamps.max()) + offset)
        moved: Numbers = stamps + offset
        return moved

    def _check(self, least: int, most: int) -> None:
        if least < 0 or most > MOST_NS:
            raise ImportFormatError(
                f"{self._where}: a time, corrected as the file says, is "
                + ("before zero" if least < 0 else "past 63 bits")
            )


def _quotient(product: int, span: int) -> int:
    """``(product + span / 2) / span`` in C."""
    product += span // 2
    return product // span if product >= 0 else -(-product // span)


def tsc_to_ns(option: bytes, where: str) -> tuple[int, int] | None:
    """Multiplier and shift of a TSC2NSEC option; ``None``: it holds none.

    :raises ImportFormatError: it is cut off, or no conversion
    """
    cursor = Cursor(option, f"{where}, TSC2NSEC")
    multiplier, shift = cursor.number(4, "multiplier"), cursor.number(4, "shift")
    cursor.number(8, "offset")
    if not multiplier:
        return None
    if shift > MAX_SHIFT:
        raise ImportFormatError(f"{where}: TSC2NSEC shifts by {shift} bits")
    return multiplier, shift


def offset_number(text: str, where: str) -> int:
    """An OFFSET's or a DATE's number: decimal, octal or hexadecimal, as C writes it.

    :raises ImportFormatError: it is none of 64 bits
    """
    found = re.fullmatch(r"\s*([+-]?)(0[xX][0-9a-fA-F]{1,16}|0[0-7]{0,22}|[1-9]\d{0,19})\s*", text)
    if found is None:
        raise ImportFormatError(f"{where}: {text[:40]!r} is no number")
    digits = found[2]
    octal = digits.startswith("0") and digits.isdigit()
    value = int(digits, 8) if octal else int(digits, 0)
    if value > MOST_NS:
        raise ImportFormatError(f"{where}: {text[:40]!r} is past 63 bits")
    return -value if found[1] == "-" else value


def time_shift(option: bytes, where: str) -> tuple[bool, dict[int, Samples]]:
    """Whether to interpolate, and each CPU's samples, of a TIME_SHIFT option.

    Three layouts are known by their size: with the bits of the scalings' fractions after all CPUs,
    without them, and the first one, which had one list of times and offsets for all CPUs (its
    samples are of ``ALL_CPUS``).

    :raises ImportFormatError: it has none of them
    """
    for fractions in (True, False):
        try:
            return _per_cpu(Cursor(option, f"{where}, TIME_SHIFT"), fractions)
        except ImportFormatError:
            continue
    cursor = Cursor(option, f"{where}, TIME_SHIFT")
    cursor.number(8, "trace identifier")
    count = cursor.number(4, "number of samples")
    if count * 16 != cursor.left:
        raise ImportFormatError(f"{where}: TIME_SHIFT has a layout that is not known here")
    times, offsets = (_numbers(cursor, count) for _ in range(2))
    return True, {
        ALL_CPUS: _samples(times, offsets, [1] * count, [0] * count, where)
    } if count else {}


def _per_cpu(cursor: Cursor, with_fractions: bool) -> tuple[bool, dict[int, Samples]]:
    cursor.number(8, "trace identifier")
    flags = cursor.number(4, "flags")
    lists = []
    cpus = cursor.number(4, "number of CPUs")
    if cpus > MAX_CPUS:
        raise ImportFormatError("too many CPUs")
    for _ in range(cpus):
        count = cursor.number(4, "number of samples")
        if count > MAX_SAMPLES:
            raise ImportFormatError("too many samples")
        lists.append([_numbers(cursor, count) for _ in range(3)])
    found = {}
    for cpu, (times, offsets, scalings) in enumerate(lists):
        zeros = [0] * len(times)
        fractions = _numbers(cursor, len(times)) if with_fractions else zeros
        if times:
            found[cpu] = _samples(times, offsets, scalings, fractions, "TIME_SHIFT")
    if cursor.left:
        raise ImportFormatError("more bytes than samples")
    return bool(flags & INTERPOLATE), found


def _numbers(cursor: Cursor, count: int) -> list[int]:
    raw = cursor.take(8 * count, "samples")
    return [int(v) for v in np.frombuffer(raw, "<i8")]


def _samples(
    times: list[int], offsets: list[int], scalings: list[int], fractions: list[int], where: str
) -> Samples:
    """In order of time; of several at one time the first."""
    rows: dict[int, tuple[int, int, int, int]] = {}
    for row in zip(times, offsets, scalings, fractions, strict=True):
        rows.setdefault(row[0], row)
    ordered = [rows[time] for time in sorted(rows)]
    for time, _, scaling, fraction in ordered:
        if scaling < 0 or not 0 <= fraction <= MAX_SHIFT or time < 0:
            raise ImportFormatError(f"{where}: TIME_SHIFT holds a sample that cannot be")
    return Samples(*(tuple(row[i] for row in ordered) for i in range(4)))
