"""What is left of a damaged CPU's records, and a mark over the rest."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tracekit.ftrace.event_format import EventFormat
from tracekit.ftrace.page_stream import PageRecords
from tracekit.ftrace.ring_buffer import MARK_LOST, Records

__all__ = ("Left", "Salvaged", "shortest_records", "survey")

SURVEY_BYTES = 1 << 19


@dataclass(frozen=True)
class Left:
    """What intact pages hold: how many records, from when until when (ns), and what ended them."""

    records: int
    first_ns: int
    last_ns: int
    damage: str


def survey(source: PageRecords) -> Left:
    """Read all of a source that was opened with ``shortest``; it is used up."""
    size = max(source.unit, SURVEY_BYTES // source.unit * source.unit)
    room = Records(1, size, source.unit).stream(0)
    found, first, last = 0, 0, 0
    while not source.finished:
        room.state[3] = room.state[4] = 0
        source.fill(room)
        count = int(room.state[3])
        if count:
            first = first if found else int(room.ts[0])
            last = int(room.ts[count - 1])
            found += count
    return Left(found, first, last, source.damage)


class Salvaged:
    """The records before the damage, and then a hole that ends at ``until_ns``."""

    def __init__(self, source: PageRecords, begin_ns: int, until_ns: int) -> None:
        """``begin_ns``: where the hole begins if there is no record before it."""
        self._source = source
        self._last = begin_ns
        self._until = until_ns
        self._told = False

    @property
    def unit(self) -> int:
        """One page."""
        return self._source.unit

    @property
    def finished(self) -> bool:
        """No more records, and no hole either."""
        return self._source.finished and (self._told or not self._source.damage)

    def fill(self, records: Records) -> None:
        """Put the next records there, or the hole after the last one."""
        if not self._source.finished:
            self._source.fill(records)
            if records.state[3]:
                self._last = int(records.ts[records.state[3] - 1])
            return
        self._told = True
        records.ts[0], records.at[0], records.size[0] = self._last, MARK_LOST, 0
        records.until[0], records.lost[0] = max(self._until, self._last), -1
        records.state[3] = records.state[4] = 1


def shortest_records(formats: Iterable[EventFormat]) -> npt.NDArray[np.int32]:
    """How long records of each event number are at least, as their formats say.

    Events of ftrace itself end with lists that may be shorter than their format says.
    """
    found = np.zeros(65536, np.int32)
    for event in formats:
        if event.source.startswith("ftrace:") or not 0 <= event.id < len(found):
            continue
        ends = [f.offset + f.size for f in event.fields.values()]
        found[event.id] = min(max([0, *ends]), 1 << 16)
    return found
