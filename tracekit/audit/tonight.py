"""Of a replay that went on from the night before: what is tonight's.

Such a replay's result is that of all traces since the chain began (docs/checkpoints.md).  Tonight's
are the findings that occurred again, and those whose occurrence lasted into tonight: a mapping that
was made yesterday and never removed is found every night until it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from tracekit.findings import Finding, Judged, Occurrence, Outcome, ReplayResult

__all__ = ("Totals", "tonight", "totals_of")

_OF_THE_WHOLE = ("TK107", "TK901", "TK902")
"""What these judge is a container or a trace, tonight too; the others count occasions."""


@dataclass(frozen=True, kw_only=True)
class Totals:
    """What a chain had counted: by check decided and undecided, and why; by finding how often."""

    decided: dict[str, int] = field(default_factory=dict)
    undecided: dict[str, int] = field(default_factory=dict)
    reasons: dict[str, dict[str, int]] = field(default_factory=dict)
    findings: dict[str, int] = field(default_factory=dict)


def totals_of(result: ReplayResult) -> Totals:
    """The counts of all traces of a chain so far."""
    return Totals(
        decided={o.code: o.judged.decided for o in result.outcomes},
        undecided={o.code: o.judged.undecided for o in result.outcomes},
        reasons={o.code: dict(o.judged.reasons) for o in result.outcomes},
        findings={f.id: f.count for f in result.findings},
    )


def tonight(result: ReplayResult, before: Totals, first_ns: int) -> ReplayResult:
    """The result without what ended before ``first_ns``, tonight's first moment."""
    return replace(result, outcomes=tuple(_since(o, before, first_ns) for o in result.outcomes))


def _since(outcome: Outcome, before: Totals, first_ns: int) -> Outcome:
    code, judged = outcome.code, outcome.judged
    reasons = _more(judged.reasons, before.reasons.get(code, {}))
    kept = [_lasting(f, before.findings.get(f.id, 0), first_ns) for f in outcome.findings]
    decided = judged.decided - before.decided.get(code, 0)
    return replace(
        outcome,
        judged=Judged(
            decided=judged.decided if code in _OF_THE_WHOLE else max(0, decided),
            undecided=max(0, judged.undecided - before.undecided.get(code, 0)),
            reasons=reasons if judged.decided else dict(judged.reasons),
        ),
        findings=tuple(f for f in kept if f is not None),
    )


def _more(now: Mapping[str, int], before: Mapping[str, int]) -> dict[str, int]:
    return {why: n - before.get(why, 0) for why, n in now.items() if n > before.get(why, 0)}


def _lasting(finding: Finding, before: int, first_ns: int) -> Finding | None:
    here = tuple(o for o in finding.occurrences if _is_tonight(o, first_ns))
    more = finding.count - before
    if not here and more <= 0:
        return None
    return replace(finding, occurrences=here, count=max(more, len(here)))


def _is_tonight(one: Occurrence, first_ns: int) -> bool:
    return one.until_ns is None or max(one.from_ns, one.until_ns) >= first_ns
