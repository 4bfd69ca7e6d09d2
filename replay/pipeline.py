"""A trace through the engine and the checks: the function behind ``tracekit replay``."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from replay.checks import CHECKS, Check, InPlaceOrder
from replay.checks.violations import Clocks, Violations
from replay.engine.engine import judge
from replay.engine.kernel import layout as L
from replay.engine.stream import COLUMNS
from replay.evidence import explain
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
    compiled: bool | None = None,
    progress: Callable[[int], None] | None = None,
) -> ReplayResult:
    """Replay a trace and say what is wrong with its host.

    ``only``: codes or names of checks, all if empty.  ``grace_ns``: how long a process may be
    idle in the middle of a conversion (docs/judging.md, rule 4).  ``in_place``: the host converts
    memory in place, so judge the order that this needs (TK111).  ``compiled``: None lets the
    trace's size decide.  ``progress`` is called with the number of events taken so far.

    :raises UnknownNameError: no such check
    :raises UsageError: a negative grace, or a check of in-place conversion without ``in_place``
    :raises TraceFormatError: the trace breaks off or is damaged
    """
    if grace_ns < 0:
        raise UsageError("the grace is a duration and cannot be negative")
    checks = selected(only)
    if not in_place:
        if only and InPlaceOrder in checks:
            raise UsageError(
                "TK111 judges in-place conversion alone", help="add --in-place, or leave it out"
            )
        checks = [c for c in checks if c is not InPlaceOrder]
    judgement = judge(
        trace.batches(COLUMNS),
        events=trace.manifest.events,
        grace_ns=grace_ns,
        in_place=in_place,
        compiled=compiled,
        progress=progress,
    )
    manifest = trace.manifest
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
    explain(violations, trace, trace.manifest.rows - 1, judgement.stream.last_ts)
    outcomes = [_outcome(check(), violations, trace.manifest.events) for check in checks]
    stream = judgement.stream
    vms = sum(1 for row in judgement.spaces if row[L.S_KIND] == L.SPACE_VM)
    summary = TraceSummary(
        path=str(trace.path),
        events=stream.rows,
        span_ns=(stream.first_ts or 0, stream.last_ts),
        lost_events=trace.manifest.lost_events,
        kernel=trace.manifest.kernel,
        vms=vms,
        clock=trace.manifest.clock,
    )
    return ReplayResult(trace=summary, outcomes=tuple(_related(outcomes)), grace_ns=grace_ns)


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
        missing = {f"no_event:{name}": 1 for name in _missing(check, events)}
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
