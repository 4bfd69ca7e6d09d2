"""The engine's records as a check reads them: whose, where, when, how sure, and grouped by
cause."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from replay.engine.engine import JUDGED, Judgement
from replay.engine.kernel import layout as L
from replay.engine.runs import SETTLED, runs
from replay.engine.settling import LISTED, MORE, MORE_OPEN, MORE_PAGES
from replay.linger.judge import Lingering
from tracekit.findings import (
    Confidence,
    EvidenceRow,
    Finding,
    Judged,
    Occurrence,
    Severity,
    VmRef,
    finding_id,
)

__all__ = (
    "Cause",
    "Clocks",
    "Identity",
    "More",
    "Rule",
    "Violation",
    "Violations",
    "grouped",
    "size_text",
)

_SEVERITY = {L.ERROR: Severity.ERROR, L.WARNING: Severity.WARNING, L.NOTE: Severity.NOTE}
_CONFIDENCE = {
    L.CERTAIN: Confidence.CERTAIN,
    L.LIKELY: Confidence.LIKELY,
    L.POSSIBLE: Confidence.POSSIBLE,
}
_REASONS = {
    L.Y_LOSS: "loss",
    L.Y_END: "trace_end",
    L.Y_LATE: "late_start",
    L.Y_UNKNOWN_ARGS: "unknown_arguments",
    L.Y_NO_ATTR: "no_vm",
    L.Y_BACKING: "unknown_backing",
    L.Y_NO_UNMAP: "no_event:iommu.unmap",
    L.Y_SEVERAL: "several_vms",
    L.Y_VIOMMU: "viommu",
    L.Y_GMEM: "gmem_attributes",
    L.Y_LIMIT: "state_limit",
}
_ONE_CALL = (107, 202)
"""Kinds whose errors are about one call alone, in whatever order it was."""

Rule = {
    L.R_DISCARD: "discard",
    L.R_RUN: "run",
    L.R_EXIT: "exit",
    L.R_ATTR: "attributes",
    L.R_GRACE: "grace",
    L.R_MAP: "map",
    L.R_POPULATE: "populate",
}
"""What ended a conversion or request, by the engine's number."""


@dataclass(frozen=True, kw_only=True)
class Identity:
    """Whose memory a violation is about.  ``ordinal``: the container's place in its process."""

    vm: VmRef
    container: int | None
    device: str | None
    ordinal: int


@dataclass(frozen=True, kw_only=True)
class More:
    """Violations that were counted and not kept: how many, their bytes, and those without an
    end."""

    count: int = 0
    size: int = 0
    endless: int = 0


_NO_MORE = More()


@dataclass(frozen=True, kw_only=True)
class Violation:
    """One run of adjacent pages that broke one rule.  Bytes and ns; ``until_ns`` null: not over.

    ``seqs``: the call that began it, its effect, what ended the conversion or request, what ended
    the violation; -1 where there is none.  ``more``: later ones of its cause.
    """

    kind: int
    severity: Severity
    confidence: Confidence
    identity: Identity
    address: int | None
    size: int | None
    from_ns: int
    until_ns: int | None
    seqs: tuple[int, int, int, int]
    group: int
    rule: str | None
    errno: int
    thread: int
    peak: int = 0
    chain: tuple[EvidenceRow, ...] = ()
    notes: tuple[str, ...] = ()
    more: More = _NO_MORE

    @property
    def events(self) -> tuple[int, ...]:
        """The event numbers, in order, each once."""
        listed = [s for s in self.seqs if s >= 0] + [r.seq for r in self.chain if r.seq is not None]
        return tuple(sorted(set(listed)))


@dataclass(frozen=True, kw_only=True)
class Cause:
    """The violations of one finding.  ``kept``: the first by time, one at least; ``count``,
    ``size`` (bytes) and ``endless`` (those without an end) are of all."""

    kept: list[Violation]
    count: int
    size: int
    endless: int

    @classmethod
    def of(cls, kept: list[Violation]) -> Cause:
        """These, and what they stand for."""
        return cls(
            kept=kept,
            count=sum(1 + v.more.count for v in kept),
            size=sum((v.size or 0) + v.more.size for v in kept),
            endless=sum((v.until_ns is None) + v.more.endless for v in kept),
        )

    @property
    def first(self) -> Violation:
        """The first by time."""
        return self.kept[0]


@dataclass(frozen=True, kw_only=True)
class Clocks:
    """Which times of the trace say anything.

    ``comparable``: those of different CPUs.  ``apart``: what the ``source`` column begins with in
    rows whose clock could not be brought to the trace's.
    """

    name: str = "mono"
    comparable: bool = True
    apart: tuple[str, ...] = ()


@dataclass
class Violations:
    """The records of one replay, and the counters.  Of a cause that occurs often the first alone.

    ``losses``: (from, until, seq) of each hole; ``clock_back``: (held at, said, seq).
    """

    by_kind: dict[int, list[Violation]]
    counters: Mapping[int, Judged]
    losses: Sequence[tuple[int, int, int]] = ()
    clock_back: Sequence[tuple[int, int, int]] = ()
    lost_events: int = 0
    host: str | None = None
    clocks: Clocks = field(default_factory=Clocks)
    linger: Lingering | None = None
    comms: Mapping[int, str | None] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        judgement: Judgement,
        *,
        host: str | None,
        lost_events: int,
        clocks: Clocks | None = None,
    ) -> Violations:
        """Read the kernel's records.  Names come later (:meth:`name`).

        Where times of different CPUs say nothing, no order of events is certain, and no error is.
        """
        clocks = clocks or Clocks()
        identities = _Identities(judgement)
        found: dict[int, list[Violation]] = {}
        undecided: dict[int, dict[int, int]] = {}
        told: dict[int, set[int]] = {}
        records = judgement.records if clocks.comparable else _in_doubt(judgement.records)
        for row in runs(records):
            kind, group = int(row[L.W_KIND]), int(row[L.W_GROUP])
            if row[L.W_SEV] == L.UNDECIDED:
                undecided.setdefault(kind, {})[group] = int(row[L.W_RULE])
                continue
            told.setdefault(kind, set()).add(group)
            found.setdefault(kind, []).append(_violation(row, identities, judgement))
        counters = {}
        for kind, index in JUDGED.items():
            counts = judgement.judged[index]
            reasons = {_REASONS[y]: int(counts[y]) for y in _REASONS if counts[y]}
            decided = int(counts[L.Y_DECIDED])
            for group, reason in undecided.get(kind, {}).items():
                if group not in told.get(kind, ()):
                    decided -= 1
                    reasons[_REASONS[reason]] = reasons.get(_REASONS[reason], 0) + 1
            counters[kind] = Judged(
                decided=max(decided, 0), undecided=sum(reasons.values()), reasons=reasons
            )
        return cls(
            by_kind={kind: sorted(found[kind], key=_by_time) for kind in sorted(found)},
            counters=counters,
            losses=judgement.stream.losses,
            clock_back=judgement.stream.clock_back,
            lost_events=lost_events,
            host=host,
            clocks=clocks,
        )

    def of_kind(self, kind: int) -> list[Violation]:
        """The violations of one engine kind, by time."""
        return self.by_kind.get(kind, [])

    def name(self, comms: Mapping[int, str | None]) -> None:
        """Name the processes: ``comms`` is each thread's recorded name."""
        for rows in self.by_kind.values():
            for i, v in enumerate(rows):
                vm = v.identity.vm
                if vm.pid is not None and vm.name is None and comms.get(vm.pid) is not None:
                    named = replace(vm, name=comms[vm.pid])
                    rows[i] = replace(v, identity=replace(v.identity, vm=named))

    def all(self) -> Iterator[Violation]:
        """Every violation that was kept."""
        for rows in self.by_kind.values():
            yield from rows


class _Identities:
    """Process, VM and container of a record."""

    def __init__(self, judgement: Judgement) -> None:
        self._spaces = judgement.spaces
        self._tids = judgement.stream.tids
        self._devices = judgement.stream.devices
        self._cache: dict[tuple[int, int], Identity] = {}

    def __call__(self, process: int, space: int) -> Identity:
        key = (process, space)
        if key not in self._cache:
            self._cache[key] = self._identity(process, space)
        return self._cache[key]

    def _identity(self, process: int, space: int) -> Identity:
        tid = self._tids[process] if 0 <= process < len(self._tids) else None
        kvm, container, ordinal = None, None, 0
        for number, row in enumerate(self._spaces):
            if row[L.S_PROC] != process:
                continue
            if row[L.S_KIND] == L.SPACE_VM:
                kvm = _pointer(row[L.S_KVM]) if kvm is None else kvm
            elif number < space:
                ordinal += 1
        if 0 <= space < len(self._spaces) and self._spaces[space][L.S_KIND] == L.SPACE_CONTAINER:
            container = _pointer(self._spaces[space][L.S_OBJECT])
        device = self._devices.get(process)
        return Identity(
            vm=VmRef(name=None, pid=tid, kvm=kvm),
            container=container,
            device=device,
            ordinal=ordinal,
        )


def _pointer(value: Any) -> int | None:
    return None if value in (L.NULL, 0) else int(value) & 0xFFFFFFFFFFFFFFFF


def _violation(row: Any, identities: _Identities, judgement: Judgement) -> Violation:
    kind = int(row[L.W_KIND])
    if row[L.W_RULE] == L.R_CALL:
        address = None if row[L.W_ADDR] == L.NULL else int(row[L.W_ADDR]) & (1 << 64) - 1
        size = None if row[L.W_SIZE] == L.NULL else int(row[L.W_SIZE]) & (1 << 64) - 1
    else:
        address = int(row[L.W_P0]) << 12
        size = (int(row[L.W_P1]) - int(row[L.W_P0])) << 12
    thread = int(row[L.W_THREAD])
    errno, rule = int(row[L.W_ERRNO]), Rule.get(int(row[L.W_RULE]))
    if kind == 101:
        errno = 0  # there it says whether an unmap was under way
    if kind == 111:  # there it says of which kind the pages were
        errno, rule = 0, "map" if errno == 103 else "attributes"
    return Violation(
        kind=kind,
        severity=_SEVERITY[int(row[L.W_SEV])],
        confidence=_CONFIDENCE[int(row[L.W_CONF])],
        identity=identities(int(row[L.W_PROC]), int(row[L.W_SPACE])),
        address=address,
        size=size,
        from_ns=int(row[L.W_FROM]),
        until_ns=None if row[L.W_UNTIL] == L.NULL else int(row[L.W_UNTIL]),
        seqs=(int(row[L.W_SEQ0]), int(row[L.W_SEQ1]), int(row[L.W_SEQ2]), int(row[L.W_SEQ3])),
        group=int(row[L.W_GROUP]),
        rule=rule,
        errno=errno,
        thread=judgement.stream.tids[thread] if 0 <= thread < len(judgement.stream.tids) else -1,
        peak=int(row[L.W_REM]) if kind == 107 else 0,
        more=_more(row),
    )


def _more(row: Any) -> More:
    if row[L.W_STATE] != SETTLED:
        return _NO_MORE
    count, pages, endless = (int(row[column]) for column in (MORE, MORE_PAGES, MORE_OPEN))
    return More(count=count, size=pages << 12, endless=endless)


def _in_doubt(records: Any) -> Any:
    """The same with no error that depends on the order of calls."""
    rows = records.copy()
    errors = (rows[:, L.W_SEV] == L.ERROR) & ~np.isin(rows[:, L.W_KIND], _ONE_CALL)
    rows[errors, L.W_SEV], rows[errors, L.W_CONF] = L.WARNING, L.POSSIBLE
    return rows


def _by_time(v: Violation) -> tuple[int, int, int]:
    return (v.from_ns, v.seqs[0], v.address or 0)


def grouped(
    violations: Violations,
    kind: int,
    *,
    code: str,
    name: str,
    cause: Callable[[Violation], str],
    title: Callable[[Cause], str],
    space: str = "iova",
) -> Iterator[Finding]:
    """One finding for each cause: process, container, severity, confidence and ``cause`` key.

    ``space``: ``iova`` where the pages are a device's (and, gpa = iova, the guest's), ``gpa``
    where no container is involved.
    """
    causes: dict[tuple[Any, ...], list[Violation]] = {}
    for v in violations.of_kind(kind):
        key = (v.identity.vm.pid, v.identity.ordinal, v.severity.rank, v.confidence.value, cause(v))
        causes.setdefault(key, []).append(v)
    starts: dict[tuple[str | None, int | None], None] = {}
    for key, kept in causes.items():
        of = Cause.of(kept)
        identity = of.first.identity
        starts.setdefault((identity.vm.name, identity.vm.pid))
        same = [p for n, p in starts if n == identity.vm.name]
        keys = (
            violations.host or "",
            identity.vm.name or "",
            str(same.index(identity.vm.pid)),
            of.first.severity.value,
            of.first.confidence.value,
            str(identity.ordinal),
            str(key[-1]),
        )
        yield Finding(
            id=finding_id(code, keys),
            code=code,
            name=name,
            severity=of.first.severity,
            confidence=of.first.confidence,
            title=title(of),
            vm=identity.vm,
            container=identity.container,
            device=identity.device,
            count=of.count,
            occurrences=tuple(_occurrence(v, space) for v in kept[:LISTED]),
            cause=str(key[-1]),
            notes=tuple(dict.fromkeys(note for v in kept for note in v.notes)),
        )


def _occurrence(v: Violation, space: str) -> Occurrence:
    return Occurrence(
        iova=v.address if space == "iova" else None,
        gpa=v.address,
        size=v.size,
        from_ns=v.from_ns,
        until_ns=v.until_ns,
        events=v.events,
        confidence=v.confidence,
        errno=v.errno or None,
        chain=v.chain,
    )


def size_text(n: int | None) -> str:
    """Bytes as a person writes them: 4 KiB, 1.5 MiB."""
    if n is None:
        return "an unknown size"
    for unit, shift in (("TiB", 40), ("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if n >= 1 << shift:
            return f"{n / (1 << shift):.1f}".removesuffix(".0") + f" {unit}"
    return f"{n} bytes"
