"""A trace through the engine and the checks: the function behind ``tracekit replay``."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from replay.checkpoint.checkpoint import MOST_GAP_NS, Checkpoint, Options
from replay.checkpoint.continuation import Continuation
from replay.checks import CHECKS, Check, DivergingConversion, InPlaceOrder
from replay.checks.violations import Clocks, Violations
from replay.conformance.conformance import AUTO, Follower
from replay.conformance.keeping import FollowerPart
from replay.conformance.told import as_notes
from replay.engine.engine import Engine, worth_compiling
from replay.engine.kept import State
from replay.engine.kernel import layout as L
from replay.engine.stream import COLUMNS
from replay.evidence import explain
from replay.linger.engine import is_large
from replay.linger.judge import CODES as LINGER_CODES
from replay.linger.models import MODELS
from replay.linger.run import SocketFollower, nothing_of_vsock
from replay.linger.stream import columns_of, concerns
from replay.side_by_side import feed_all
from tracekit.errors import UnknownNameError, UsageError
from tracekit.findings import Finding, Outcome, ReplayResult, Severity, TraceSummary

if TYPE_CHECKING:
    from tracekit.store import Trace

__all__ = ("run", "selected")


def run(
    trace: Trace,
    *,
    only: Sequence[str] = (),
    grace_ns: int = 1_000_000,
    in_place: bool = False,
    linger_model: str | None = None,
    slack_ns: int | None = None,
    generation: str = AUTO,
    recorded: Collection[str] = (),
    since: Checkpoint | None = None,
    gap_ns: int = MOST_GAP_NS,
    checkpoint: Callable[[Checkpoint], None] | None = None,
    compiled: bool | None = None,
    progress: Callable[[int], None] | None = None,
) -> ReplayResult:
    """Replay a trace and say what is wrong with its host.

    ``only``: codes or names of checks, all if empty.  ``grace_ns``: how long a process may be
    idle in the middle of a conversion (docs/judging.md, rule 4).  ``in_place``: the host converts
    memory in place, so judge the order that this needs (TK111).  ``linger_model``: which of
    ``replay.linger.models.MODELS`` judges vsock's lingering; None lets the trace's kernel decide.
    ``slack_ns``: how late a lingering close may be, instead of the default.  ``generation``: of
    QEMU, by whose model conversions are compared (TK201); ``auto`` takes the one that explains the
    trace.  ``recorded``: event types that were recorded, although none is in the trace.

    ``since``: the state at the end of the trace before this one; the result is that of both, and
    events are numbered as if they were one (docs/checkpoints.md).  ``gap_ns``: how much later this
    trace may begin, because the host was recorded on and did nothing.  ``checkpoint`` is called
    with the state at the end of this trace.

    ``compiled``: None lets the trace's size decide.  ``progress`` is called with the number of
    events taken so far.

    :raises UnknownNameError: no such check, or no such event type
    :raises UsageError: a negative grace, or a check of in-place conversion without ``in_place``; a
        state of which this trace is no continuation, or that was made with other options
    :raises TraceFormatError: the trace breaks off or is damaged, or the state is no state
    """
    if grace_ns < 0:
        raise UsageError("the grace is a duration and cannot be negative")
    if slack_ns is not None and slack_ns < 0:
        raise UsageError("the slack is a duration and cannot be negative")
    if linger_model is not None and linger_model not in MODELS:
        raise UnknownNameError("model of lingering", linger_model, MODELS)
    checks = selected(only)
    if not in_place:
        if only and InPlaceOrder in checks:
            raise UsageError(
                "TK111 judges in-place conversion alone", help="add --in-place, or leave it out"
            )
        checks = [c for c in checks if c is not InPlaceOrder]
    options = Options(
        grace_ns=grace_ns,
        in_place=in_place,
        linger_model=linger_model,
        slack_ns=slack_ns,
        generation=generation,
    )
    own, whole = trace.manifest, Continuation(trace, options, since, recorded, gap_ns)
    trace, manifest = whole.trace, whole.trace.manifest
    keep = checkpoint is not None
    columns = COLUMNS
    if manifest.events.get("qemu.virtio_mem"):
        columns = (*COLUMNS, "count")  # how many blocks the guest asks for
    batches = trace.batches(columns)
    compares = DivergingConversion in checks and Follower.is_worth(manifest.events)
    large = worth_compiling(own.rows) if compiled is None else compiled
    follower = None
    if compares or keep:
        follower = FollowerPart(
            Follower(manifest.events, generation=generation, compiled=large), manifest.events
        )
        whole.restore("conformance", follower)
    engine = Engine(
        events=manifest.events,
        grace_ns=grace_ns,
        in_place=in_place,
        compiled=compiled,
        rows=own.rows,
    )
    whole.restore("engine", engine)
    takers = [engine.feed] if follower is None else [engine.feed, follower.feed]
    feed_all(batches, takers, threads=large, taken=progress)
    lingers = any(check.code in LINGER_CODES for check in checks)
    sockets = None
    if keep or (lingers and concerns(manifest.events)):
        sockets = SocketFollower.of(
            manifest,
            model=linger_model,
            slack_ns=slack_ns,
            compiled=is_large(own.events) if compiled is None else compiled,
        )
        whole.restore("linger", sockets)
        feed_all(trace.batches(columns_of(manifest.events)), [sockets.feed], threads=large)
    parts: dict[str, State] = {}
    if keep and follower is not None and sockets is not None:
        parts = {
            "engine": engine.kept_state(),
            "conformance": follower.kept_state(),
            "linger": sockets.kept_state(),
        }
    judgement = engine.finish()
    violations = Violations.of(
        judgement,
        host=manifest.host,
        lost_events=manifest.lost_events,
        clocks=Clocks(
            name=manifest.clock,
            comparable=manifest.clock_comparable,
            apart=manifest.incomparable,
        ),
    )
    if lingers:
        _linger(violations, trace, sockets, linger_model)
    if follower is not None and compares:
        follower.finish(violations)
    found = explain(violations, trace, manifest.rows - 1, judgement.stream.last_ts)
    outcomes = [_outcome(check(), violations, manifest.events) for check in checks]
    stream = judgement.stream
    vms = sum(1 for row in judgement.spaces if row[L.S_KIND] == L.SPACE_VM)
    summary = TraceSummary(
        path=str(trace.path),
        events=stream.rows,
        span_ns=(stream.first_ts or 0, stream.last_ts),
        lost_events=manifest.lost_events,
        kernel=manifest.kernel,
        vms=vms,
        clock=manifest.clock,
        lost_unknown=manifest.lost_unknown,
    )
    if checkpoint is not None:
        checkpoint(whole.checkpoint(parts, violations, found))
    return ReplayResult(
        trace=summary,
        outcomes=tuple(_related(_beside(outcomes, auto=generation == AUTO))),
        grace_ns=grace_ns,
    )


def _linger(
    violations: Violations, trace: Trace, sockets: SocketFollower | None, model: str | None
) -> None:
    """Judge the trace's vsock sockets, and name the programs that they belong to."""
    if sockets is None or not concerns(trace.manifest.events):
        violations.linger = nothing_of_vsock(trace.manifest, model)
        return
    found = sockets.finish()
    violations.linger = found
    seqs = {
        seq
        for breach in found.breaches
        for name, (_, seq) in breach.closing.moments.items()
        if name == "enter"
    }
    if seqs:
        rows = trace.rows(seqs, ["tid", "comm"]).to_pylist()
        violations.comms = {row["tid"]: row["comm"] for row in rows}


def selected(only: Sequence[str]) -> list[type[Check]]:
    """The checks that are meant by codes or names; all for none.

    :raises UnknownNameError: no such check
    """
    if not only:
        return list(CHECKS.values())
    known = {**CHECKS, **{check.name: check for check in CHECKS.values()}}
    for name in only:
        if name not in known:
            raise UnknownNameError("check", name, known)
    wanted = {known[name].code for name in only}
    return [check for code, check in CHECKS.items() if code in wanted]


def _outcome(check: Check, violations: Violations, events: Mapping[str, int]) -> Outcome:
    found = sorted(check.findings(violations), key=lambda f: (f.severity.rank, f.id))
    judged = check.judged(violations)
    if not judged.decided:
        missing = {
            f"no_event:{name}": 1
            for name in _missing(check, events)
            if f"no_event:{name.split('.')[0]}" not in judged.reasons
        }
        lost = {"loss": 1} if violations.losses and not judged.undecided else {}
        judged = replace(judged, reasons={**judged.reasons, **lost, **missing})
    return Outcome(code=check.code, name=check.name, judged=judged, findings=tuple(found))


def _missing(check: Check, events: Mapping[str, int]) -> Iterator[str]:
    """Event types that the check needs and the trace lacks; of alternatives the first."""
    for need in check.needs:
        alternatives = need if isinstance(need, tuple) else (need,)
        if not any(events.get(kind.name_) for kind in alternatives):
            yield alternatives[0].name_


def _related(outcomes: list[Outcome]) -> list[Outcome]:
    """A TK102 beside a TK101 on the same pages names it, and the other way round."""
    by_code = {o.code: o for o in outcomes}
    stale, discarded = by_code.get("TK101"), by_code.get("TK102")
    if stale is None or discarded is None:
        return outcomes
    pairs = [(a.id, b.id) for a in stale.findings for b in discarded.findings if _overlap(a, b)]

    def with_related(outcome: Outcome, own: int) -> Outcome:
        findings = tuple(
            replace(f, related=tuple(sorted(p[1 - own] for p in pairs if p[own] == f.id)))
            for f in outcome.findings
        )
        return replace(outcome, findings=findings)

    changed = {"TK101": with_related(stale, 0), "TK102": with_related(discarded, 1)}
    return [changed.get(o.code, o) for o in outcomes]


def _beside(outcomes: list[Outcome], *, auto: bool) -> list[Outcome]:
    """A TK201 names the errors of other codes on its pages; with ``auto`` it is a note then."""
    errors = [
        f
        for o in outcomes
        if o.code != "TK201"
        for f in o.findings
        if f.severity is Severity.ERROR
    ]  # fmt: skip
    return [
        replace(o, findings=tuple(as_notes(o.findings, errors, auto))) if o.code == "TK201" else o
        for o in outcomes
    ]


def _overlap(a: Finding, b: Finding) -> bool:
    """True if an occurrence of each covers the same pages at the same time."""
    if a.vm != b.vm or Severity.NOTE is a.severity:
        return False
    for x in a.occurrences:
        for y in b.occurrences:
            if x.iova is None or y.iova is None or x.size is None or y.size is None:
                continue
            if x.iova < y.iova + y.size and y.iova < x.iova + x.size:
                late = x.until_ns is None or y.from_ns <= x.until_ns
                if late and (y.until_ns is None or x.from_ns <= y.until_ns):
                    return True
    return False
