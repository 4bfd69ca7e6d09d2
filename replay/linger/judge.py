"""The socket engine's records against a model of lingering: which promise was not kept.

docs/judging.md, section 9.  What is not known is undecided, with its reason; an error is certain.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from replay.linger.closing import Closing, Kind, Timing
from replay.linger.models import LingerModel
from replay.models.vsock_sock import VsockSock, WaitsFor
from tracekit.findings import Confidence, Judged, Severity

__all__ = ("CODES", "Breach", "Judge", "Lingering", "Recorded")

CODES = ("TK301", "TK302", "TK303", "TK304", "TK305", "TK306")
MS = 1_000_000
CLOSE_TIMEOUT = 8_000 * MS
"""VSOCK_CLOSE_TIMEOUT; it begins where lingering ends."""
_ERROR, _WARNING, _NOTE = Severity.ERROR, Severity.WARNING, Severity.NOTE


@dataclass(frozen=True, kw_only=True)
class Breach:
    """One rule broken by one socket.  ``cause``: the same on every night; ``what``: a title."""

    code: str
    rule: str
    closing: Closing
    severity: Severity
    confidence: Confidence
    cause: str
    what: str
    unsent: int | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """What the recording could have shown."""

    signals: bool
    sent: bool
    received: bool
    allocated: bool
    ends: bool
    """The moment of SOCK_DONE: the probe on do_close, or packets."""
    comparable_clocks: bool = True


@dataclass
class Lingering:
    """What a trace says of its sockets' lingering.  ``model`` null: unknown which one it has.

    ``disagreements``: of two sources of one fact, by name.
    """

    model: str | None
    breaches: list[Breach] = field(default_factory=list)
    judged: dict[str, Judged] = field(default_factory=dict)
    events: bool = True
    disagreements: dict[str, int] = field(default_factory=dict)

    def of_code(self, code: str) -> list[Breach]:
        """By time."""
        return sorted((b for b in self.breaches if b.code == code), key=lambda b: b.closing.begun)


class _Counts:
    """Of one check: how many were decided, and why others were not."""

    def __init__(self) -> None:
        self.decided = 0
        self.reasons: dict[str, int] = {}

    def no(self, reason: str) -> None:
        self.reasons[reason] = self.reasons.get(reason, 0) + 1

    def judged(self) -> Judged:
        return Judged(
            decided=self.decided, undecided=sum(self.reasons.values()), reasons=self.reasons
        )


class Judge:
    """Judges every close, shutdown and packet that the engine tells, one at a time."""

    def __init__(self, model: LingerModel | None, timing: Timing, recorded: Recorded) -> None:
        self.model = model
        self.timing = timing
        self.recorded = recorded
        self.breaches: list[Breach] = []
        self.counts: Mapping[str, _Counts] = {code: _Counts() for code in CODES}
        self.close_waits_for = _waits(model, closing=True)
        self.shutdown_waits_for = _waits(model, closing=False)

    def lingering(self, credit_sides: int) -> Lingering:
        """What became of all that was taken; ``credit_sides``: of how many credit was seen."""
        self.counts["TK306"].decided += credit_sides
        return Lingering(
            model=self.model.name if self.model else None,
            breaches=self.breaches,
            judged={code: c.judged() for code, c in self.counts.items()},
        )

    def keep(self, codes: Iterable[str], count: int) -> None:
        """So many were judged elsewhere for these codes, and broke nothing."""
        for code in codes:
            self.counts[code].decided += count

    def take(self, one: Closing) -> None:
        """Judge one."""
        if one.kind in (Kind.CLOSE, Kind.BARE):
            waits_for = self.close_waits_for
        else:
            waits_for = self.shutdown_waits_for
        if one.kind in (Kind.CLOSE, Kind.BARE, Kind.SHUTDOWN):
            self._unexpected(one, waits_for)
            if one.kind is not Kind.BARE and one.may_linger is not False:
                self._too_long(one, waits_for)
                self._too_early(one, waits_for)
                if one.kind is Kind.CLOSE:
                    self._dropped(one, waits_for)
            if one.kind is Kind.CLOSE:
                self._handshake(one)
            return
        if one.doubt is not None:
            return
        if one.kind is Kind.CREDIT:
            self._tell(one, "TK306", *_CREDIT[one.detail])
        elif one.kind is Kind.DATA_AFTER:
            self._tell(
                one, "TK305", "L14", "data after shutdown", "data follows the end of sending"
            )
        else:
            self._tell(one, "TK305", "L15", "reset for reset", "a reset answers a reset")

    def _tell(
        self,
        one: Closing,
        code: str,
        rule: str,
        cause: str,
        what: str,
        *,
        severity: Severity = _ERROR,
        confidence: Confidence = Confidence.CERTAIN,
        unsent: int | None = None,
        slack: int | None = None,
    ) -> None:
        """``slack``: the one that decided, in ns."""
        if severity is _ERROR and not self.recorded.comparable_clocks:
            severity, confidence = _WARNING, Confidence.POSSIBLE
        notes = [f"rule {rule} under the {self.model.name if self.model else 'unknown'} model"]
        if slack is None and code in ("TK301", "TK302", "TK303"):
            slack = self.timing.slack(one.timeout_ns)
        if slack is not None:
            notes.append(f"slack: {slack / MS:g} ms")
        self.breaches.append(
            Breach(
                code=code, rule=rule, closing=one, severity=severity, confidence=confidence,
                cause=cause, what=what, unsent=one.unsent_after if unsent is None else unsent,
                notes=tuple(notes),
            )
        )  # fmt: skip

    # -- TK303 -----------------------------------------------------------------------------------

    def _unexpected(self, one: Closing, waits_for: WaitsFor | None) -> None:
        """Blocked where nothing may wait (L5), or in a shutdown that never waits (L6)."""
        counts = self.counts["TK303"]
        if one.doubt is not None:
            counts.no(one.doubt)
            return
        if one.waited_ns <= self.timing.slack(one.timeout_ns):
            counts.decided += 1
            return
        if one.kind is Kind.SHUTDOWN and self.model is None:
            counts.no("unknown_model")
            return
        if one.kind is Kind.SHUTDOWN and waits_for is None:
            counts.decided += 1
            self._tell(one, "TK303", "L6", "shutdown", "shutdown() waited")
            return
        if one.may_linger is None:
            counts.no(one.why_unknown)
            return
        counts.decided += 1
        if not one.may_linger:
            self._tell(one, "TK303", "L5", one.why_not, f"close() waited although {one.why_not}")

    # -- TK302 -----------------------------------------------------------------------------------

    def _too_long(self, one: Closing, waits_for: WaitsFor | None) -> None:
        """Stayed after its condition was met (L2, L3), or past its timeout (L4)."""
        if one.kind is Kind.SHUTDOWN and waits_for is None:
            return
        counts = self.counts["TK302"]
        slack = self.timing.slack(one.timeout_ns)
        if one.doubt is not None:
            counts.no(one.doubt)
            return
        if one.waited_ns <= slack:
            if one.may_linger:
                counts.decided += 1
            return
        if one.may_linger is None:
            counts.no(one.why_unknown)
            return
        if one.timeout_ns is not None and one.waited_ns > one.timeout_ns + slack:
            sure = one.waited_ns > one.timeout_ns + slack + self.timing.grain(one.timeout_ns)
            counts.decided += 1
            self._tell(
                one, "TK302", "L4", "past the timeout", "waited past its timeout",
                severity=_ERROR if sure else _WARNING,
                confidence=Confidence.CERTAIN if sure else Confidence.POSSIBLE,
            )  # fmt: skip
            return
        if self.model is None:
            counts.no("unknown_model")
            return
        if waits_for is WaitsFor.SENT:
            if one.unsent_why is not None:
                counts.no(one.unsent_why)
                return
            met, what = one.sent_ns, "everything was sent"
        else:
            if not self.recorded.ends:
                counts.no("no_event:vsock.done")
                return
            met, what = one.done_ns, "the peer was done"
        counts.decided += 1
        if met is None or met > one.ended or one.ended - max(met, one.begun) <= slack:
            return
        unread = waits_for is WaitsFor.SENT and one.unsent_before == 0
        self._tell(
            one, "TK302", "L3" if unread else "L2", "unread" if unread else what,
            f"waited on after {what}" if not unread else "waited for what the peer had not read",
        )  # fmt: skip

    # -- TK301 -----------------------------------------------------------------------------------

    def _too_early(self, one: Closing, waits_for: WaitsFor | None) -> None:
        """Returned before its condition was met (L1, L7)."""
        if one.is_open or (one.kind is Kind.SHUTDOWN and waits_for is None):
            return
        counts = self.counts["TK301"]
        for reason in (
            one.doubt,
            None if self.recorded.signals else "no_event:signal",
            one.why_unknown if one.may_linger is None else None,
            "unknown_model" if self.model is None else None,
        ):
            if reason is not None:
                counts.no(reason)
                return
        timed_out = (
            one.timeout_ns is not None and one.waited_ns >= one.timeout_ns - self.timing.jiffy
        )
        if one.signal == 1 or timed_out:
            counts.decided += 1
            return
        if waits_for is WaitsFor.SENT:
            if one.unsent_why is not None:
                counts.no(one.unsent_why)
                return
            if one.unsent_after is None or one.unsent_after <= 0:
                counts.decided += 1
                return
            if not self.recorded.sent and one.sent_soon(self.timing.slack(one.timeout_ns)):
                counts.no("race")  # a packet is received a little after it was handed over
                return
            unmet = "bytes unsent"
        else:
            if not self.recorded.ends:
                counts.no("no_event:vsock.done")
                return
            if one.maybe_done_ns is not None and one.maybe_done_ns <= one.ended:
                counts.decided += 1
                return
            unmet = "the peer not done"
        if one.signal == 2:
            counts.no("signal_unsure")
            return
        if one.timeout_ns is None and not one.endless:
            counts.no("unknown_timeout")
            return
        counts.decided += 1
        call = "shutdown()" if one.kind is Kind.SHUTDOWN else "close()"
        rule = "L7" if one.kind is Kind.SHUTDOWN else "L1"
        self._tell(one, "TK301", rule, unmet, f"lingering {call} returned with {unmet}")

    # -- TK304 -----------------------------------------------------------------------------------

    def _dropped(self, one: Closing, waits_for: WaitsFor | None) -> None:
        """Bytes that were never handed over (L11), or that the peer threw away."""
        if one.is_open:
            return
        counts = self.counts["TK304"]
        for reason in (
            one.doubt,
            "loss" if one.lost_after else None,
            one.why_unknown if one.may_linger is None else None,
            one.unsent_why,
        ):
            if reason is not None:
                counts.no(reason)
                return
        if one.thrown_away:
            self._tell(
                one, "TK304", "L11", "thrown away by the peer",
                "bytes were handed over and the peer threw them away unread",
                severity=_NOTE, unsent=one.thrown_away,
            )  # fmt: skip
        died = one.died_ns
        left = one.unsent_at_end
        if not left:
            counts.decided += 1
            return
        slack = self.timing.slack(one.timeout_ns)
        if died is None or left is None or one.end_ns - died <= slack:
            counts.no("trace_end")
            return
        counts.decided += 1
        timed_out = (
            one.timeout_ns is not None and one.waited_ns >= one.timeout_ns - self.timing.jiffy
        )
        if timed_out or one.signal or one.reset:
            return
        sure = waits_for is WaitsFor.SENT and self.recorded.sent and one.timeout_ns is not None
        self._tell(
            one, "TK304", "L11", "never handed over",
            "bytes were never handed over when the connection ended",
            severity=_ERROR if sure else _NOTE, unsent=left, slack=slack,
        )  # fmt: skip

    # -- TK305 -----------------------------------------------------------------------------------

    def _handshake(self, one: Closing) -> None:
        """One SHUTDOWN, or one RST where the peer was first (L8, L9); the timer (L10)."""
        counts = self.counts["TK305"]
        if one.transport != "virtio":
            return  # their packets are none of virtio's
        for reason in (
            one.doubt,
            None if self.recorded.allocated else "no_event:vsock.packet_allocated",
            "trace_end" if one.is_open else None,
            "late_start" if one.established is None or one.peer_full is None else None,
            "late_start" if one.established and one.local_full is None else None,
        ):
            if reason is not None:
                counts.no(reason)
                return
        counts.decided += 1
        if not one.established:
            return
        sent = (one.shutdowns, one.resets)
        slack = self.timing.slack(None)
        decided = one.ended if one.packet_ns is None else one.packet_ns
        overtaken = one.maybe_done_ns is not None and (
            one.begun - slack <= one.maybe_done_ns <= decided
        )
        expected = {(0, 1)} if one.peer_full else {(0 if one.local_full else 1, 0)}
        if overtaken:  # the peer's end came while close() began: either is right
            expected |= {(0, 1), (0, 0), (0 if one.local_full else 1, 0)}
        if sent not in expected:
            if sent == (0, 0):
                said = "close() sent neither SHUTDOWN nor RST"
                self._tell(one, "TK305", "L9", "neither", said, slack=slack)
            else:
                said = f"close() sent {one.shutdowns} SHUTDOWN and {one.resets} RST"
                self._tell(one, "TK305", "L8", "packets", said, slack=slack)
            return
        if one.shutdowns and one.shutdown_flags != 3:
            self._tell(one, "TK305", "L8", "flags", "close() did not shut both directions")
            return
        if not one.peer_full and not overtaken:
            self._timer(one)

    def _timer(self, one: Closing) -> None:
        if one.lost_after or one.reset or not self.recorded.received or one.died_before_end:
            return
        due = one.bracket_end + CLOSE_TIMEOUT
        slack = self.timing.slack(CLOSE_TIMEOUT)
        late = due + slack + self.timing.grain(CLOSE_TIMEOUT)
        if one.reset_out is not None:
            if one.reset_in is not None and one.reset_in <= one.reset_out:
                return
            if one.reset_out < due - self.timing.slack(None):
                said, slack = "a reset was sent before its 8 s were over", self.timing.slack(None)
            elif one.reset_out > late:
                said = "the reset came later than 8 s"
            else:
                return
        elif (one.died_ns is None or one.died_ns > late) and one.end_ns > late:
            said = "no reset was sent although the peer never answered"
        else:
            return
        self._tell(one, "TK305", "L10", "timer", said, slack=slack)


_CREDIT = {
    1: ("L12", "unsent bytes", "the kernel's unsent bytes are not those that were sent"),
    2: ("L13", "credit", "more credit was taken than the peer had granted"),
    3: ("L12", "credit unused", "more bytes were sent than credit was taken for"),
    4: ("L13", "overrun", "more bytes were sent than the peer has room for"),
}


def _waits(model: LingerModel | None, *, closing: bool) -> WaitsFor | None:
    """What the model's close() or shutdown() of a lingering socket waits for."""
    if model is None:
        return WaitsFor.SENT if closing else None
    vsk = VsockSock(linger=True, lingertime=1, unsent_bytes=1)
    wait = model.release(vsk) if closing else model.shutdown(vsk, 2)
    return wait.waits_for if wait else None
