"""The events that were opened (struct perf_event_attr), and how their samples are laid out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tracekit.errors import ImportFormatError
from tracekit.ftrace.byte_source import Cursor

__all__ = ("RAW_OPTIONS", "TRACEPOINT", "Attribute", "Layouts", "parse_attribute")

TRACEPOINT = 2
LEAST_SIZE = 64
"""Of the first version of the structure."""
MAX_SIZE = 4096
MAX_ATTRIBUTES = 65536

IP, TID, TIME, ADDR, READ, CALLCHAIN, ID, CPU, PERIOD, STREAM_ID, RAW = (1 << n for n in range(11))
IDENTIFIER = 1 << 16
BEFORE_READ = (IDENTIFIER, IP, TID, TIME, ADDR, ID, STREAM_ID, CPU, PERIOD)
"""Eight bytes each, in this order."""
AT_THE_END = (TID, TIME, ID, STREAM_ID, CPU, IDENTIFIER)
"""Likewise, behind records that are no samples."""
FREQUENCY = 1 << 10
SAMPLE_ID_ALL = 1 << 18
USE_CLOCKID = 1 << 25
CLOCKID_AT = 92

RAW_OPTIONS = "perf record -e SYSTEM:EVENT -R -T --sample-cpu"


@dataclass(frozen=True, kw_only=True)
class Attribute:
    """One event that was opened."""

    type: int
    config: int
    period: int
    sample_type: int
    read_format: int
    flags: int
    clockid: int

    @property
    def tracepoint(self) -> bool:
        """Its samples hold a tracepoint's record."""
        return self.type == TRACEPOINT

    @property
    def sampled(self) -> bool:
        """Not every one of its events was recorded: one in a number, so many a second, or none.

        None is of the members of a group whose leader alone is recorded (``{a,b}:S``).
        """
        return self.period != 1 or bool(self.flags & FREQUENCY)

    @property
    def clock(self) -> int | None:
        """The id of the clock that stamps its samples; ``None``: perf's own."""
        return self.clockid if self.flags & USE_CLOCKID else None

    def place(self, field: int) -> int:
        """The field's number among the eight-byte ones of a sample; -1: it has none."""
        if not self.sample_type & field:
            return -1
        before = BEFORE_READ[: BEFORE_READ.index(field)]
        return sum(1 for f in before if self.sample_type & f)

    def place_from_end(self, field: int) -> int:
        """Likewise behind a record that is no sample, counted from its end; 0: it has none."""
        if not (self.flags & SAMPLE_ID_ALL and self.sample_type & field):
            return 0
        return sum(1 for f in AT_THE_END[AT_THE_END.index(field) :] if self.sample_type & f)

    @property
    def id_place(self) -> int:
        """Where a sample says which event it is of; -1: nowhere."""
        return self.place(IDENTIFIER if self.sample_type & IDENTIFIER else ID)

    @property
    def id_place_from_end(self) -> int:
        """Likewise a record that is no sample; 0: nowhere."""
        return self.place_from_end(IDENTIFIER if self.sample_type & IDENTIFIER else ID)


def parse_attribute(data: bytes, where: str) -> Attribute:
    """A ``struct perf_event_attr``, of any version.

    :raises ImportFormatError: cut off
    """
    cursor = Cursor(data, f"{where}, an event's attribute")
    kind, size = cursor.number(4, "type"), cursor.number(4, "size")
    config = cursor.number(8, "config")
    period = cursor.number(8, "period")
    sample_type, read_format = cursor.number(8, "sample type"), cursor.number(8, "read format")
    flags = cursor.number(8, "flags")
    if size and not LEAST_SIZE <= size <= MAX_SIZE:
        raise ImportFormatError(f"{where}: an event's attribute of {size} bytes")
    clockid = -1
    if len(data) >= CLOCKID_AT + 4:
        clockid = int.from_bytes(data[CLOCKID_AT : CLOCKID_AT + 4], "little", signed=True)
    return Attribute(
        type=kind,
        config=config,
        period=period,
        sample_type=sample_type,
        read_format=read_format,
        flags=flags,
        clockid=clockid,
    )


class Layouts:
    """All attributes as tables for :func:`tracekit.perf.walk.walk`."""

    def __init__(
        self, attributes: Sequence[Attribute], numbers: Mapping[int, int], where: str
    ) -> None:
        """``numbers``: which attribute an id belongs to.

        :raises ImportFormatError: samples that cannot be told apart, or lack what rows need
        """
        if not attributes:
            raise ImportFormatError(f"{where}: names no event that was recorded")
        self._attributes = attributes
        places = {a.id_place for a in attributes}
        ends = {a.id_place_from_end for a in attributes}
        if len(attributes) > 1 and (len(places) > 1 or -1 in places):
            raise ImportFormatError(f"{where}: samples of different events cannot be told apart")
        if len(ends) > 1 or (
            len(attributes) > 1 and any(a.flags >> 18 & 1 for a in attributes) and 0 in ends
        ):
            raise ImportFormatError(f"{where}: records of different events cannot be told apart")
        for attribute in attributes:
            _check_fields(attribute, where)
        self.id_place = places.pop() if numbers else -1
        self.id_place_from_end = ends.pop() if numbers else 0
        self.numbers = numbers
        keys = sorted((_signed(id), number) for id, number in numbers.items())
        self.ids = np.array([k for k, _ in keys], np.int64)
        self.of_id = np.array([n for _, n in keys], np.int64)
        self.table: npt.NDArray[np.int64] = np.array([_row(a) for a in attributes], np.int64)

    def at_end(self, field: int, id: int) -> int:
        """:meth:`Attribute.place_from_end` of the attribute that ``id`` belongs to.

        What perf itself put in has the id 0: that is laid out as the first event's.
        """
        return self._attributes[self.numbers.get(id, 0)].place_from_end(field)


def _check_fields(attribute: Attribute, where: str) -> None:
    if not attribute.tracepoint:
        return
    for field, what in ((TIME, "time"), (CPU, "CPU"), (RAW, "raw data")):
        if not attribute.sample_type & field:
            raise ImportFormatError(
                f"{where}: samples of tracepoints without their {what}",
                help=f"record with `{RAW_OPTIONS}`",
            )


def _row(attribute: Attribute) -> list[int]:
    fixed = sum(1 for f in BEFORE_READ if attribute.sample_type & f)
    return [
        int(attribute.tracepoint),
        attribute.place(TIME),
        attribute.place(CPU),
        fixed,
        int(bool(attribute.sample_type & READ)),
        attribute.read_format & 0x1F,
        int(bool(attribute.sample_type & CALLCHAIN)),
        attribute.config & 0xFFFF,
    ]


def _signed(id: int) -> int:
    return id - ((id & (1 << 63)) << 1)
