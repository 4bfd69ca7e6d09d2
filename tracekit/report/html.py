"""The page that people open: one file, nothing fetched, readable without its script too.

Text from a trace reaches the page through Jinja's automatic escaping or as JSON without ``<``.
The page's own policy (CSP) lets only the scripts run whose hashes it names, and nothing be
fetched, so that even markup that got through would do nothing.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
from typing import Any

from markupsafe import Markup

from tracekit import __version__
from tracekit.findings import Finding, ReplayResult, Severity, Verdict
from tracekit.report.chart_data import (
    chart_data,
    entries_summary,
    marks_summary,
    memory_summary,
    rate_charts,
    rates_summary,
)
from tracekit.report.escape import visible
from tracekit.report.figures import memory_figure, socket_figure, timeline_figure
from tracekit.report.footer import footer, reason_text
from tracekit.report.gathered import Gathered
from tracekit.report.inlined import asset, content_hash, template
from tracekit.report.page import CheckPage
from tracekit.report.sockets import SocketLife
from tracekit.report.telling import (
    again,
    event_at,
    facts,
    in_reading_order,
    place,
    steps,
    sureness,
    vsock_address,
)
from tracekit.report.units import extent, length_of_time, moment, plural

__all__ = ("render_html",)

_MOST_FINDINGS = 200
_MOST_FIGURES = 60
_SCRIPTS = (
    "vendor/jquery/jquery.min.js",
    "vendor/datatables.net/dataTables.min.js",
    "vendor/uplot/uPlot.iife.min.js",
    "report.js",
)
_STYLES = ("vendor/uplot/uPlot.min.css", "report.css")


def render_html(result: ReplayResult, explained: Mapping[str, CheckPage], found: Gathered) -> str:
    """The whole page.  ``explained``: each check's page, by code."""
    scripts = [asset(name) for name in _SCRIPTS]
    ordered = list(in_reading_order(result.findings))
    return template("report.html.j2").render(
        version=__version__,
        title=visible(result.trace.path.rsplit("/", 1)[-1], 80),
        path=visible(result.trace.path),
        headline=" ".join(footer(result)),
        verdict=_verdict(result),
        tiles=_tiles(result),
        origin=_origin(result, found),
        checks=_checks(result, explained),
        findings=[
            _finding(f, result, explained.get(f.code), with_figure=i < _MOST_FIGURES)
            for i, f in enumerate(islice(ordered, _MOST_FINDINGS))
        ],
        findings_left=max(0, len(ordered) - _MOST_FINDINGS),
        memory=[memory_summary(p, found) for p in found.sampled.pictures],
        more_memory=found.sampled.more_pictures,
        entries=entries_summary(found) if found.sampled.entries else "",
        marks=marks_summary(result),
        rates=[(title, rates_summary(found, names)) for title, names in rate_charts(found)],
        losses=_losses(found),
        more_losses=found.survey.more_losses,
        sockets=_sockets(found.sockets),
        sockets_left=found.sockets_all - len(found.sockets),
        doubts=[visible(d) for d in found.doubts],
        data=chart_data(result, found),
        scripts=[Markup(s) for s in scripts],
        hashes=[content_hash(s) for s in scripts],
        styles=[Markup(asset(name)) for name in _STYLES],
    )


def _verdict(result: ReplayResult) -> str:
    if any(o.verdict is Verdict.VIOLATED for o in result.outcomes):
        return "violated"
    # Green would say more than was looked at.
    return "held" if all(o.verdict is Verdict.HELD for o in result.outcomes) else "not_checked"


def _tiles(result: ReplayResult) -> list[tuple[str, int, str]]:
    """Class, number and words of the counts on top."""
    worst = [(s.value, sum(f.severity is s for f in result.findings)) for s in Severity]
    found = [(kind, n, kind if n == 1 else f"{kind}s") for kind, n in worst]
    held = sum(o.verdict is Verdict.HELD for o in result.outcomes)
    unsure = sum(o.verdict is Verdict.NOT_CHECKED for o in result.outcomes)
    held_words = "check held" if held == 1 else "checks held"
    return [*found, ("held", held, held_words), ("not_checked", unsure, "not checked")]


def _origin(result: ReplayResult, found: Gathered) -> list[tuple[str, str]]:
    m = found.manifest
    first, last = result.trace.span_ns
    lost = f"{m.lost_events:,}" + (" or more" if m.lost_unknown else "")
    return [
        ("host", visible(m.host, 60) if m.host else "not said"),
        ("kernel", visible(m.kernel, 60) if m.kernel else "not said"),
        ("clock", visible(m.clock, 40)),
        ("span", f"{length_of_time(last - first)} from {moment(first)}"),
        ("events", f"{result.trace.events:,}"),
        ("lost", f"{lost} in {plural(m.loss_marks, 'place')}" if m.loss_marks else lost),
        ("VMs", f"{result.trace.vms:,}"),
        *(
            (
                visible(v.name, 24) if v.name else "not named",
                f"pid {v.pid}: " + ", ".join(f"{n:,} {act}" for act, n in sorted(v.acts.items())),
            )
            for v in found.vmms[:8]
        ),
    ]


def _checks(result: ReplayResult, explained: Mapping[str, CheckPage]) -> list[dict[str, Any]]:
    rows = []
    for o in result.outcomes:
        page = explained.get(o.code)
        counts = {s: sum(f.severity is s for f in o.findings) for s in Severity}
        rows.append(
            {
                "code": o.code,
                "name": o.name,
                "summary": " ".join(page.summary.split()) if page else "",
                "verdict": o.verdict.value,
                "findings": ", ".join(plural(n, s.value) for s, n in counts.items() if n),
                "count": len(o.findings),
                "decided": o.judged.decided,
                "undecided": o.judged.undecided,
                "reasons": "; ".join(
                    reason_text(r) + (f" ({n:,})" if o.judged.undecided else "")
                    for r, n in sorted(o.judged.reasons.items())
                    if n
                )
                or ("nothing to judge" if o.verdict is Verdict.NOT_CHECKED else ""),
            }
        )
    return rows


def _finding(
    finding: Finding, result: ReplayResult, page: CheckPage | None, *, with_figure: bool
) -> dict[str, Any]:
    one = finding.occurrences[0] if finding.occurrences else None
    figure = ""
    if one is not None and with_figure:
        figure = memory_figure(finding, one) or timeline_figure(one)
    chosen, trace = again(finding, result)
    others = [
        {
            "from": moment(o.from_ns),
            "order": o.from_ns,
            "event": event_at(o),
            "where": place(finding, o)[0],
            "lasted": place(finding, o)[1],
            "confidence": o.confidence.value,
        }
        for o in finding.occurrences
    ]
    return {
        "id": finding.id,
        "code": finding.code,
        "name": finding.name,
        "severity": finding.severity.value,
        "confidence": finding.confidence.value,
        "title": visible(finding.title),
        "from": moment(one.from_ns) if one else "",
        "order": one.from_ns if one else 0,
        "count": finding.count,
        "vm": visible(finding.vm.name, 32) if finding.vm.name else "not named",
        "device": visible(finding.device, 40) if finding.device else "",
        "related": list(finding.related),
        "facts": list(facts(finding, one)),
        "steps": list(steps(one)) if one else [],
        "figure": Markup(figure),
        "others": others if len(others) > 1 else [],
        "left": finding.count - len(others),
        "why": " ".join(page.sections["Why it matters"].split()) if page else "",
        "look": " ".join(page.sections["What to look at"].split()) if page else "",
        "sure": list(sureness(finding, result)),
        "again": f"tracekit replay {trace} {chosen}",
    }


def _losses(found: Gathered) -> list[dict[str, Any]]:
    return [
        {
            "from": moment(loss.from_ns),
            "order": loss.from_ns,
            "lasted": length_of_time(loss.until_ns - loss.from_ns),
            "lasted_ns": loss.until_ns - loss.from_ns,
            "count": "not counted" if loss.count is None else f"{loss.count:,}",
            "count_order": -1 if loss.count is None else loss.count,
        }
        for loss in found.survey.losses
    ]


def _sockets(lives: list[SocketLife]) -> list[dict[str, Any]]:
    scale = max((s.waited_ns for s in lives), default=0)
    rows = []
    for s in lives:
        figure = socket_figure(
            waited_ns=s.waited_ns,
            timeout_ns=s.timeout_ns,
            sent_ns=None if s.sent_ns is None else s.sent_ns - s.begun_ns,
            over_ns=None if s.over_ns is None else s.over_ns - s.begun_ns,
            scale_ns=scale,
        )
        lingers = {True: "yes", False: "no", None: "unknown"}[s.lingers]
        rows.append(
            {
                "from": moment(s.begun_ns),
                "order": s.begun_ns,
                "pid": s.pid,
                "local": vsock_address(s.local) if s.local else "?",
                "peer": vsock_address(s.peer) if s.peer else "?",
                "lingers": lingers + (f": {visible(s.why)}" if s.why else ""),
                "limit": length_of_time(s.timeout_ns) if s.timeout_ns else "",
                "limit_ns": s.timeout_ns or 0,
                "waited": length_of_time(s.waited_ns) + (", still" if s.still_waits else ""),
                "waited_ns": s.waited_ns,
                "dropped": extent(s.dropped) if s.dropped else "",
                "dropped_bytes": s.dropped,
                "codes": list(s.codes),
                "figure": Markup(figure),
            }
        )
    return rows
