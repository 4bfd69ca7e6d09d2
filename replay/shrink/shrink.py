"""From a trace and one of its findings to the smallest trace that still shows it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from replay.checks import CHECKS
from replay.conformance.conformance import AUTO
from replay.conformance.matcher import GENERATIONS
from replay.pipeline import run
from replay.shrink.near import Near
from replay.shrink.reduce import reduced
from replay.shrink.table_trace import TableTrace
from tracekit.errors import TracekitError, UsageError
from tracekit.findings import Finding, Occurrence, ReplayResult
from tracekit.store import Trace, arrow_schema

__all__ = ("Options", "Shrunk", "shrink")

_LISTED = 16
"""Findings named when the one asked for is not there."""


@dataclass(frozen=True, kw_only=True)
class Options:
    """How the trace is replayed: what decides of :func:`replay.run`, with its defaults."""

    grace_ns: int = 1_000_000
    in_place: bool = False
    linger_model: str | None = None
    slack_ns: int | None = None
    generation: str = AUTO

    def run(self, trace: Trace, only: Sequence[str] = ()) -> ReplayResult:
        """Replay a trace like this."""
        return run(
            trace,
            only=only,
            grace_ns=self.grace_ns,
            in_place=self.in_place,
            linger_model=self.linger_model,
            slack_ns=self.slack_ns,
            generation=self.generation,
        )


@dataclass(frozen=True, kw_only=True)
class Shrunk:
    """The smallest trace, and what it was made of.

    ``finding``: as the small trace shows it; ``original``: as the large one did; ``occurrence``:
    the one that was followed.  ``seqs``: for each event its number in the large trace.  ``frames``:
    for each event the number of its frame.  ``options``: those that show it, which name the
    generation of QEMU where ``auto`` took one that a small trace cannot tell; ``asked``: as they
    were given.  ``others``: findings
    of the small trace beside it.
    """

    trace: TableTrace
    finding: Finding
    original: Finding
    occurrence: Occurrence
    seqs: tuple[int, ...]
    frames: tuple[int, ...]
    of_events: int
    of_frames: int
    tried: int
    options: Options
    asked: Options
    others: tuple[Finding, ...] = field(default=())


def shrink(
    trace: Trace,
    finding: str,
    *,
    options: Options | None = None,
    progress: Callable[[int], None] | None = None,
) -> Shrunk:
    """Cut a trace down to the frames without any one of which ``finding`` (its id) is not shown.

    The cut begins near the finding's evidence and, where that does not suffice, goes on from the
    process and from the whole trace.  Nothing is believed: every candidate is replayed, and counts
    only if the same finding, by id, severity and confidence, is about pages (or a socket) and a
    time of the followed occurrence.  Of several occurrences that with the fewest pages is followed,
    then the first.  ``progress`` is called with the number of events that are cut away.

    :raises UsageError: the trace has no such finding; the message lists those that it has
    :raises TraceFormatError: the trace breaks off or is damaged
    """
    asked = options = options or Options()
    original = _find(trace, finding, options)
    taken = original.cause.partition(":")[0]
    if original.code == "TK201" and options.generation == AUTO and taken in GENERATIONS:
        by_name = replace(options, generation=taken)
        named = _with_id(by_name.run(trace, ("TK201",)), finding)
        if named is not None:
            original, options = named, by_name
    target = min(original.occurrences, key=lambda o: (o.size or 0, o.from_ns, o.events))
    search = _Search(trace, original, target, options, progress)
    kept = search.smallest()
    shown, small = search.shown(kept)
    assert shown is not None, "what reduced() returns was tried"
    rows = search.rows(kept)
    everything = options.run(small)
    return Shrunk(
        trace=small,
        finding=shown,
        original=original,
        occurrence=target,
        seqs=tuple(search.seqs[rows].tolist()),
        frames=tuple(np.unique(search.frame[rows], return_inverse=True)[1].tolist()),
        of_events=trace.manifest.rows,
        of_frames=search.of_frames,
        tried=search.tried,
        options=options,
        asked=asked,
        others=tuple(f for f in everything.findings if f.id != finding),
    )


def _find(trace: Trace, wanted: str, options: Options) -> Finding:
    code = wanted.partition("-")[0].upper()
    if code in CHECKS:
        found = _with_id(options.run(trace, (code,)), wanted)
        if found is not None:
            return found
    findings = options.run(trace).findings
    known = [f"  {f.id}  {f.severity.value}: {f.title}" for f in findings[:_LISTED]]
    more = len(findings) - len(known)
    lines = [f"there is no finding {wanted!r} in {trace.path}", *known]
    lines += [f"  and {more} more"] if more > 0 else []
    if not known:
        lines[0] += ", nor any other"
    raise UsageError("\n".join(lines), help="a finding is named as `tracekit replay` names it")


def _with_id(result: ReplayResult, wanted: str) -> Finding | None:
    return next((f for f in result.findings if f.id.lower() == wanted.lower()), None)


class _Search:
    """One hunt: the rows that may matter, and candidates made of them."""

    def __init__(
        self,
        trace: Trace,
        original: Finding,
        target: Occurrence,
        options: Options,
        progress: Callable[[int], None] | None,
    ) -> None:
        self._trace, self._original, self._target = trace, original, target
        self._options = options
        self._progress = progress or (lambda done: None)
        self.tried = 0
        self.of_frames = 0
        self.seqs: Any = np.zeros(0, np.int64)
        self.frame: Any = np.zeros(0, np.int64)
        self._table = arrow_schema().empty_table()

    def smallest(self) -> list[int]:
        """The frames of the smallest trace."""
        near = Near(self._trace, self._target)
        self.of_frames = near.count
        for frames in near.steps():
            rows = np.flatnonzero(np.isin(near.frame, frames))
            self.seqs = near.seq[rows]
            self.frame = near.frame[rows]
            self._table = self._trace.rows(self.seqs.tolist())
            if self.shown(frames.tolist())[0] is not None:
                break
        else:
            raise TracekitError(f"{self._trace.path} as one table does not show the finding")
        self._tell(frames.tolist())
        return reduced(frames.tolist(), lambda some: self.shown(some)[0] is not None, self._tell)

    def rows(self, frames: Sequence[int]) -> Any:
        """Which rows of the table belong to these frames."""
        return np.flatnonzero(np.isin(self.frame, np.asarray(frames, np.int64)))

    def shown(self, frames: Sequence[int]) -> tuple[Finding | None, TableTrace]:
        """The finding, if a trace of these frames alone shows it, and that trace."""
        self.tried += 1
        table = self._table.take(pa.array(self.rows(frames)))
        trace = TableTrace(table, self._trace.manifest, self._trace.path)
        found = _with_id(self._options.run(trace, (self._original.code,)), self._original.id)
        if found is None or not self._is_the_same(found):
            return None, trace
        return found, trace

    def _is_the_same(self, found: Finding) -> bool:
        if (found.severity, found.confidence) != (
            self._original.severity,
            self._original.confidence,
        ):
            return False
        return any(_meets(o, self._target) for o in found.occurrences)

    def _tell(self, frames: Sequence[int]) -> None:
        self._progress(self._trace.manifest.rows - len(self.rows(frames)))


def _meets(o: Occurrence, target: Occurrence) -> bool:
    """Whether it is about pages and a time of ``target``, or the same socket's call."""
    if o.errno != target.errno:
        return False
    until = o.from_ns if target.until_ns is None else max(target.from_ns, target.until_ns)
    if not target.from_ns <= o.from_ns <= until:
        return False
    if target.local is not None or target.peer is not None:
        same = [_port(o.local) == _port(target.local), _port(o.peer) == _port(target.peer)]
        return all(same) and o.from_ns == target.from_ns
    mine, its = (x.gpa if x.gpa is not None else x.iova for x in (o, target))
    if its is None or not target.size:
        return True
    if mine is None or not o.size:
        return False
    return mine < its + target.size and its < mine + o.size


def _port(address: tuple[int, int] | None) -> int | None:
    """A socket's port; the CID may be known of one trace and not of the other."""
    return None if address is None else address[1]
