"""The numbers and sentences that every output of an audit has in common."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from tracekit.audit.compare import Compared
from tracekit.audit.config import State
from tracekit.audit.results import Status, TraceResult
from tracekit.audit.run import Audited
from tracekit.findings import Severity, Verdict
from tracekit.report.units import plural

__all__ = (
    "Stream",
    "TrendRow",
    "Version",
    "bytes_line",
    "headline",
    "ignore_lines",
    "shares_before",
    "streams",
    "trend",
    "versions",
)


@dataclass(frozen=True, kw_only=True)
class Stream:
    """One stream tonight: a row of the fleet.  ``traces`` is empty for one that is missing.

    ``verdict``: ``bad``, ``violated``, ``held``, ``not_checked`` or ``missing``.  ``findings``: not
    the ignored ones.
    """

    host: str
    stream: str
    verdict: str
    traces: tuple[TraceResult, ...]
    findings: tuple[Compared, ...]
    held: int
    checks: int
    decided: int
    undecided: int
    lost: int

    @property
    def undecided_share(self) -> float:
        total = self.decided + self.undecided
        return self.undecided / total if total else 0.0

    def count(self, severity: Severity) -> int:
        """Findings of tonight of that severity."""
        return sum(row.finding.severity is severity for row in self.findings)

    @property
    def new(self) -> int:
        """Errors and warnings that are new."""
        return sum(
            row.state is State.NEW and row.finding.severity is not Severity.NOTE
            for row in self.findings
        )


@dataclass(frozen=True, kw_only=True)
class Version:
    """What was found under one kernel and QEMU; null: the trace does not say."""

    kernel: str | None
    qemu: str | None
    traces: int
    violated: int
    errors: int
    warnings: int
    new: int
    decided: int
    undecided: int


@dataclass(frozen=True, kw_only=True)
class TrendRow:
    """One night: findings that no rule covers, by severity, and what could not be judged."""

    night: str
    traces: int
    bad: int
    errors: int
    warnings: int
    notes: int
    undecided_share: float


def headline(made: Audited) -> str:
    """``60 traces: 12 new errors, 1 gone, ...``."""
    rows = [r for r in made.findings if r.ignored is None]
    parts = []
    for severity in (Severity.ERROR, Severity.WARNING):
        there = [r for r in rows if r.finding.severity is severity and r.state.is_there]
        if there:
            new = sum(r.state is State.NEW for r in there)
            flapping = sum(r.state is State.FLAPPING for r in there)
            said = [f"{new:,} new"] if new else []
            said += [f"{flapping:,} flapping"] if flapping else []
            parts.append(
                plural(len(there), severity.value) + (f" ({', '.join(said)})" if said else "")
            )
    if not parts:
        parts.append("no errors or warnings")
    told = [r for r in rows if r.finding.severity is not Severity.NOTE]
    gone = [r for r in told if r.state is State.GONE]
    if gone:
        codes = ", ".join(sorted({r.finding.code for r in gone}))
        parts.append(f"{len(gone):,} gone ({codes})")
    unjudged = sum(r.state is State.UNJUDGED for r in told)
    if unjudged:
        parts.append(f"{unjudged:,} from before could not be judged")
    ignored = sum(r.ignored is not None and r.state.is_there for r in made.findings)
    if ignored:
        parts.append(f"{ignored:,} ignored")
    if made.bad:
        parts.append(f"{plural(len(made.bad), 'trace')} bad")
    if made.missing:
        parts.append(f"{plural(len(made.missing), 'stream')} missing")
    row = trend(made)[-1]
    parts.append(f"{row.undecided_share:.1%} not judged")
    return f"{plural(len(made.results), 'trace')}: {', '.join(parts)}"


def streams(made: Audited) -> list[Stream]:
    """Every stream, worst first."""
    rows: dict[tuple[str, str], list[Compared]] = {}
    for row in made.findings:
        if row.state.is_there and row.ignored is None:
            rows.setdefault((row.host, row.stream), []).append(row)
    found = [
        _stream(*of, tuple(results), tuple(rows.get(of, ())))
        for of, results in groupby(made.results, lambda r: (r.host, r.stream))
    ]
    found += [_stream(host, stream, (), ()) for host, stream in made.missing]
    order = ("violated", "bad", "missing", "not_checked", "held")
    return sorted(found, key=lambda s: (order.index(s.verdict), -s.new, s.host, s.stream))


def versions(made: Audited) -> list[Version]:
    """By kernel and QEMU, in the order of their names."""
    every = streams(made)
    keys = sorted(
        {(r.kernel or "", r.qemu or "") for r in made.results if r.status is Status.JUDGED}
    )
    out = []
    for kernel, qemu in keys:
        # A stream belongs to where its first judged trace does.
        here = [s for s in every if _version(s) == (kernel, qemu)]
        out.append(
            Version(
                kernel=kernel or None,
                qemu=qemu or None,
                traces=sum(
                    r.status is Status.JUDGED and (r.kernel or "", r.qemu or "") == (kernel, qemu)
                    for r in made.results
                ),
                violated=sum(s.verdict == "violated" for s in here),
                errors=sum(s.count(Severity.ERROR) for s in here),
                warnings=sum(s.count(Severity.WARNING) for s in here),
                new=sum(s.new for s in here),
                decided=sum(s.decided for s in here),
                undecided=sum(s.undecided for s in here),
            )
        )
    return out


def trend(made: Audited) -> list[TrendRow]:
    """The nights before and tonight, oldest first."""
    rows = [
        TrendRow(
            night=n.night,
            traces=n.traces,
            bad=n.bad,
            errors=n.found[Severity.ERROR],
            warnings=n.found[Severity.WARNING],
            notes=n.found[Severity.NOTE],
            undecided_share=n.undecided_share,
        )
        for n in made.nights[-made.config.outputs.trend_nights :]
    ]
    there = [r for r in made.findings if r.state.is_there and r.ignored is None]
    counts = {s: sum(r.finding.severity is s for r in there) for s in Severity}
    decided = sum(s.decided for s in made.shares)
    undecided = sum(s.undecided for s in made.shares)
    total = decided + undecided
    tonight = TrendRow(
        night=made.night,
        traces=len(made.results),
        bad=len(made.bad),
        errors=counts[Severity.ERROR],
        warnings=counts[Severity.WARNING],
        notes=counts[Severity.NOTE],
        undecided_share=undecided / total if total else 0.0,
    )
    return [*rows, tonight]


def shares_before(made: Audited) -> dict[str, float]:
    """By check, what share could not be judged on the night before."""
    if not made.nights:
        return {}
    last = made.nights[-1]
    out = {}
    for code, decided in last.decided.items():
        total = decided + last.undecided[code]
        if total:
            out[code] = last.undecided[code] / total
    return out


def ignore_lines(made: Audited) -> list[str]:
    """What is to be said of the ignore rules."""
    lines = [
        f"expired on {rule.until}: the rule for {rule} ({rule.reason}), which would cover"
        f" {plural(count, 'finding')}"
        for rule, count in made.expired
    ]
    return lines + [
        f"covers nothing: the rule for {rule} ({rule.reason})"
        for rule in made.unused
        if rule not in {r for r, _ in made.expired}
    ]


def bytes_line(made: Audited) -> str:
    """How much was read of traces that are elsewhere; nothing if none is."""
    there = [r for r in made.results if r.bytes_read is not None]
    if not there:
        return ""
    size, read = sum(r.size for r in there), sum(r.bytes_read or 0 for r in there)
    return (
        f"{read / 1e6:,.1f} MB were read of {plural(len(there), 'trace')} in object stores that"
        f" {'has' if len(there) == 1 else 'have'} {size / 1e6:,.1f} MB"
    )


def _version(stream: Stream) -> tuple[str, str] | None:
    for trace in stream.traces:
        if trace.status is Status.JUDGED:
            return trace.kernel or "", trace.qemu or ""
    return None


def _stream(
    host: str, stream: str, traces: tuple[TraceResult, ...], findings: Sequence[Compared]
) -> Stream:
    checks: dict[str, set[Verdict]] = {}
    for trace in traces:
        for row in trace.checks:
            checks.setdefault(row.code, set()).add(row.verdict)
    held = sum(Verdict.HELD in v and Verdict.VIOLATED not in v for v in checks.values())
    if not traces:
        verdict = "missing"
    elif any(row.finding.severity is Severity.ERROR for row in findings):
        verdict = "violated"
    elif any(t.status is not Status.JUDGED for t in traces):
        verdict = "bad"
    else:
        verdict = "held" if held else "not_checked"
    return Stream(
        host=host,
        stream=stream,
        verdict=verdict,
        traces=traces,
        findings=tuple(findings),
        held=held,
        checks=len(checks),
        decided=sum(row.decided for t in traces for row in t.checks),
        undecided=sum(row.undecided for t in traces for row in t.checks),
        lost=sum(t.lost_events for t in traces),
    )
