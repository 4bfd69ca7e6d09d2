"""The report for people: what happened, drawn, why it matters and where to look.  80 columns."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Iterator, Mapping, Sequence

from tracekit.findings import Confidence, Finding, Occurrence, ReplayResult, Severity
from tracekit.report.drawing import draw
from tracekit.report.escape import visible
from tracekit.report.footer import footer
from tracekit.report.page import CheckPage
from tracekit.report.paint import Paint
from tracekit.report.units import (
    address_range,
    errno_name,
    length_of_time,
    moment,
    pages,
    plural,
)

__all__ = ("render_terminal",)

_WIDTH = 80
_MORE_SHOWN = 4
_LASTED = {"TK101": "stale for", "TK102": "stale for", "TK103": "early by"}
_SURE = {
    Confidence.CERTAIN: "certain: broken for every order of events the recording allows",
    Confidence.LIKELY: "likely: broken, unless something the recording does not show followed",
    Confidence.POSSIBLE: "possible: broken for some order of events of equal or unsure time",
}


def render_terminal(
    result: ReplayResult, explained: Mapping[str, CheckPage], *, colour: bool = False
) -> str:
    """The whole report.  ``explained``: each check's page, by code."""
    paint = Paint(colour=colour)
    blocks: list[str] = []
    said: set[str] = set()
    for finding in _in_reading_order(result.findings):
        page = explained.get(finding.code)
        first_time = finding.code not in said
        said.add(finding.code)
        lines = _block(finding, result, page if first_time else None, first_time, paint)
        blocks.append("\n".join(line.rstrip() for line in lines))
    blocks.append("\n".join(footer(result)))
    return "\n\n".join(blocks) + "\n"


def _in_reading_order(findings: Sequence[Finding]) -> Iterator[Finding]:
    """Worst first; a finding that belongs to a worse or earlier one follows it."""
    place = {f.id: i for i, f in enumerate(findings)}
    below: dict[str, list[Finding]] = {}
    roots = []
    for i, finding in enumerate(findings):
        above = [r for r in finding.related if place.get(r, i) < i]
        if above:
            below.setdefault(above[0], []).append(finding)
        else:
            roots.append(finding)
    waiting = roots[::-1]
    while waiting:
        finding = waiting.pop()
        yield finding
        waiting.extend(below.get(finding.id, [])[::-1])


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
        number = _event_at(one)
        where = "" if number is None else f", event #{number}"
        where += f", {moment(one.from_ns)}"
    yield f"  --> {visible(path, _WIDTH - 6 - len(where))}{where}"
    yield ""
    yield from _facts(finding, one)
    if one is not None and one.chain and finding.severity is not Severity.NOTE:
        yield ""
        yield "  what happened"
        yield from _chain(one, paint)
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
        yield from _sureness(finding, result)
    if page is not None and finding.severity is not Severity.NOTE:
        yield ""
        yield "  look at"
        yield from _indented(page.sections["What to look at"])
    if first_time:
        yield ""
        yield f"  help: tracekit explain {finding.code}"
        chosen = " ".join(["--only", finding.code, *(shlex.quote(o) for o in result.options)])
        again = f"  again: tracekit replay {visible(shlex.quote(path))} {chosen}"
        if len(again) <= _WIDTH:
            yield again
        else:
            yield f"  again: tracekit replay {chosen} \\"
            yield f"    {visible(shlex.quote(path))}"


def _event_at(one: Occurrence) -> int | None:
    """The number of the event at which it began, as far as the chain shows it."""
    for row in one.chain:
        if row.seq is not None and row.ts_ns is not None and row.ts_ns >= one.from_ns:
            return row.seq
    return one.events[0] if one.events else None


def _facts(finding: Finding, one: Occurrence | None) -> Iterator[str]:
    vm = finding.vm
    who = visible(vm.name, 32) if vm.name else "not named"
    details = [f"pid {vm.pid}"] if vm.pid is not None else []
    details += [f"kvm {vm.kvm:#x}"] if vm.kvm is not None else []
    facts = [("vm", who + (f" ({', '.join(details)})" if details else ""))]
    if one is not None:
        if one.gpa is not None and one.size is not None:
            facts.append(("memory", f"{address_range(one.gpa, one.size)}    {pages(one.size)}"))
        if one.iova is not None and one.size is not None:
            facts.append(("iova", address_range(one.iova, one.size)))
        if one.local is not None and one.peer is not None:
            facts.append(("socket", f"{_vsock(one.local)} to {_vsock(one.peer)}"))
        if one.waited_ns is not None:
            limit = "" if one.timeout_ns is None else f" of {length_of_time(one.timeout_ns)}"
            facts.append(("waited", length_of_time(one.waited_ns) + limit))
        if one.unsent_bytes is not None:
            facts.append(("unsent", plural(one.unsent_bytes, "byte")))
    if finding.device is not None:
        facts.append(("device", visible(finding.device, 60)))
    if finding.container is not None:
        facts.append(("container", f"{finding.container:#x}"))
    if one is not None:
        if one.errno is not None:
            facts.append(("result", errno_name(one.errno)))
        lasted = _lasted(one)
        shown = one.waited_ns is None
        if shown and lasted is not None and (finding.code in _LASTED or one.until_ns is not None):
            facts.append((_LASTED.get(finding.code, "lasted"), lasted))
    if finding.count > 1:
        facts.append(("count", f"{finding.count:,} times, the first is shown"))
    for name, text in facts:
        yield f"  {name:<10} {text}"


def _lasted(one: Occurrence) -> str | None:
    if one.until_ns is None:
        return "until the trace ends"
    if one.until_ns <= one.from_ns:
        return None
    return f"{length_of_time(one.until_ns - one.from_ns)}, until {moment(one.until_ns)}"


def _vsock(address: tuple[int, int]) -> str:
    """``2:1024``; a CID that was never bound is any."""
    return f"{'any' if address[0] == 0xFFFFFFFF else address[0]}:{address[1]}"


def _chain(one: Occurrence, paint: Paint) -> Iterator[str]:
    times = [moment(r.ts_ns) if r.ts_ns is not None else "never" for r in one.chain]
    numbers = [f"#{r.seq}" if r.seq is not None else "" for r in one.chain]
    wide, wide_number = max(map(len, times)), max(map(len, numbers))
    for row, time, number in zip(one.chain, times, numbers, strict=True):
        start = f"    {time:>{wide}}  {number:<{wide_number}}  "
        text = visible(row.text)
        if row.ts_ns is None and "<--" not in text:
            text += "   <-- never came"
        room = max(20, _WIDTH - len(start))
        lines = textwrap.wrap(text, room, subsequent_indent=" " * 9) or [""]
        for i, line in enumerate(lines):
            shown = (start if i == 0 else " " * len(start)) + line
            yield paint.missing(shown) if row.ts_ns is None else shown


def _others(finding: Finding) -> Iterator[str]:
    others = finding.occurrences[1:]
    yield "  also"
    for one in others[:_MORE_SHOWN]:
        at = one.gpa if one.gpa is not None else one.iova
        place = address_range(at, one.size) if at is not None and one.size is not None else ""
        if one.local is not None and one.peer is not None:
            place = f"{_vsock(one.local)} to {_vsock(one.peer)}"
            if one.waited_ns is not None:
                place += f", {length_of_time(one.waited_ns)}"
        at_event = _event_at(one)
        number = "" if at_event is None else f"#{at_event}"
        lasted = _lasted(one) if finding.code in _LASTED else None
        text = f"    {moment(one.from_ns)}  {number:<9} {place}"
        extra = "" if lasted is None else f"  {lasted.split(',')[0]}"
        yield text + (extra if len(text) + len(extra) <= _WIDTH else "")
    left = finding.count - 1 - min(len(others), _MORE_SHOWN)
    if left > 0:
        yield f"    and {left:,} more; --format json lists the first {len(finding.occurrences)}"


def _sureness(finding: Finding, result: ReplayResult) -> Iterator[str]:
    trace = result.trace
    yield "  how sure"
    lines = [_SURE[finding.confidence]]
    lines.append(
        f"{plural(trace.lost_events, 'event')} lost in the whole trace"
        if trace.lost_events
        else "no lost events are known in this trace"
    )
    if trace.clock is not None:
        lines.append(f"clock: {visible(trace.clock, 40)}")
    lines += [visible(note) for note in finding.notes]
    for line in lines:
        yield from textwrap.wrap(line, _WIDTH, initial_indent="    ", subsequent_indent="      ")


def _indented(text: str) -> Iterator[str]:
    for paragraph in text.split("\n\n"):
        yield from textwrap.wrap(
            visible(" ".join(paragraph.split())),
            _WIDTH,
            initial_indent="    ",
            subsequent_indent="    ",
            break_on_hyphens=False,
        )
