"""Which generation of QEMU explains a trace, and where the trace departs from it.

The rule of ``auto`` (docs/decisions/0005-what-auto-takes-for-qemu.md): the generation that explains
the largest part of the conversions, if that is four in five of them and at least three that made a
map, an unmap or a discard.  A VMM that follows none is no QEMU, and nothing is held against it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from replay.conformance.backings import Backings
from replay.conformance.calls import CallStream
from replay.conformance.listeners import Listeners, ListenerTally
from replay.conformance.machines import Machines
from replay.conformance.matcher import GENERATIONS, Deviation, Matcher, Tally
from replay.engine.engine import worth_compiling

__all__ = ("AUTO", "AUTO_FROM", "AUTO_SHARE", "Conformance", "Fit", "Follower")

AUTO = "auto"
AUTO_SHARE = 0.8
AUTO_FROM = 3


@dataclass(frozen=True)
class Fit:
    """How well a generation explains the trace."""

    generation: str
    tally: Tally

    @property
    def holds(self) -> bool:
        """Whether ``auto`` may take it."""
        return self.tally.share >= AUTO_SHARE and self.tally.telling >= AUTO_FROM


@dataclass(frozen=True)
class Conformance:
    """``generation``: the one that was asked for, or that ``auto`` took; None: none explains it.

    ``ties``: all that explain it as well.  ``deviations`` are those from ``generation``.
    """

    asked: str
    generation: str | None
    ties: tuple[str, ...]
    fits: tuple[Fit, ...]
    deviations: tuple[Deviation, ...] = ()
    listeners: ListenerTally = field(default_factory=ListenerTally)
    tids: tuple[int, ...] = ()

    @property
    def tally(self) -> Tally:
        """The counts of ``generation``; without one, of that which could compare most."""
        if self.generation is None:
            return max((f.tally for f in self.fits), key=lambda t: t.compared, default=Tally())
        return next((f.tally for f in self.fits if f.generation == self.generation), Tally())


class Follower:
    """Follows the calls of a trace under one generation, or under each."""

    def __init__(
        self, events: Mapping[str, int], *, generation: str = AUTO, compiled: bool | None = None
    ) -> None:
        if compiled is None:
            compiled = worth_compiling(sum(events.values()))
        self._asked = generation
        self._stream = CallStream(events, compiled=compiled)
        punches = bool(events.get("fallocate.entered"))
        discards = punches or bool(events.get("madvise.entered"))
        names = list(GENERATIONS) if generation == AUTO else [generation]
        self._chosen = names[min(1, len(names) - 1)]
        """What no conversion of this generation explains goes to the listeners."""
        self._matchers = [
            Matcher(
                name,
                punches=punches,
                discards=discards,
                compiled=compiled,
                leaves=name == self._chosen,
                beside=len(names) - 1,
            )
            for name in names
        ]
        self._backings = Backings()
        self._machines = Machines(self._stream.further)
        self._listeners = Listeners(names, events)

    @staticmethod
    def is_worth(events: Mapping[str, int]) -> bool:
        """Whether a trace can hold a conversion or a request at all."""
        attributes = ("kvm.attributes", "kvm.vm_ioctl", "ioctl.arguments")
        calls = ("vfio.type1_ioctl", "iommufd.ioctl", "iommufd.iopt_map_user")
        return any(events.get(name) for name in attributes + calls)

    def feed(self, batch: pa.RecordBatch) -> None:
        """Follow one batch."""
        self._take(self._stream.feed(batch))

    def _take(self, calls: Any) -> None:
        calls = self._machines.feed(self._backings.feed(calls))
        for matcher in self._matchers:
            matcher.feed(calls)
        self._pass_on()

    def _pass_on(self) -> None:
        for matcher in self._matchers:
            for calls in matcher.left:
                self._listeners.feed(calls)
            matcher.left.clear()

    def finish(self) -> Conformance:
        """The trace ends: the answer."""
        self._take(self._stream.finish())
        for matcher in self._matchers:
            matcher.finish()
        self._pass_on()
        fits = tuple(Fit(m.generation, m.tally) for m in self._matchers)
        named = self._asked != AUTO
        able = [f for f in fits if f.tally.compared] if named else [f for f in fits if f.holds]
        best = max((f.tally.share for f in able), default=0.0)
        ties = tuple(f.generation for f in able if f.tally.share == best)
        chosen = self._asked if named else None
        if not named and ties:
            chosen = "merged" if "merged" in ties else ties[0]
        deviations: tuple[Deviation, ...] = ()
        if chosen is not None:
            deviations = tuple(next(m for m in self._matchers if m.generation == chosen).deviations)
        return Conformance(
            asked=self._asked,
            generation=chosen,
            ties=ties,
            fits=fits,
            deviations=deviations,
            listeners=self._listeners.finish(chosen or self._chosen),
            tids=tuple(self._stream.tids),
        )
