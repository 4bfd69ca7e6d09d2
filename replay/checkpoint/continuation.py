"""What one replay takes over from the one before it, and hands on."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

from replay.checkpoint.checkpoint import MOST_GAP_NS, Checkpoint, Options
from replay.checkpoint.continued import ContinuedTrace
from replay.checkpoint.gather import gathered
from replay.checkpoint.past import Asked, Past
from replay.checks.violations import Violations
from replay.engine.kept import Kept, State
from replay.evidence import by_event
from tracekit.errors import UnknownNameError
from tracekit.events import EVENT_TYPES
from tracekit.store import Trace

__all__ = ("Continuation", "Part")


class Part(Protocol):
    """What judges, and can be interrupted."""

    def kept_state(self) -> State: ...
    def restore(self, kept: Kept) -> None: ...


class Continuation:
    """A trace that is replayed, alone or after what ``since`` is the state of.

    :raises UnknownNameError: ``recorded`` names no event type
    :raises UsageError: the trace is no continuation, or other options were asked for
    :raises TraceFormatError: the state is no state
    """

    def __init__(
        self,
        trace: Trace,
        options: Options,
        since: Checkpoint | None,
        recorded: Collection[str],
        gap_ns: int = MOST_GAP_NS,
    ) -> None:
        self._options, self._since, self._own = options, since, trace
        self._recorded = set(recorded)
        past, before = Past(), None
        if since is not None:
            since.check_options(options)
            since.check_follows(trace.manifest, str(trace.path), gap_ns)
            kept = Kept(since.parts, "parts")
            self._recorded |= set(kept.texts("recorded"))
            past, before = Past.restored(kept.part("past")), since.manifest
        for name in sorted(self._recorded):
            if name not in EVENT_TYPES:
                raise UnknownNameError("event type", name, EVENT_TYPES)
        self.trace = ContinuedTrace(trace, before, past, self._recorded)
        past.tell_by(by_event(self.trace.manifest.events))

    def restore(self, name: str, part: Part) -> None:
        """Let a part go on from where it was, if there is anything to go on from."""
        if self._since is not None:
            part.restore(Kept(self._since.parts, "parts").part(name))

    def checkpoint(
        self, parts: Mapping[str, State], violations: Violations, found: Mapping[Asked, int]
    ) -> Checkpoint:
        """The state to hand on; ``found``: what was looked up for evidence."""
        before, own = self._since, self._own.manifest
        past = gathered(self.trace, parts, violations, found)
        return Checkpoint(
            options=self._options,
            manifest=own if before is None else before.manifest.merged(own),
            parts={**parts, "past": past.kept_state(), "recorded": sorted(self._recorded)},
        )
