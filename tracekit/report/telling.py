"""A finding's facts in words, once for every format: who, where, how long, how sure.

Texts are plain and hold nothing that steers a terminal; each format escapes its own markup.
"""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tracekit.findings import Confidence, Finding, Occurrence, ReplayResult
from tracekit.report.escape import visible
from tracekit.report.units import (
    address_range,
    errno_name,
    length_of_time,
    moment,
    pages,
    plural,
)

__all__ = (
    "Step",
    "again",
    "chain_lines",
    "event_at",
    "facts",
    "in_reading_order",
    "lasted",
    "place",
    "steps",
    "sureness",
    "vsock_address",
)

_LASTED = {"TK101": "stale for", "TK102": "stale for", "TK103": "early by"}
_SURE = {
    Confidence.CERTAIN: "certain: broken for every order of events the recording allows",
    Confidence.LIKELY: "likely: broken, unless something the recording does not show followed",
    Confidence.POSSIBLE: "possible: broken for some order of events of equal or unsure time",
}


@dataclass(frozen=True, kw_only=True)
class Step:
    """One line of a chain.  ``never``: the event that did not come."""

    time: str
    number: str
    text: str
    never: bool


def in_reading_order(findings: Sequence[Finding]) -> Iterator[Finding]:
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


def event_at(one: Occurrence) -> int | None:
    """The number of the event at which it began, as far as the chain shows it."""
    for row in one.chain:
        if row.seq is not None and row.ts_ns is not None and row.ts_ns >= one.from_ns:
            return row.seq
    return one.events[0] if one.events else None


def facts(finding: Finding, one: Occurrence | None) -> Iterator[tuple[str, str]]:
    """Names and values of what is known about a finding and its first occurrence."""
    vm = finding.vm
    who = visible(vm.name, 32) if vm.name else "not named"
    details = [f"pid {vm.pid}"] if vm.pid is not None else []
    details += [f"kvm {vm.kvm:#x}"] if vm.kvm is not None else []
    if vm.name or details:
        yield "vm", who + (f" ({', '.join(details)})" if details else "")
    if one is not None:
        if one.gpa is not None and one.size is not None:
            yield "memory", f"{address_range(one.gpa, one.size)}    {pages(one.size)}".rstrip()
        if one.iova is not None and one.size is not None:
            yield "iova", address_range(one.iova, one.size)
        if one.local is not None and one.peer is not None:
            yield "socket", f"{vsock_address(one.local)} to {vsock_address(one.peer)}"
        if one.waited_ns is not None:
            limit = f" of {length_of_time(one.timeout_ns)}" if one.timeout_ns else ""
            limit = ", with no time to linger" if one.timeout_ns == 0 else limit
            yield "waited", length_of_time(one.waited_ns) + limit
        if one.unsent_bytes is not None:
            yield "unsent", plural(one.unsent_bytes, "byte")
    if finding.device is not None:
        yield "device", visible(finding.device, 60)
    if finding.container is not None:
        yield "container", f"{finding.container:#x}"
    if one is not None:
        if one.errno is not None:
            yield "result", errno_name(one.errno)
        time = lasted(one)
        shown = one.waited_ns is None
        if shown and time is not None and (finding.code in _LASTED or one.until_ns is not None):
            yield _LASTED.get(finding.code, "lasted"), time
    if finding.count > 1:
        yield "count", f"{finding.count:,} times, the first is shown"
    yield "finding", finding.id


def lasted(one: Occurrence) -> str | None:
    """How long it was so; nothing for what took no time."""
    if one.until_ns is None:
        return "until the trace ends"
    if one.until_ns <= one.from_ns:
        return None
    return f"{length_of_time(one.until_ns - one.from_ns)}, until {moment(one.until_ns)}"


def vsock_address(address: tuple[int, int]) -> str:
    """``2:1024``; a CID that was never bound is any."""
    return f"{'any' if address[0] == 0xFFFFFFFF else address[0]}:{address[1]}"


def place(finding: Finding, one: Occurrence) -> tuple[str, str]:
    """Where an occurrence was, and how long it lasted where that matters."""
    at = one.gpa if one.gpa is not None else one.iova
    where = address_range(at, one.size) if at is not None and one.size is not None else ""
    if one.local is not None and one.peer is not None:
        where = f"{vsock_address(one.local)} to {vsock_address(one.peer)}"
        if one.waited_ns is not None:
            where += f", {length_of_time(one.waited_ns)}"
    time = lasted(one) if finding.code in _LASTED else None
    return where, "" if time is None else time.split(",")[0]


def steps(one: Occurrence) -> Iterator[Step]:
    """What happened, in order, with the event that never came as a step of its own."""
    for row in one.chain:
        never = row.ts_ns is None
        text = visible(row.text)
        if never and "<--" not in text:
            text += "   <-- never came"
        yield Step(
            time="never" if row.ts_ns is None else moment(row.ts_ns),
            number="" if row.seq is None else f"#{row.seq}",
            text=text,
            never=never,
        )


def chain_lines(one: Occurrence, width: int) -> Iterator[tuple[str, bool]]:
    """The steps as lines of at most ``width`` columns; true for those that never came."""
    told = list(steps(one))
    wide = max((len(s.time) for s in told), default=0)
    wide_number = max((len(s.number) for s in told), default=0)
    for step in told:
        start = f"{step.time:>{wide}}  {step.number:<{wide_number}}  "
        room = max(20, width - len(start))
        lines = textwrap.wrap(step.text, room, subsequent_indent=" " * 9) or [""]
        for i, line in enumerate(lines):
            yield (start if i == 0 else " " * len(start)) + line, step.never


def sureness(finding: Finding, result: ReplayResult) -> Iterator[str]:
    """How sure it is, what was lost, whose clock, and the finding's notes."""
    trace = result.trace
    if finding.code.startswith("TK9"):
        yield f"{finding.confidence.value}: the recording itself says so"
    else:
        yield _SURE[finding.confidence]
    more = " or more" if trace.lost_unknown else ""
    if trace.lost_events:
        yield f"{plural(trace.lost_events, 'event')}{more} lost in the whole trace"
    elif trace.lost_unknown:
        yield "events were lost in this trace, and nobody counted them"
    else:
        yield "no lost events are known in this trace"
    if trace.clock is not None:
        yield f"clock: {visible(trace.clock, 40)}"
    for note in finding.notes:
        yield visible(note)


def again(finding: Finding, result: ReplayResult) -> tuple[str, str]:
    """The options and the trace of the command that shows it again, for a shell."""
    chosen = " ".join(["--only", finding.code, *(shlex.quote(o) for o in result.options)])
    return visible(chosen), visible(shlex.quote(result.trace.path))
