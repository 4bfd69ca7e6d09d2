"""The report's last lines: how many findings, what held, and what could not be judged."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Sequence

from tracekit.findings import Outcome, ReplayResult, Severity, Verdict
from tracekit.report.escape import visible
from tracekit.report.units import plural

__all__ = ("footer", "reason_text")

_WIDTH = 80
_REASONS = {
    "loss": "events lost",
    "trace_end": "the trace ended first",
    "late_start": "the trace began too late",
    "no_vm": "no VM of the process is known",
}


def footer(result: ReplayResult) -> list[str]:
    """``1 error, 7 checks held (...), 6 not checked: ...``, wrapped."""
    counts = {s: sum(f.severity is s for f in result.findings) for s in Severity}
    parts = [plural(n, s.value) for s, n in counts.items() if n] or ["nothing found"]
    held = [o for o in result.outcomes if o.verdict is Verdict.HELD]
    if held:
        parts.append(f"{plural(len(held), 'check')} held{_judged(held)}")
    unchecked = [o for o in result.outcomes if o.verdict is Verdict.NOT_CHECKED]
    if unchecked:
        parts.append(f"{len(unchecked)} not checked: " + "; ".join(_by_reason(unchecked)))
    return textwrap.wrap(", ".join(parts), _WIDTH, break_on_hyphens=False)


def reason_text(reason: str) -> str:
    """A reason of :class:`~tracekit.findings.Judged`, in words."""
    if reason.startswith("no_event:"):
        return f"no {visible(reason.removeprefix('no_event:'), 40)} events"
    return _REASONS.get(reason, visible(reason.replace("_", " "), 60))


def _judged(held: Sequence[Outcome]) -> str:
    decided = sum(o.judged.decided for o in held)
    undecided = sum(o.judged.undecided for o in held)
    if not undecided:
        return f" ({decided:,} judged)"
    reasons: dict[str, int] = {}
    for outcome in held:
        for reason, n in outcome.judged.reasons.items():
            reasons[reason] = reasons.get(reason, 0) + n
    why = ", ".join(f"{n:,} not: {reason_text(r)}" for r, n in sorted(reasons.items()) if n)
    return f" ({decided:,} of {decided + undecided:,} judged" + (f"; {why})" if why else ")")


def _by_reason(unchecked: Sequence[Outcome]) -> Iterator[str]:
    """``TK301-TK306 (no vsock events)``: codes with the same reasons stand together."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for outcome in unchecked:
        groups.setdefault(tuple(sorted(outcome.judged.reasons)), []).append(outcome.code)
    for reasons, codes in groups.items():
        why = ", ".join(reason_text(r) for r in reasons) or "nothing to judge"
        yield f"{_codes(codes)} ({why})"


def _codes(codes: Sequence[str]) -> str:
    """Codes in a row are written as a range, where it is shorter."""
    runs: list[list[str]] = []
    for code in sorted(codes):
        if runs and code[:2] == "TK" and int(code[2:]) == int(runs[-1][-1][2:]) + 1:
            runs[-1].append(code)
        else:
            runs.append([code])
    return ", ".join(r[0] if len(r) == 1 else f"{r[0]}-{r[-1]}" for r in runs)
