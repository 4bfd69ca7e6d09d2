"""Tonight beside the nights before: what is new, still there, gone, flapping, or could not be seen.

A finding is the same on two nights if host, stream and id are.  Nothing is gone because it was not
looked for: where its check could not judge, or its trace is missing or bad, it is *unjudged*.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date

from tracekit.audit.config import Ignore, State
from tracekit.audit.results import FindingRow, Status, TraceResult
from tracekit.findings import Verdict

__all__ = ("Compared", "Key", "Seen", "Share", "compare", "missing_streams", "shares")

Key = tuple[str, str, str]
"""Host, stream, finding id."""


@dataclass(frozen=True, kw_only=True)
class Seen:
    """A finding in the history: its state on each night that told of it, and its last row."""

    states: list[tuple[str, State]]
    first_seen: str
    last_seen: str
    finding: FindingRow


@dataclass(frozen=True, kw_only=True)
class Compared:
    """One finding tonight.  ``finding`` is tonight's, or the last one that was seen (``count`` 0).

    ``ignored``: the reason, if a rule covers it that has not expired.
    """

    host: str
    stream: str
    night: str
    state: State
    first_seen: str
    last_seen: str
    finding: FindingRow
    kernel: str | None
    qemu: str | None
    report: str | None
    ignored: str | None


@dataclass(frozen=True, kw_only=True)
class Share:
    """Of what one check could have judged in all traces of a night, how much it did."""

    code: str
    name: str
    decided: int = 0
    undecided: int = 0
    traces: int = 0
    not_checked: int = 0
    reasons: Mapping[str, int]

    @property
    def undecided_share(self) -> float:
        """0 to 1; 0 for nothing at all."""
        total = self.decided + self.undecided
        return self.undecided / total if total else 0.0


def compare(
    results: Sequence[TraceResult],
    history: Mapping[Key, Seen],
    *,
    night: str,
    window: int,
    ignore: Sequence[Ignore],
) -> list[Compared]:
    """Every finding of tonight, and those of the nights before that are missed.

    ``history``: by finding, what earlier nights said of it.  ``window``: nights within
    which coming and going again is flapping.
    """
    tonight: dict[Key, tuple[FindingRow, TraceResult]] = {}
    for result in results:
        for finding in result.findings:
            key = (result.host, result.stream, finding.id)
            tonight[key] = _added(tonight.get(key), finding, result)
    judged = _judged(results)
    start = date.fromisoformat(night).toordinal() - window
    rows: list[Compared] = []
    for key in sorted({*tonight, *history}):
        last = history.get(key)
        recent = [
            state.is_there
            for of, state in (last.states if last else ())
            if state is not State.UNJUDGED and date.fromisoformat(of).toordinal() > start
        ]
        host, stream, _ = key
        if key in tonight:
            finding, result = tonight[key]
            state = _present(recent)
            first = last.first_seen if last else night
            rows.append(
                _row(result, state, first, night, finding, ignore, night, report=result.report)
            )
        elif last is not None and last.states[-1][1] is not State.GONE:
            finding = _absent(last.finding)
            seen = judged.get((host, stream), {}).get(last.finding.code, False)
            state = State.GONE if seen else State.UNJUDGED
            of = next((r for r in results if (r.host, r.stream) == (host, stream)), None)
            of = of or _nowhere(host, stream, night)
            rows.append(
                _row(of, state, last.first_seen, last.last_seen, finding, ignore, night, None)
            )
    return sorted(rows, key=_order)


def missing_streams(
    results: Iterable[TraceResult], before: Iterable[tuple[str, str]]
) -> list[tuple[str, str]]:
    """Host and stream of what had a trace on the night before, and has none."""
    return sorted({*before} - {(r.host, r.stream) for r in results})


def shares(results: Iterable[TraceResult]) -> list[Share]:
    """Of each check, over all traces that were judged."""
    found: dict[str, Share] = {}
    for result in results:
        for row in result.checks:
            old = found.get(row.code) or Share(code=row.code, name=row.name, reasons={})
            reasons = dict(old.reasons)
            for why, count in row.reasons:
                reasons[why] = reasons.get(why, 0) + count
            found[row.code] = Share(
                code=row.code,
                name=row.name,
                decided=old.decided + row.decided,
                undecided=old.undecided + row.undecided,
                traces=old.traces + 1,
                not_checked=old.not_checked + (row.verdict is Verdict.NOT_CHECKED),
                reasons=dict(sorted(reasons.items())),
            )
    return [found[code] for code in sorted(found)]


def _present(recent: Sequence[bool]) -> State:
    """Of a finding that is there tonight, from whether it was on the nights that could tell."""
    nights = [*recent, True]
    changes = sum(a != b for a, b in itertools.pairwise(nights))
    if changes >= 2:
        return State.FLAPPING
    return State.STILL if recent and recent[-1] else State.NEW


def _judged(results: Iterable[TraceResult]) -> dict[tuple[str, str], dict[str, bool]]:
    """By stream and check, whether all of the stream's traces could tell."""
    found: dict[tuple[str, str], dict[str, bool]] = {}
    bad: set[tuple[str, str]] = set()
    for result in results:
        stream = (result.host, result.stream)
        if result.status is not Status.JUDGED:
            bad.add(stream)
        codes = found.setdefault(stream, {})
        for row in result.checks:
            # Nothing to judge, and nothing missing: what it would have found did not happen.
            idle = not row.decided and not row.undecided and not row.reasons
            able = row.verdict is not Verdict.NOT_CHECKED or idle
            codes[row.code] = able and codes.get(row.code, True)
    return {stream: {} if stream in bad else codes for stream, codes in found.items()}


def _added(
    old: tuple[FindingRow, TraceResult] | None, finding: FindingRow, result: TraceResult
) -> tuple[FindingRow, TraceResult]:
    """One finding in several traces of a stream is one: the first, with all their counts."""
    if old is None:
        return finding, result
    first, told = old
    return _counted(first, first.count + finding.count), told


def _absent(finding: FindingRow) -> FindingRow:
    return _counted(finding, 0)


def _counted(finding: FindingRow, count: int) -> FindingRow:
    return replace(finding, count=count)


def _nowhere(host: str, stream: str, night: str) -> TraceResult:
    return TraceResult(host=host, stream=stream, night=night, trace="", size=0, status=Status.BAD)


def _row(
    of: TraceResult,
    state: State,
    first: str,
    last: str,
    finding: FindingRow,
    ignore: Sequence[Ignore],
    night: str,
    report: str | None,
) -> Compared:
    today = date.fromisoformat(night)
    rule = next(
        (
            rule
            for rule in ignore
            if today <= rule.until
            and rule.covers(
                finding=finding.id,
                code=finding.code,
                name=finding.name,
                host=of.host,
                stream=of.stream,
            )
        ),
        None,
    )
    return Compared(
        host=of.host,
        stream=of.stream,
        night=night,
        state=state,
        first_seen=first,
        last_seen=last,
        finding=finding,
        kernel=of.kernel,
        qemu=of.qemu,
        report=report,
        ignored=rule.reason if rule else None,
    )


def _order(row: Compared) -> tuple[int, int, bool, str, str, str]:
    states = (State.NEW, State.FLAPPING, State.STILL, State.UNJUDGED, State.GONE)
    f = row.finding
    return f.severity.rank, states.index(row.state), row.ignored is not None, row.host, \
        row.stream, f.id  # fmt: skip
