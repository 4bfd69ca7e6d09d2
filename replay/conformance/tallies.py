"""What is counted of calls outside conversions, and what departs there."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from replay.conformance.kernel import layout as K

__all__ = ("KEPT_DEPARTURES", "Departure", "ListenerTally", "Pair")

KEPT_DEPARTURES = 1000

Pair = tuple[str, int, int]
"""map, unmap, plug ..., the first byte, and how many."""


@dataclass(frozen=True)
class Departure:
    """A call that differs from the model's, or a hazard, by name.

    ``what``: expected, extra; unrequested, unanswered (of QEMU's own trace); or a name in
    told.MANAGER_HAZARDS.
    """

    what: str
    process: int
    thread: int
    space: int
    expected: Pair | None
    seen: Pair
    ts_ns: int
    seq: int

    @classmethod
    def at(cls, what: str, row: list[int], expected: Pair | None, seen: Pair) -> Departure:
        """A departure at a call, a row of the kernel's table."""
        return cls(
            what, row[K.C_PROC], row[K.C_THREAD], row[K.C_SPACE], expected, seen,
            row[K.C_TS0], row[K.C_SEQ0],
        )  # fmt: skip


@dataclass
class ListenerTally:
    """How many of the calls outside conversions were compared."""

    explained: int = 0
    undecided: int = 0
    plugs: int = 0
    unplugs: int = 0
    resets: int = 0
    replays: int = 0
    regions: int = 0
    requests: int = 0
    """Of QEMU's own trace that were compared with calls."""
    like: int = 0
    """Maps of regions that are memory slots, and those that are not."""
    unlike: int = 0
    reasons: dict[str, int] = field(default_factory=dict)
    departures: list[Departure] = field(default_factory=list)
    departed: int = 0
    hazards: list[Departure] = field(default_factory=list)

    def say(self, reason: str, count: int = 1) -> None:
        """That many could not be compared."""
        self.undecided += count
        self.reasons[reason] = self.reasons.get(reason, 0) + count

    def depart(self, departure: Departure) -> None:
        """One more that differs."""
        self.departed += 1
        if len(self.departures) < KEPT_DEPARTURES:
            self.departures.append(departure)

    def hazard(self, departure: Departure) -> None:
        """A known bug was seen."""
        if len(self.hazards) < KEPT_DEPARTURES:
            self.hazards.append(departure)

    @classmethod
    def sum(cls, tallies: Iterable[ListenerTally]) -> ListenerTally:
        """Several as one."""
        out = cls()
        for tally in tallies:
            for name in (
                "explained", "plugs", "unplugs", "resets", "replays", "regions", "requests",
                "departed", "like", "unlike",
            ):  # fmt: skip
                setattr(out, name, getattr(out, name) + getattr(tally, name))
            for reason, count in tally.reasons.items():
                out.say(reason, count)
            out.departures += tally.departures
            out.hazards += tally.hazards
        return out
