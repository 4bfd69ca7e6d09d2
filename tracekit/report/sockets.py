"""The lives of a trace's vsock sockets around their close(), for tables and timelines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from replay.linger.closing import Closing, Kind
from replay.linger.run import judge_lingering
from tracekit.findings import Finding
from tracekit.report.footer import reason_text
from tracekit.store import Trace

__all__ = ("MOST_SHOWN", "SocketLife", "socket_lives")

MOST_SHOWN = 500


@dataclass(frozen=True, kw_only=True)
class SocketLife:
    """One socket's close.  Times in ns; null: not known, or it never came.

    ``why``: why it did not linger, or why nobody knows whether it did.  ``codes``: what was found
    about it.
    """

    local: tuple[int, int] | None
    peer: tuple[int, int] | None
    pid: int
    lingers: bool | None
    why: str
    timeout_ns: int | None
    begun_ns: int
    waited_ns: int
    still_waits: bool
    sent_ns: int | None
    over_ns: int | None
    bytes: int
    dropped: int
    codes: tuple[str, ...] = ()


def socket_lives(
    trace: Trace,
    findings: Sequence[Finding],
    *,
    model: str | None = None,
    slack_ns: int | None = None,
) -> tuple[list[SocketLife], int]:
    """The sockets that say most, by time, and how many there are in all.

    Those that something was found about come first into the choice, then those that waited
    longest.

    :raises TraceFormatError: the trace breaks off or is damaged
    """
    if not any(n and e.startswith("vsock.") for e, n in trace.manifest.events.items()):
        return [], 0
    codes: dict[tuple[object, ...], set[str]] = {}
    for finding in findings:
        for one in finding.occurrences:
            if one.local is not None or one.peer is not None:
                codes.setdefault((one.local, one.peer, one.from_ns), set()).add(finding.code)
    closings: list[Closing] = []
    judge_lingering(trace, model=model, slack_ns=slack_ns, each=closings.append)
    closes = sorted(
        (c for c in closings if c.kind in (Kind.CLOSE, Kind.BARE)), key=lambda c: c.begun
    )
    lives = [_life(c, codes.get((c.local, c.peer, c.begun), set())) for c in closes]
    chosen = sorted(lives, key=lambda s: (not s.codes, -s.waited_ns))[:MOST_SHOWN]
    return sorted(chosen, key=lambda s: s.begun_ns), len(lives)


def _life(closing: Closing, codes: set[str]) -> SocketLife:
    unknown = reason_text(closing.why_unknown) if closing.why_unknown else ""
    why = closing.why_not if closing.may_linger is False else unknown
    return SocketLife(
        local=closing.local,
        peer=closing.peer,
        pid=closing.pid or closing.tid,
        lingers=closing.may_linger,
        why=why,
        timeout_ns=closing.timeout_ns,
        begun_ns=closing.begun,
        waited_ns=closing.waited_ns,
        still_waits=closing.is_open,
        sent_ns=closing.sent_ns,
        over_ns=closing.died_ns,
        bytes=closing.bytes,
        dropped=closing.thrown_away or max(closing.unsent_at_end or 0, 0),
        codes=tuple(sorted(codes)),
    )
