"""The report for people: what happened, drawn, why it matters and where to look.  80 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from itertools import islice

from tracekit.findings import Finding, ReplayResult, Severity
from tracekit.report.drawing import draw
from tracekit.report.escape import visible
from tracekit.report.footer import footer
from tracekit.report.page import CheckPage
from tracekit.report.paint import Paint
from tracekit.report.telling import (
    again,
    chain_lines,
    event_at,
    facts,
    in_reading_order,
    place,
    sureness,
)
from tracekit.report.units import moment, plural

__all__ = ("finding_text", "left_out", "render_terminal")

_WIDTH = 80
_MORE_SHOWN = 4


def render_terminal(
    result: ReplayResult,
    explained: Mapping[str, CheckPage],
    *,
    colour: bool = False,
    limit: int | None = None,
) -> str:
    """The whole report.  ``explained``: each check's page, by code; ``limit``: findings shown."""
    paint = Paint(colour=colour)
    blocks: list[str] = []
    said: set[str] = set()
    for finding in islice(in_reading_order(result.findings), limit):
        page = explained.get(finding.code)
        first_time = finding.code not in said
        said.add(finding.code)
        lines = _block(finding, result, page if first_time else None, first_time, paint)
        blocks.append("\n".join(line.rstrip() for line in lines))
    blocks += left_out(result, limit)
    blocks.append("\n".join(footer(result)))
    return "\n\n".join(blocks) + "\n"


def finding_text(finding: Finding, result: ReplayResult, page: CheckPage | None) -> str:
    """One finding as the report shows it, without colour."""
    lines = _block(finding, result, page, True, Paint(colour=False))
    return "\n".join(line.rstrip() for line in lines)


def left_out(result: ReplayResult, limit: int | None) -> list[str]:
    """What ``--limit`` keeps from a reader, in one sentence; nothing if that is nothing."""
    hidden = list(in_reading_order(result.findings))[limit:] if limit is not None else []
    if not hidden:
        return []
    counts = {s: sum(f.severity is s for f in hidden) for s in Severity}
    said = ", ".join(plural(n, s.value) for s, n in counts.items() if n)
    return [f"not shown because of --limit {limit}: {said}"]


def _block(
    finding: Finding,
    result: ReplayResult,
    page: CheckPage | None,
    first_time: bool,
    paint: Paint,
) -> Iterator[str]:
    head = f"{finding.severity.value}[{finding.code}]"
    title = textwrap.wrap(f"{head}: {visible(finding.title)}", _WIDTH, subsequent_indent="  ")
    yield paint.severity(finding.severity, head) + paint.strong(title[0][len(head) :])
    yield from (paint.strong(line) for line in title[1:])
    path = result.trace.path
    one = finding.occurrences[0] if finding.occurrences else None
    where = ""
    if one is not None:
        number = event_at(one)
        where = "" if number is None else f", event #{number}"
        where += f", {moment(one.from_ns)}"
    yield f"  --> {visible(path, _WIDTH - 6 - len(where))}{where}"
    yield ""
    for name, text in facts(finding, one):
        yield f"  {name:<10} {text}"
    if one is not None and one.chain and finding.severity is not Severity.NOTE:
        yield ""
        yield "  what happened"
        for line, never in chain_lines(one, _WIDTH - 4):
            yield paint.missing("    " + line) if never else "    " + line
        picture = draw(finding, one)
        if picture:
            yield ""
            yield "  " + picture[0]
            yield from ("  " + line for line in picture[1:])
    if len(finding.occurrences) > 1:
        yield ""
        yield from _others(finding)
    if page is not None and finding.severity is not Severity.NOTE:
        yield ""
        yield "  why it matters"
        yield from _indented(page.sections["Why it matters"])
    if finding.severity is not Severity.NOTE or finding.notes:
        yield ""
        yield "  how sure"
        for said in sureness(finding, result):
            yield from textwrap.wrap(
                said, _WIDTH, initial_indent="    ", subsequent_indent="      "
            )
    if page is not None and finding.severity is not Severity.NOTE:
        yield ""
        yield "  look at"
        yield from _indented(page.sections["What to look at"])
    if first_time:
        yield ""
        yield f"  help: tracekit explain {finding.code}"
        chosen, trace = again(finding, result)
        line = f"  again: tracekit replay {trace} {chosen}"
        if len(line) <= _WIDTH:
            yield line
        else:
            yield f"  again: tracekit replay {chosen} \\"
            yield f"    {trace}"


def _others(finding: Finding) -> Iterator[str]:
    others = finding.occurrences[1:]
    yield "  also"
    for one in others[:_MORE_SHOWN]:
        where, time = place(finding, one)
        at_event = event_at(one)
        number = "" if at_event is None else f"#{at_event}"
        text = f"    {moment(one.from_ns)}  {number:<9} {where}"
        extra = f"  {time}" if time else ""
        yield text + (extra if len(text) + len(extra) <= _WIDTH else "")
    left = finding.count - 1 - min(len(others), _MORE_SHOWN)
    if left > 0:
        yield f"    and {left:,} more; --format json lists the first {len(finding.occurrences)}"


def _indented(text: str) -> Iterator[str]:
    for paragraph in text.split("\n\n"):
        yield from textwrap.wrap(
            visible(" ".join(paragraph.split())),
            _WIDTH,
            initial_indent="    ",
            subsequent_indent="    ",
            break_on_hyphens=False,
        )
