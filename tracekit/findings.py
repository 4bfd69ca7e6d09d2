"""What a replay says: findings about the traced host, and how much could be judged.

Plain data.  ``replay`` makes it, ``tracekit.report`` shows it, ``tracekit.audit`` compares it;
none of the three decides again what another decided.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import Enum

from tracekit.escape import html_table
from tracekit.severity import Severity

__all__ = (
    "Confidence",
    "EvidenceRow",
    "Finding",
    "Judged",
    "Occurrence",
    "Outcome",
    "ReplayResult",
    "Severity",
    "TraceSummary",
    "Verdict",
    "VmRef",
    "finding_id",
)


class Confidence(Enum):
    """How sure: broken for every order of events, probably broken, or broken for some order
    only."""

    CERTAIN = "certain"
    LIKELY = "likely"
    POSSIBLE = "possible"


class Verdict(Enum):
    """Three answers, because a trace that could not show a bug is not a clean trace."""

    VIOLATED = "violated"
    HELD = "held"
    NOT_CHECKED = "not_checked"


@dataclass(frozen=True, kw_only=True)
class VmRef:
    """Whose memory: a VM, or (without KVM) the process that holds the container.

    ``kvm`` is the kernel's pointer where a probe showed it.  ``name`` is the process's and not to
    be trusted.
    """

    name: str | None
    pid: int | None
    kvm: int | None = None


@dataclass(frozen=True, kw_only=True)
class EvidenceRow:
    """One line of the chain: an event, or (``seq`` null) the one that never came."""

    ts_ns: int | None
    seq: int | None
    what: str
    """One of map, unmap, private, shared, discard, populate, close, exit, call, end; of a socket
    enter, leave, sent, done and its like."""
    text: str
    address: int | None = None
    """First guest physical byte (= IOVA) of what it touches, for drawing; null: none, or
    unknown."""
    size: int | None = None


@dataclass(frozen=True, kw_only=True)
class Occurrence:
    """Adjacent pages of one conversion, request or uninterrupted run of calls.

    Addresses and sizes in bytes, times in ns of the trace's clock; ``until_ns`` null: until the
    trace ends.  ``events`` are ``seq`` numbers.
    """

    iova: int | None
    gpa: int | None
    size: int | None
    from_ns: int
    until_ns: int | None
    events: tuple[int, ...]
    confidence: Confidence = Confidence.CERTAIN
    errno: int | None = None
    chain: tuple[EvidenceRow, ...] = ()
    local: tuple[int, int] | None = None
    """vsock: own CID and port."""
    peer: tuple[int, int] | None = None
    waited_ns: int | None = None
    timeout_ns: int | None = None
    unsent_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One cause, with its first 100 occurrences.  ``count`` counts all of them."""

    id: str
    code: str
    name: str
    severity: Severity
    confidence: Confidence
    title: str
    vm: VmRef
    container: int | None
    device: str | None
    count: int
    occurrences: tuple[Occurrence, ...]
    related: tuple[str, ...] = ()
    cause: str = ""
    """The code's own cause key: which call failed or never came, and its errno."""
    notes: tuple[str, ...] = ()
    """Facts for the reader that are no part of the verdict."""

    def _repr_html_(self) -> str:
        rows = [
            (f"{self.severity.value} {self.code}", self.title),
            ("vm", _vm_text(self.vm)),
            ("device", self.device or ""),
            ("confidence", self.confidence.value),
            ("count", f"{self.count:,}"),
            ("id", self.id),
        ]
        rows += [("note", note) for note in self.notes]
        chain = self.occurrences[0].chain if self.occurrences else ()
        rows += [("never" if r.ts_ns is None else f"{r.ts_ns / 1e9:.6f} s", r.text) for r in chain]
        return html_table((name, text) for name, text in rows if text)


@dataclass(frozen=True, kw_only=True)
class Judged:
    """Of what the check judges (conversions, unmaps, maps): how many could be decided.

    ``reasons`` says why the others could not: ``loss``, ``trace_end``, ``late_start``,
    ``no_event:NAME`` ...
    """

    decided: int = 0
    undecided: int = 0
    reasons: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one check found and how much it could judge."""

    code: str
    name: str
    judged: Judged
    findings: tuple[Finding, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """Violated by an error; not checked if nothing could be judged; else held."""
        if any(f.severity is Severity.ERROR for f in self.findings):
            return Verdict.VIOLATED
        return Verdict.HELD if self.judged.decided else Verdict.NOT_CHECKED

    def _repr_html_(self) -> str:
        return _found(self.findings) + html_table([_row(self)], _HEAD)


@dataclass(frozen=True, kw_only=True)
class TraceSummary:
    """The trace that was replayed.

    ``span_ns``: first and last event.  ``lost_unknown``: more than ``lost_events`` may be lost.
    """

    path: str
    events: int
    span_ns: tuple[int, int]
    lost_events: int
    kernel: str | None
    vms: int
    clock: str | None = None
    lost_unknown: bool = False


@dataclass(frozen=True, kw_only=True)
class ReplayResult:
    """Everything that a report needs."""

    trace: TraceSummary
    outcomes: tuple[Outcome, ...]
    grace_ns: int
    options: tuple[str, ...] = ()
    """Of the command, those that it was run with and that decide verdicts."""

    @property
    def findings(self) -> list[Finding]:
        """All findings, worst first, then by code and id."""
        every = [f for o in self.outcomes for f in o.findings]
        return sorted(every, key=lambda f: (f.severity.rank, f.code, f.id))

    def _repr_html_(self) -> str:
        return _found(self.findings) + html_table(map(_row, self.outcomes), _HEAD)


def finding_id(code: str, keys: Sequence[str]) -> str:
    """``CODE-xxxxxxxx`` from the code and its cause keys.

    The keys hold no address, pid or time, so that two nights' findings can be compared.
    """
    import hashlib  # slow to import, and most commands find nothing

    digest = hashlib.sha256("\x1f".join((code, *keys)).encode()).hexdigest()
    return f"{code}-{digest[:8]}"


_HEAD = ("check", "verdict", "findings", "judged", "not judged")


def _found(findings: Sequence[Finding]) -> str:
    rows = [(f.severity.value, f.code, f"{f.count:,}", f.title) for f in findings]
    return html_table(rows, ("severity", "code", "count", "finding")) if rows else ""


def _row(outcome: Outcome) -> tuple[str, ...]:
    judged = outcome.judged
    why = ", ".join(f"{n:,} {reason}" for reason, n in sorted(judged.reasons.items()))
    return (
        f"{outcome.code} {outcome.name}",
        outcome.verdict.value.replace("_", " "),
        f"{len(outcome.findings):,}",
        f"{judged.decided:,}",
        f"{judged.undecided:,}" + (f" ({why})" if why else ""),
    )


def _vm_text(vm: VmRef) -> str:
    parts = [vm.name or "not named", *([f"pid {vm.pid}"] if vm.pid is not None else [])]
    return ", ".join(parts)
