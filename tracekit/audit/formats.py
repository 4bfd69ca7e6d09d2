"""An audit as JSON, Markdown, Prometheus metrics and a few lines for the terminal."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from tracekit.audit.compare import Compared
from tracekit.audit.config import State
from tracekit.audit.results import Status, TraceResult
from tracekit.audit.run import Audited
from tracekit.audit.summary import (
    bytes_line,
    headline,
    ignore_lines,
    shares_before,
    streams,
    trend,
    versions,
)
from tracekit.findings import Verdict
from tracekit.report.escape import visible
from tracekit.report.markdown import code_span, escaped
from tracekit.report.units import plural

__all__ = ("render_json", "render_markdown", "render_metrics", "render_text")

SCHEMA = 1
_MOST_ROWS = 50
_MOST_LINES = 10


def render_json(made: Audited) -> str:
    """Everything, for scripts; fields as in docs/fleet.md."""
    before = shares_before(made)
    document = {
        "schema": SCHEMA,
        "audit": made.config.name,
        "night": made.night,
        "failed": bool(made.reasons),
        "reasons": list(made.reasons),
        "headline": headline(made),
        "findings": [_finding(row) for row in made.findings],
        "traces": [_trace(r) for r in made.results],
        "missing": [{"host": host, "stream": stream} for host, stream in made.missing],
        "checks": [
            {
                "code": s.code,
                "name": s.name,
                "decided": s.decided,
                "undecided": s.undecided,
                "undecided_share": round(s.undecided_share, 6),
                "undecided_share_before": _rounded(before.get(s.code)),
                "traces": s.traces,
                "not_checked": s.not_checked,
                "reasons": dict(s.reasons),
            }
            for s in made.shares
        ],
        "versions": [
            {
                "kernel": v.kernel,
                "qemu": v.qemu,
                "traces": v.traces,
                "violated": v.violated,
                "errors": v.errors,
                "warnings": v.warnings,
                "new": v.new,
                "decided": v.decided,
                "undecided": v.undecided,
            }
            for v in versions(made)
        ],
        "trend": [
            {
                "night": row.night,
                "traces": row.traces,
                "bad": row.bad,
                "errors": row.errors,
                "warnings": row.warnings,
                "notes": row.notes,
                "undecided_share": round(row.undecided_share, 6),
            }
            for row in trend(made)
        ],
        "ignore": {
            "expired": [
                {"rule": str(rule), "reason": rule.reason, "until": str(rule.until), "covers": n}
                for rule, n in made.expired
            ],
            "unused": [{"rule": str(rule), "reason": rule.reason} for rule in made.unused],
        },
    }
    return json.dumps(document, indent=1) + "\n"


def render_markdown(made: Audited) -> str:
    """A summary for a chat or an issue: what changed, and what fails the audit."""
    verdict = "fails" if made.reasons else "passes"
    parts = [
        f"## {escaped(made.config.name)} {made.night}: {verdict}",
        escaped(headline(made)),
        "\n".join(f"- {escaped(reason)}" for reason in made.reasons),
    ]
    for state, title in (
        (State.NEW, "New"),
        (State.FLAPPING, "Flapping"),
        (State.GONE, "Gone"),
        (State.UNJUDGED, "From before, and could not be judged tonight"),
        (State.STILL, "Still there"),
    ):
        rows = [r for r in made.findings if r.state is state and r.ignored is None]
        if rows:
            parts += [f"### {title} ({len(rows):,})", "\n".join(_table(rows))]
    if made.bad:
        lines = [
            f"- {code_span(_one_line(f'{r.host} {r.stream}'))}: {escaped(_one_line(r.error or ''))}"
            for r in made.bad[:_MOST_ROWS]
        ]
        parts += [f"### Traces that could not be judged ({len(made.bad):,})", "\n".join(lines)]
    if made.missing:
        lines = [f"- {code_span(_one_line(f'{h} {s}'))}" for h, s in made.missing[:_MOST_ROWS]]
        parts += [f"### Streams without a trace ({len(made.missing):,})", "\n".join(lines)]
    moved = list(_moved(made))
    if moved:
        parts += ["### What could not be judged", "\n".join(moved)]
    said = ignore_lines(made)
    if said:
        parts += ["### Ignore rules", "\n".join(f"- {escaped(line)}" for line in said)]
    return "\n\n".join(p for p in parts if p) + "\n"


def render_metrics(made: Audited) -> str:
    """Prometheus' text format, for node_exporter's textfile collector."""
    night = datetime.fromisoformat(made.night).replace(tzinfo=UTC)
    found = Counter(
        (r.finding.code, r.finding.severity.value, r.state.value)
        for r in made.findings
        if r.ignored is None
    )
    told = Counter(s.verdict for s in streams(made))
    status = Counter(r.status for r in made.results)
    lines: list[str] = []

    def metric(name: str, help: str, values: Iterator[tuple[dict[str, str], float]]) -> None:
        lines.append(f"# HELP tracekit_audit_{name} {help}")
        lines.append(f"# TYPE tracekit_audit_{name} gauge")
        for labels, value in values:
            every = {"audit": made.config.name, **labels}
            said = ",".join(f'{k}="{_label(v)}"' for k, v in every.items())
            lines.append(f"tracekit_audit_{name}{{{said}}} {value:.10g}")

    metric(
        "night_timestamp_seconds", "Start of the audited night, UTC.",
        iter([({}, night.timestamp())]),
    )  # fmt: skip
    metric("failed", "1 if the audit fails.", iter([({}, float(bool(made.reasons)))]))
    metric(
        "traces", "Traces, by whether they could be judged.",
        (({"status": s.value}, status[s]) for s in Status),
    )  # fmt: skip
    verdicts = ("violated", "bad", "missing", "not_checked", "held")
    metric(
        "streams", "Streams, by verdict; missing: no trace tonight.",
        (({"verdict": v}, told[v]) for v in verdicts),
    )  # fmt: skip
    metric(
        "findings", "Findings that no rule ignores, by what became of them.",
        (
            ({"code": code, "severity": severity, "state": state}, count)
            for (code, severity, state), count in sorted(found.items())
        ),
    )  # fmt: skip
    ignored = sum(r.ignored is not None and r.state.is_there for r in made.findings)
    metric("ignored_findings", "Findings that a rule ignores.", iter([({}, ignored)]))
    metric("decided", "What a check judged.", (({"code": s.code}, s.decided) for s in made.shares))
    metric(
        "undecided", "What a check could not judge.",
        (({"code": s.code}, s.undecided) for s in made.shares),
    )  # fmt: skip
    metric("events", "Events replayed.", iter([({}, sum(r.events for r in made.results))]))
    metric(
        "lost_events", "Events that recordings lost.",
        iter([({}, sum(r.lost_events for r in made.results))]),
    )  # fmt: skip
    return "\n".join(lines) + "\n"


def render_text(made: Audited) -> str:
    """The last lines of a run."""
    lines = [f"audit {made.night}: {visible(headline(made))}"]
    for row in made.failing[:_MOST_LINES]:
        f = row.finding
        where = visible(f"{row.host} {row.stream}", 40)
        lines.append(
            f"  {row.state.value:8} {f.severity.value}[{f.code}] {where}: {visible(f.title)}"
        )
    left = len(made.failing) - _MOST_LINES
    if left > 0:
        lines.append(f"  and {left:,} more")
    for bad in made.bad[:_MOST_LINES]:
        where = visible(f"{bad.host} {bad.stream}", 40)
        lines.append(f"  {bad.status.value:8} {where}: {visible(bad.error or '', 160)}")
    if len(made.bad) > _MOST_LINES:
        lines.append(f"  and {len(made.bad) - _MOST_LINES:,} more that could not be judged")
    lines += [f"  missing  {visible(f'{h} {s}', 60)}" for h, s in made.missing[:_MOST_LINES]]
    if len(made.missing) > _MOST_LINES:
        lines.append(f"  and {len(made.missing) - _MOST_LINES:,} more that are missing")
    lines += [f"  ignore rule {visible(line)}" for line in ignore_lines(made)]
    lines += [f"fails: {visible(reason)}" for reason in made.reasons]
    if bytes_line(made):
        lines.append(bytes_line(made))
    kept = len(made.results) - made.redone
    lines.append(f"{plural(made.redone, 'trace')} judged, {kept:,} kept from before")
    return "\n".join(lines) + "\n"


def _finding(row: Compared) -> dict[str, Any]:
    f = row.finding
    return {
        "host": row.host,
        "stream": row.stream,
        "id": f.id,
        "code": f.code,
        "name": f.name,
        "severity": f.severity.value,
        "confidence": f.confidence.value,
        "state": row.state.value,
        "first_seen": row.first_seen,
        "last_seen": row.last_seen,
        "count": f.count,
        "title": f.title,
        "vm": f.vm,
        "device": f.device,
        "cause": f.cause,
        "kernel": row.kernel,
        "qemu": row.qemu,
        "ignored": row.ignored,
        "report": row.report,
    }


def _trace(r: TraceResult) -> dict[str, Any]:
    verdicts = Counter(row.verdict for row in r.checks)
    return {
        "host": r.host,
        "stream": r.stream,
        "trace": r.trace,
        "status": r.status.value,
        "error": r.error,
        "size": r.size,
        "bytes_read": r.bytes_read,
        "events": r.events,
        "lost_events": r.lost_events,
        "kernel": r.kernel,
        "qemu": r.qemu,
        "since": r.since,
        "verdicts": {v.value: verdicts[v] for v in Verdict},
        "decided": sum(row.decided for row in r.checks),
        "undecided": sum(row.undecided for row in r.checks),
        "report": r.report,
        "notes": list(r.notes),
    }


def _table(rows: list[Compared]) -> Iterator[str]:
    yield "| | finding | where | kernel, QEMU | times | first seen | last seen |"
    yield "|---|---|---|---|---:|---|---|"
    for row in rows[:_MOST_ROWS]:
        f = row.finding
        version = ", ".join(v for v in (row.kernel, row.qemu) if v)
        yield (
            f"| {f.severity.value} {f.code} | {escaped(f.title)} |"
            f" {code_span(_one_line(f'{row.host} {row.stream}'))} |"
            f" {code_span(_one_line(version)) if version else ''} | {f.count:,} |"
            f" {row.first_seen} | {row.last_seen} |"
        )
    if len(rows) > _MOST_ROWS:
        yield f"| | and {len(rows) - _MOST_ROWS:,} more | | | | | |"


def _moved(made: Audited) -> Iterator[str]:
    """Checks that left something undecided, tonight or on the night before."""
    before = shares_before(made)
    for share in made.shares:
        now, then = share.undecided_share, before.get(share.code)
        if now or then:
            was = "" if then is None else f", {then:.1%} on the night before"
            yield (
                f"- {share.code} {share.name}: {share.undecided:,} of"
                f" {share.decided + share.undecided:,} ({now:.1%}{was})"
            )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def _one_line(text: str) -> str:
    return visible(" ".join(text.split()), 200)


def _label(text: str) -> str:
    return visible(text).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
