"""Divergences and hazards as violations of TK201, with both sequences side by side."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import zip_longest

from replay.checks.violations import Identity, Violation, Violations, size_text
from replay.conformance.conformance import AUTO, AUTO_FROM, AUTO_SHARE, Conformance
from replay.conformance.kernel import layout as K
from replay.conformance.listeners import Departure, ListenerTally
from replay.conformance.matcher import Call, Deviation
from replay.conformance.predict import predicted
from tracekit.findings import Confidence, EvidenceRow, Finding, Judged, Severity, VmRef

__all__ = (
    "HAZARDS",
    "KIND",
    "add_conformance",
    "as_notes",
    "fit_text",
    "judged",
    "violations_of",
)

KIND = 201
TOLD = 16
"""Divergences whose two sequences are shown."""
ROWS = 12
"""Calls of each sequence that are shown."""

HAZARDS: dict[int, tuple[str, str]] = {
    K.W_RETRY: (
        "retry-maps-nothing",
        "an earlier failure left the range shared in the bitmap: the retry mapped nothing",
    ),
    K.W_ATTRIBUTE_KEPT: (
        "attribute-not-restored",
        "the state change failed, and KVM's attribute was not set back",
    ),
    K.W_UNMAP_IGNORED: (
        "failed-unmap-ignored",
        "an unmap failed, and the conversion went on to discard the memory",
    ),
    K.W_FOREIGN_ROLLBACK: (
        "rollback-unmapped-others",
        "a map met another listener's entry, and the rollback unmapped that one too",
    ),
    K.W_LISTENERS_APART: (
        "listeners-left-apart",
        "a container before the one that refused keeps its mappings",
    ),
    K.W_SHIFTED: ("shifted-range", "the request begins in a hole: another range was converted"),
    K.W_PAST_END: (
        "past-the-end",
        "the request runs past its memory: only the attribute was changed",
    ),
    K.W_SLOT_AGAIN: (
        "slot-forgets-shared",
        "a slot was made again over shared memory: it is private in KVM now",
    ),
    K.W_ROLLED_BACK: ("rolled-back", "a failed conversion was undone in forward order"),
    K.W_ENDS_QEMU: ("failure-ends-qemu", "a failure that this QEMU does not survive"),
    K.W_ABSENT_UNMAP: (
        "absent-unmap-is-success",
        "iommufd found nothing, or would have cut an area, and that counted as success",
    ),
    K.W_REPLAY_ENDS_QEMU: (
        "failed-replay-ends-qemu",
        "a map failed while a listener was registered: this QEMU exits",
    ),
    K.W_REPLAY_SHORT: (
        "failed-replay-left-short",
        "a map failed while a listener was registered: it stays, without the rest",
    ),
    K.W_LIMIT_LEFT: (
        "dma-limit-left-mapped",
        "there could be more mappings than the container takes: refused once all was mapped",
    ),
    K.W_UNREGISTERED_OTHERS: (
        "unregister-unmapped-others",
        "a listener went, and its one unmap took what another listener had mapped",
    ),
    K.W_DIRTY_AT_ZERO: (
        "dirty-query-at-0",
        "a replayed range has lost its address: the query of dirty pages goes to address 0",
    ),
}
"""Known bugs of a generation that conforming calls can show: cause key and sentence."""

MANAGER_HAZARDS = {
    "unplug-kept-private": "virtio-mem unplugged memory, and its private pages stay allocated",
    "dirty-query-at-0": HAZARDS[K.W_DIRTY_AT_ZERO][1],
}
"""The same of calls for virtio-mem."""


def violations_of(c: Conformance) -> Iterator[Violation]:
    """Each divergence as an error, each hazard as a note."""
    shown = 0
    for d in c.deviations:
        if d.what == K.W_DIVERGES or d.what == K.W_REPLAY:
            shown += 1
            yield _divergence(c, d, full=shown <= TOLD)
        else:
            yield _hazard(c, d)
    listeners = c.listeners
    requests = listeners.plugs + listeners.unplugs + listeners.resets
    calls = listeners.explained + listeners.departed
    told = requests >= AUTO_FROM and listeners.explained >= AUTO_SHARE * calls
    if told or c.generation is not None:
        for departure in listeners.departures:
            yield _departure(c, departure)
    for hazard in listeners.hazards:
        _, lo, size = hazard.seen
        v = _base(c, hazard.process, hazard.thread, address=lo, size=size, from_ns=hazard.ts_ns)
        yield replace(
            v, severity=Severity.NOTE, rule=f"{c.generation or 'virtio-mem'}:{hazard.what}",
            seqs=(hazard.seq, -1, -1, -1), notes=(MANAGER_HAZARDS[hazard.what],),
        )  # fmt: skip


def add_conformance(violations: Violations, c: Conformance) -> None:
    """Put what was found, and how much was compared, beside the engine's."""
    found = list(violations_of(c))
    if not violations.clocks.comparable:
        found = [v for v in found if v.severity is Severity.NOTE]  # no order of calls is certain
    if violations.clocks.apart:  # nor when QEMU said what
        found = [v for v in found if ":listener-un" not in str(v.rule)]
    text = fit_text(c)
    found = [replace(v, notes=(*v.notes, text)) for v in found]
    if found:
        violations.by_kind[KIND] = found
    violations.counters = {**violations.counters, KIND: judged(c)}


def kind_of(d: Deviation) -> str:
    """How it differs, as a cause key: what was expected, and what came."""
    expected = d.expected.kind
    if d.what == K.W_REPLAY:
        return f"registration-{'goes-on' if expected == 'exit' else expected}"
    got = None if d.got is None or d.got >= len(d.calls) else d.calls[d.got]
    if got is None:
        return f"missing-{expected}"
    if expected == "nothing":
        return f"extra-{got.kind}"
    if got.kind != expected:
        return f"{got.kind}-for-{expected}"
    if expected == "map" and got.address == d.expected.address:
        return "map-pieces"
    return f"{expected}-range"


def _base(
    c: Conformance, process: int, thread: int, *, address: int, size: int, from_ns: int
) -> Violation:
    tid = c.tids[process] if process < len(c.tids) else None
    identity = Identity(
        vm=VmRef(name=None, pid=tid), container=None, device=None, ordinal=0
    )  # fmt: skip
    return Violation(
        kind=KIND,
        severity=Severity.ERROR,
        confidence=Confidence.CERTAIN,
        identity=identity,
        address=address,
        size=size,
        from_ns=from_ns,
        until_ns=None,
        seqs=(-1, -1, -1, -1),
        group=0,
        rule=None,
        errno=0,
        thread=c.tids[thread] if thread < len(c.tids) else -1,
    )


def _of_calls(c: Conformance, d: Deviation) -> Violation:
    first, last = (d.calls[0], d.calls[-1]) if d.calls else (d.expected, d.expected)
    v = _base(c, d.process, d.thread, address=d.gpa, size=d.size, from_ns=first.ts_ns)
    return replace(
        v,
        until_ns=last.last_ns,
        seqs=(first.seq, -1, -1, last.last_seq),
        chain=tuple(_row(call) for call in d.calls[:ROWS] if call.seq >= 0),
    )


def _hazard(c: Conformance, d: Deviation) -> Violation:
    name, sentence = HAZARDS[d.what]
    failed = next((call.ret for call in d.calls if call.ret < 0), 0)
    v = _of_calls(c, d)
    return replace(
        v, severity=Severity.NOTE, rule=f"{c.generation}:{name}", errno=-failed, notes=(sentence,)
    )


def _divergence(c: Conformance, d: Deviation, *, full: bool) -> Violation:
    v = replace(_of_calls(c, d), rule=f"{c.generation}:{kind_of(d)}")
    if not full:
        return v
    if d.what == K.W_REPLAY:
        return replace(v, notes=(_registration(c.generation or "", d),))
    made = predicted(c.generation or "", d)
    notes = [*_columns(c.generation or "", made, d), _left_behind(d)]
    return replace(v, notes=tuple(notes))


def _registration(generation: str, d: Deviation) -> str:
    """What the listener of a container was to do next when it was registered."""
    seen = "" if not d.calls else f"; seen: {_text(d.calls[0])}"
    if d.expected.kind == "exit":
        return f"{generation} exits once a map of a registration has failed{seen}"
    return f"a listener was registered, and {generation} expects {_text(d.expected)}{seen}"


def _columns(generation: str, made: Sequence[Call], d: Deviation) -> Iterator[str]:
    """The two sequences, line by line; the first difference is marked."""
    if not made:
        yield f"{generation} expects {_text(d.expected)}"
        return
    marked = False
    for number, (ours, theirs) in enumerate(zip_longest(made[:ROWS], d.calls[:ROWS])):
        left = "nothing" if ours is None else _text(ours)
        right = "nothing" if theirs is None else _text(theirs)
        mark = "" if left == right or marked else "   <-- differs"
        marked = marked or left != right
        yield f"{number + 1}. {generation}: {left} | seen: {right}{mark}"
    more = max(len(made), len(d.calls)) - ROWS
    if more > 0:
        yield f"and {more} more calls"


def _left_behind(d: Deviation) -> str:
    """What state it leaves, as far as the calls say."""
    mapped = {c.address: c for c in d.calls if c.kind == "map" and c.ret >= 0}
    unmapped = any(c.kind == "unmap" and c.ret >= 0 for c in d.calls)
    attribute = next((c for c in reversed(d.calls) if c.kind == "attribute" and c.ret >= 0), None)
    if attribute is None:
        state = "the attribute as it was"
    else:
        state = "the range private" if attribute.private else "the range shared"
    if d.private:
        dma = "unmapped" if unmapped else "as mapped as it was"
    else:
        total = sum(c.size for c in mapped.values())
        dma = f"mapped in {size_text(total)} of {size_text(d.size)}" if total else "not mapped"
    return f"it leaves {state}, and {dma}; later conversions are compared from there"


def _departure(c: Conformance, d: Departure) -> Violation:
    kind, lo, size = d.seen
    v = _base(c, d.process, d.thread, address=lo, size=size, from_ns=d.ts_ns)
    if d.what == "unanswered" and d.expected is not None:
        kind = d.expected[0]
        told = f"QEMU was asked to {kind} [{lo:#x}, +{size_text(size)}), and nothing was done"
    elif d.what == "unrequested":
        told = f"{kind} of [{lo:#x}, +{size_text(size)}): QEMU's own trace has no such request"
    elif d.expected is None:
        told = f"nothing makes a listener {kind} [{lo:#x}, +{size_text(size)})"
    else:
        call, at, length = d.expected
        told = (
            f"the listener would {call} [{at:#x}, +{size_text(length)}); seen: "
            f"{kind} [{lo:#x}, +{size_text(size)})"
        )
    rule = f"{c.generation or 'virtio-mem'}:listener-{d.what}-{kind}"
    return replace(v, rule=rule, seqs=(d.seq, -1, -1, -1), notes=(told,))


def _text(call: Call) -> str:
    where = "" if call.address is None else f"{call.address:#x}+"
    if call.kind in ("punch", "discard"):
        where = ""  # an address of the file or of the process
    word = call.kind
    if call.kind == "attribute":
        word = "private" if call.private else "shared"
    pieces = f" in {call.count}" if call.count > 1 else ""
    failed = f" = {call.ret}" if call.ret < 0 else ""
    return f"{word} {where}{size_text(call.size)}{pieces}{failed}"


def _row(call: Call) -> EvidenceRow:
    what = {"attribute": "private" if call.private else "shared", "punch": "discard"}
    word = what.get(call.kind, call.kind)
    return EvidenceRow(
        ts_ns=call.ts_ns,
        seq=call.seq,
        what=word if word in ("map", "unmap", "private", "shared", "discard") else "call",
        text=f"{word:<8} {_text(call).partition(' ')[2]}",
        address=call.address if call.kind in ("attribute", "map", "unmap") else None,
        size=call.size,
    )


def judged(c: Conformance) -> Judged:
    """Conversions, plug requests and DMA calls that were compared, and why others were not."""
    listeners = c.listeners
    reasons: dict[str, int] = {}
    tally = c.tally
    compared, undecided = tally.compared, dict(tally.reasons)
    if c.generation is None and tally.compared:
        reasons["no_generation"] = tally.compared + sum(undecided.values())
        compared, undecided = 0, {}
    for source in (undecided, listeners.reasons):
        for reason, count in source.items():
            reasons[reason] = reasons.get(reason, 0) + count
    managed = listeners.plugs + listeners.unplugs + listeners.resets + listeners.requests
    calls = listeners.explained + listeners.departed
    if c.generation is None and not managed:
        unlike = calls
        if _maps_slots(listeners) and not tally.compared:
            unlike = listeners.unlike
        if unlike and not tally.compared:
            reasons["no_generation"] = reasons.get("no_generation", 0) + unlike
        calls -= unlike
    if c.generation is not None:
        calls += tally.replayed
    return Judged(
        decided=compared + calls, undecided=sum(reasons.values()), reasons=reasons
    )  # fmt: skip


def _maps_slots(listeners: ListenerTally) -> bool:
    """Whether regions are mapped as every generation does it."""
    like, every = listeners.like, listeners.like + listeners.unlike
    return like >= AUTO_FROM and like >= AUTO_SHARE * every


def fit_text(c: Conformance) -> str:
    """How well each generation explains the trace, in one line."""
    fits = ", ".join(
        f"{f.generation} {f.tally.conforming:,} of {f.tally.compared:,}" for f in c.fits
    )
    if c.asked != AUTO:
        return f"conversions explained: {fits}"
    if c.generation is None:
        return (
            f"no generation explains {AUTO_SHARE:.0%} of the conversions, and {AUTO_FROM} that tell"
            f" one: {fits}"
        )
    ties = [name for name in c.ties if name != c.generation]
    equal = f" ({' and '.join(ties)} as well)" if ties else ""
    return f"taken for {c.generation}{equal}: {fits}"


def as_notes(findings: Iterable[Finding], errors: Sequence[Finding], auto: bool) -> list[Finding]:
    """With ``auto`` an error of another code on the same conversion is told there, not twice.

    A divergence beside it becomes a note that names it: docs/decisions/0005.
    """
    out = []
    for finding in findings:
        beside = sorted(
            {
                e.id
                for e in errors
                if e.vm.pid == finding.vm.pid and any(_meets(o, e) for o in finding.occurrences)
            }
        )
        covered = beside and all(
            any(_meets(o, e) for e in errors if e.id in beside) for o in finding.occurrences
        )
        if auto and covered and finding.severity is Severity.ERROR:
            finding = replace(finding, severity=Severity.NOTE)
        out.append(replace(finding, related=tuple(beside)))
    return out


def _meets(o: object, finding: Finding) -> bool:
    from tracekit.findings import Occurrence

    assert isinstance(o, Occurrence)
    if o.gpa is None or o.size is None:
        return False
    for other in finding.occurrences:
        at = other.gpa if other.gpa is not None else other.iova
        if at is None or other.size is None:
            continue
        if at < o.gpa + o.size and o.gpa < at + other.size:
            late = other.until_ns is None or o.from_ns <= other.until_ns
            if late and (o.until_ns is None or other.from_ns <= o.until_ns):
                return True
    return False
