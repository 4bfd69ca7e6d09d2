"""Breaches of lingering as findings: one a cause, with the socket's life as its chain."""

from __future__ import annotations

from collections.abc import Iterator

from replay.checks.violations import Violations
from replay.linger.closing import Closing, Kind
from replay.linger.judge import Breach
from tracekit.events.vsock import (
    VsockHypervRelease,
    VsockLinger,
    VsockPacketAllocated,
    VsockPacketReceived,
    VsockRelease,
    VsockTransportRelease,
    VsockVmciRelease,
)
from tracekit.findings import (
    Confidence,
    EvidenceRow,
    Finding,
    Judged,
    Occurrence,
    VmRef,
    finding_id,
)

__all__ = ("VSOCK_EVENTS", "judged_sockets", "socket_findings")

VSOCK_EVENTS = (
    VsockRelease,
    VsockTransportRelease,
    VsockLinger,
    VsockPacketAllocated,
    VsockPacketReceived,
    VsockHypervRelease,
    VsockVmciRelease,
)
"""Without any of them nothing is said of vsock."""
_SHOWN = 100
_SAID = {
    "begin": "the connection begins",
    "option": "setsockopt(SO_LINGER)",
    "data": "last data sent",
    "enter": "close() begins",
    "shutdown": "the closing packet is sent",
    "linger": "vsock_linger() begins",
    "sent": "everything is handed over",
    "done": "the peer is done",
    "lingered": "vsock_linger() returns",
    "leave": "close() returns",
    "reset_in": "the peer's reset comes",
    "reset_out": "a reset is sent",
}


def socket_findings(violations: Violations, code: str, name: str) -> Iterator[Finding]:
    """The findings of one code: sockets that one program's process broke in one way."""
    if violations.linger is None:
        return
    groups: dict[tuple[str, str, str], list[Breach]] = {}
    for one in violations.linger.of_code(code):
        who = violations.comms.get(one.closing.tid) or ""
        groups.setdefault((one.cause, one.severity.value, who), []).append(one)
    for (cause, _, who), breaches in groups.items():
        first = breaches[0]
        closing = first.closing
        confidence = max((b.confidence for b in breaches), key=list(Confidence).index)
        several = f"{len(breaches):,} sockets: " if len(breaches) > 1 else ""
        yield Finding(
            id=finding_id(code, (violations.host or "", who, cause, first.severity.value)),
            code=code,
            name=name,
            severity=first.severity,
            confidence=confidence,
            title=several + first.what,
            vm=VmRef(name=who or None, pid=closing.pid or closing.tid),
            container=None,
            device=None,
            count=len(breaches),
            occurrences=tuple(_occurrence(b) for b in breaches[:_SHOWN]),
            cause=cause,
            notes=first.notes,
        )


def judged_sockets(violations: Violations, code: str) -> Judged:
    """How many sockets of the trace could be judged."""
    if violations.linger is None:
        return Judged(reasons={"no_event:vsock": 1})
    return violations.linger.judged[code]


def _occurrence(one: Breach) -> Occurrence:
    closing = one.closing
    waits = closing.kind in (Kind.CLOSE, Kind.BARE, Kind.SHUTDOWN)
    return Occurrence(
        iova=None,
        gpa=None,
        size=None,
        from_ns=closing.begun,
        until_ns=None if closing.is_open and waits else closing.ended,
        events=tuple(sorted({seq for _, seq in closing.moments.values()})),
        confidence=one.confidence,
        chain=tuple(_chain(closing)),
        local=closing.local,
        peer=closing.peer,
        waited_ns=closing.waited_ns if waits else None,
        timeout_ns=closing.timeout_ns,
        unsent_bytes=one.unsent,
    )


def _chain(closing: Closing) -> Iterator[EvidenceRow]:
    call = "shutdown()" if closing.kind is Kind.SHUTDOWN else "close()"
    packet = closing.kind not in (Kind.CLOSE, Kind.BARE, Kind.SHUTDOWN)
    last: tuple[int, int] | None = None
    for name, (ts, seq) in sorted(closing.moments.items(), key=lambda m: m[1]):
        if packet and (ts, seq) == last:
            continue
        last = (ts, seq)
        text = "the packet" if packet else _SAID[name].replace("close()", call)
        yield EvidenceRow(ts_ns=ts, seq=seq, what=name, text=text)
    if not packet and closing.is_open:
        yield EvidenceRow(ts_ns=None, seq=None, what="leave", text=f"{call} returns")
