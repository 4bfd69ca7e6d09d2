"""What a judge of sockets has judged, as a state that can be kept, and back."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from replay.engine.kept import Kept, State
from replay.linger.closing import check_records, closings_of
from replay.linger.judge import CODES, Breach, Judge
from replay.linger.kernel import layout as L
from tracekit.findings import Confidence, Severity

__all__ = ("judged_so_far", "take_up")

_SEVERITIES = {s.value for s in Severity}
_SURE = {c.value for c in Confidence}


def judged_so_far(judge: Judge) -> State:
    """The state."""
    rows = [[L.NULL if v is None else v for v in b.closing.row] for b in judge.breaches]
    return {
        "hz": judge.timing.hz,
        "rows": np.array(rows, np.int64).reshape(-1, L.R_COLS),
        "breaches": [
            [b.code, b.rule, b.severity.value, b.confidence.value, b.cause, b.what, b.unsent,
             list(b.notes), b.closing.hz, b.closing.read_ns]
            for b in judge.breaches
        ],
        "counts": {
            code: {"decided": count.decided, "reasons": dict(count.reasons)}
            for code, count in judge.counts.items()
        },
    }  # fmt: skip


def take_up(judge: Judge, kept: Kept) -> None:
    """Go on from what another judge had judged.

    :raises TraceFormatError: no state of a judge
    """
    judge.timing = replace(judge.timing, hz=kept.integer_or_none("hz", 1))
    told = kept.items("breaches")
    rows = kept.array("rows", len(told), L.R_COLS)
    check_records(kept, "rows", rows)
    judge.breaches = [_breach(kept, b, rows[i : i + 1]) for i, b in enumerate(told)]
    counts = kept.part("counts")
    for code, mine in judge.counts.items():
        mine.decided = counts.part(code).integer("decided", 0)
        mine.reasons = counts.part(code).counts("reasons")


def _breach(kept: Kept, told: object, row: Any) -> Breach:
    """A breach as the state has it."""
    kept.check(isinstance(told, list) and len(told) == 10, "breaches")
    assert isinstance(told, list)
    code, rule, severity, confidence, cause, what, unsent, notes, hz, read_ns = told
    kept.check(all(isinstance(text, str) for text in (code, rule, cause, what)), "breaches")
    kept.check(isinstance(notes, list) and all(isinstance(n, str) for n in notes), "breaches")
    kept.check(code in CODES, "breaches")
    kept.check(str(severity) in _SEVERITIES and str(confidence) in _SURE, "breaches")
    kept.check(hz is None or (type(hz) is int and 0 < hz < 1 << 32), "breaches")
    kept.check(type(read_ns) is int and (unsent is None or type(unsent) is int), "breaches")
    return Breach(
        code=code, rule=rule, closing=next(closings_of(row, hz=hz, last_ns=read_ns)),
        severity=Severity(severity), confidence=Confidence(confidence), cause=cause, what=what,
        unsent=unsent, notes=tuple(notes),
    )  # fmt: skip
