"""An audit's front page: one file that fetches nothing and links to each trace's own report.

Every text from a trace, a folder's name or the configuration goes through Jinja's escaping.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

from markupsafe import Markup

from tracekit import __version__
from tracekit.audit.compare import Compared, Share
from tracekit.audit.config import State
from tracekit.audit.results import Status
from tracekit.audit.run import Audited
from tracekit.audit.summary import (
    Stream,
    TrendRow,
    bytes_line,
    headline,
    ignore_lines,
    shares_before,
    streams,
    trend,
    versions,
)
from tracekit.findings import Severity
from tracekit.report.escape import visible
from tracekit.report.footer import reason_text
from tracekit.report.inlined import asset, content_hash, template

__all__ = ("render_html",)

_MOST_FINDINGS = 500
_MOST_STREAMS = 2000
_MOST_BAD = 200
_PACKAGE = "tracekit.audit"
_SCRIPTS = (
    "vendor/jquery/jquery.min.js",
    "vendor/datatables.net/dataTables.min.js",
    "report.js",
)
_STATES = (State.NEW, State.FLAPPING, State.STILL, State.UNJUDGED, State.GONE)
_LEFT, _TOP, _HEIGHT, _STEP = 40, 10, 120, 34


def render_html(made: Audited, *, up: str = "") -> str:
    """The page.  ``up``: from where it lies to the audit's folder, ``../../`` or nothing."""
    scripts = [asset(name) for name in _SCRIPTS]
    counted = [r for r in made.findings if r.ignored is None]
    there = [r for r in counted if r.state.is_there]
    past = [r for r in counted if not r.state.is_there]
    ignored = [r for r in made.findings if r.ignored is not None and r.state.is_there]
    every = streams(made)
    rows = trend(made)
    return template("audit.html.j2", _PACKAGE).render(
        version=__version__,
        name=visible(made.config.name, 80),
        night=made.night,
        verdict="violated" if made.reasons else "held",
        headline=visible(headline(made)),
        reasons=[visible(r) for r in made.reasons],
        tiles=_tiles(made, there, past, every),
        findings=[_finding(r, up) for r in there[:_MOST_FINDINGS]],
        findings_left=max(0, len(there) - _MOST_FINDINGS),
        past=[_finding(r, up) for r in past[:_MOST_FINDINGS]],
        past_left=max(0, len(past) - _MOST_FINDINGS),
        fleet=[_stream(s, up) for s in every[:_MOST_STREAMS]],
        fleet_left=max(0, len(every) - _MOST_STREAMS),
        read=bytes_line(made),
        bad=[
            {
                "host": visible(r.host, 60),
                "stream": visible(r.stream, 60),
                "status": r.status.value,
                "error": visible(r.error or "", 400),
            }
            for r in made.bad[:_MOST_BAD]
        ],
        bad_left=max(0, len(made.bad) - _MOST_BAD),
        trend=rows,
        bars=Markup(_bars(rows)),
        line=Markup(_line(rows)),
        versions=[
            {
                "kernel": visible(v.kernel, 60) if v.kernel else "not said",
                "qemu": visible(v.qemu, 40) if v.qemu else "not said",
                "traces": v.traces,
                "violated": v.violated,
                "errors": v.errors,
                "warnings": v.warnings,
                "new": v.new,
                **_share(v.decided, v.undecided),
            }
            for v in versions(made)
        ],
        checks=[_check(s, shares_before(made)) for s in made.shares],
        ignored=[
            {**_finding(r, up), "reason": visible(r.ignored or "", 200)}
            for r in ignored[:_MOST_FINDINGS]
        ],
        rules=[visible(line) for line in ignore_lines(made)],
        scripts=[Markup(s) for s in scripts],
        hashes=[content_hash(s) for s in scripts],
        styles=[Markup(asset("report.css")), Markup(asset("audit.css", _PACKAGE))],
    )


def _tiles(
    made: Audited, there: Sequence[Compared], past: Sequence[Compared], every: Sequence[Stream]
) -> list[tuple[str, int, str]]:
    """Class, number and words of the counts on top: errors and warnings."""
    told = [r for r in (*there, *past) if r.finding.severity is not Severity.NOTE]
    states = {s: sum(r.state is s for r in told) for s in _STATES}
    return [
        ("error", sum(s.verdict == "violated" for s in every), "streams violated"),
        ("error", states[State.NEW], "new"),
        ("error", states[State.FLAPPING], "flapping"),
        ("", states[State.STILL], "still there"),
        ("held", states[State.GONE], "gone"),
        ("", states[State.UNJUDGED], "unjudged"),
        ("held", sum(s.verdict == "held" for s in every), "streams held"),
        ("bad", len(made.bad), "bad traces"),
        ("bad", len(made.missing), "missing"),
    ]


def _finding(row: Compared, up: str) -> dict[str, Any]:
    f = row.finding
    return {
        "severity": f.severity.value,
        "rank": f.severity.rank,
        "state": row.state.value,
        "state_rank": _STATES.index(row.state),
        "code": f.code,
        "title": visible(f.title, 160),
        "host": visible(row.host, 60),
        "stream": visible(row.stream, 60),
        "count": f.count,
        "first": row.first_seen,
        "last": row.last_seen,
        "report": f"{_link(row.report, up)}#{f.id}" if row.report else "",
    }


def _stream(s: Stream, up: str) -> dict[str, Any]:
    first = next((t for t in s.traces if t.status is Status.JUDGED), None)
    return {
        "host": visible(s.host, 60),
        "stream": visible(s.stream, 60),
        "verdict": s.verdict,
        "errors": s.count(Severity.ERROR),
        "warnings": s.count(Severity.WARNING),
        "new": s.new,
        "held": s.held,
        "held_of": f"{s.held} of {s.checks}" if s.checks else "",
        "lost": s.lost,
        "kernel": visible(first.kernel, 40) if first and first.kernel else "",
        "qemu": visible(first.qemu, 24) if first and first.qemu else "",
        "reports": [_link(t.report, up) for t in s.traces if t.report],
        **_share(s.decided, s.undecided),
    }


def _share(decided: int, undecided: int) -> dict[str, Any]:
    total = decided + undecided
    share = undecided / total if total else 0.0
    return {"share": f"{share:.1%}" if total else "", "share_order": f"{share:.6f}"}


def _check(share: Share, before: dict[str, float]) -> dict[str, Any]:
    then = before.get(share.code)
    why = [reason_text(r) + (f" ({n:,})" if n > 1 else "") for r, n in share.reasons.items() if n]
    return {
        "code": share.code,
        "name": share.name,
        "decided": share.decided,
        "undecided": share.undecided,
        "before": "" if then is None else f"{then:.1%}",
        "without": f"{share.not_checked:,} of {share.traces:,}",
        "reasons": "; ".join(why),
        **_share(share.decided, share.undecided),
    }


def _link(report: str, up: str) -> str:
    return up + quote(report)


def _bars(rows: Sequence[TrendRow]) -> str:
    """Findings of each night, one bar, errors at the bottom.  Numbers and dates alone."""
    most = max((r.errors + r.warnings + r.notes for r in rows), default=0) or 1
    parts = [*_frame(len(rows), f"{most:,}", "0")]
    for i, row in enumerate(rows):
        x, y = _LEFT + 6 + i * _STEP, float(_TOP + _HEIGHT)
        for kind, count in (("error", row.errors), ("warning", row.warnings), ("note", row.notes)):
            height = _HEIGHT * count / most
            y -= height
            if count:
                parts.append(
                    f'<rect class="k-{kind}" x="{x}" y="{y:.1f}" width="{_STEP - 12}"'
                    f' height="{height:.1f}"><title>{row.night}: {count:,} {kind}s</title></rect>'
                )
    return _svg(parts, rows)


def _line(rows: Sequence[TrendRow]) -> str:
    most = max((r.undecided_share for r in rows), default=0.0) or 0.01
    parts = [*_frame(len(rows), f"{most:.1%}", "0")]
    points = [
        (_LEFT + _STEP // 2 + i * _STEP, _TOP + _HEIGHT * (1 - r.undecided_share / most))
        for i, r in enumerate(rows)
    ]
    path = " ".join(f"{x},{y:.1f}" for x, y in points)
    parts.append(f'<polyline class="share" points="{path}"></polyline>')
    for (x, y), row in zip(points, rows, strict=True):
        parts.append(
            f'<circle class="dot" cx="{x}" cy="{y:.1f}" r="3.5">'
            f"<title>{row.night}: {row.undecided_share:.2%}</title></circle>"
        )
    return _svg(parts, rows)


def _frame(nights: int, top: str, bottom: str) -> list[str]:
    right = _LEFT + nights * _STEP
    return [
        f'<line class="axis" x1="{_LEFT}" x2="{right}" y1="{y}" y2="{y}"></line>'
        f'<text class="small" text-anchor="end" x="{_LEFT - 5}" y="{y + 4}">{text}</text>'
        for y, text in ((_TOP, top), (_TOP + _HEIGHT, bottom))
    ]


def _svg(parts: list[str], rows: Sequence[TrendRow]) -> str:
    width, height = _LEFT + len(rows) * _STEP + 10, _TOP + _HEIGHT + 24
    for i, row in enumerate(rows):
        x = _LEFT + _STEP // 2 + i * _STEP
        parts.append(
            f'<text class="small" text-anchor="middle" x="{x}" y="{_TOP + _HEIGHT + 16}">'
            f"{row.night[5:]}</text>"
        )
    return (
        f'<svg width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img"'
        f' aria-label="one mark a night">{"".join(parts)}</svg>'
    )
