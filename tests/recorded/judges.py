"""The engine and its oracle, asked the same way: a stream of events in, violations out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pyarrow as pa
import reference_engine
from recorded.recordings import Stream
from reference_engine import Violation

import replay
from replay.checks.violations import Violations
from replay.engine.engine import judge
from replay.engine.stream import COLUMNS
from tracekit.report.json import render_json
from tracekit.store import arrow_schema, open_trace

__all__ = (
    "JUDGES",
    "Judge",
    "engine_violations",
    "error_pages",
    "judged_by_engine",
    "judged_by_reference",
    "replayed_json",
)

Judge = Callable[[Stream, int], list[Violation]]


def judged_by_engine(stream: Stream, grace_ns: int) -> list[Violation]:
    """What the engine says, in the reference's form; compiled, as many streams will follow."""
    return _engine(stream.table(), stream.events(), grace_ns, compiled=True)


def judged_by_reference(stream: Stream, grace_ns: int) -> list[Violation]:
    """What the oracle says."""
    return reference_engine.replay(stream.rows(), grace_ns).violations


JUDGES: dict[str, Judge] = {"engine": judged_by_engine, "reference": judged_by_reference}


def engine_violations(
    rows: Iterable[dict[str, Any]], grace_ns: int, *, in_place: bool = False
) -> list[Violation]:
    """The engine's answer for rows as the reference takes them."""
    listed = list(rows)
    schema = arrow_schema()
    arrays = [pa.array([row.get(f.name) for row in listed], f.type) for f in schema]
    table = pa.Table.from_arrays(arrays, schema=schema)
    events = Counter(row["event"] for row in listed)
    return _engine(table, events, grace_ns, in_place=in_place)


def _engine(
    table: pa.Table,
    events: Counter[str],
    grace_ns: int,
    *,
    in_place: bool = False,
    compiled: bool | None = None,
) -> list[Violation]:
    batches = table.select(COLUMNS).combine_chunks().to_batches()
    with patch("replay.engine.settling.LISTED", 1 << 30):  # of no cause only the first ones
        judgement = judge(
            batches, events=events, grace_ns=grace_ns, in_place=in_place, compiled=compiled
        )
    found = Violations.of(judgement, host=None, lost_events=0)
    out = [
        Violation(
            f"TK{v.kind}", v.severity.value, v.confidence.value, v.identity.vm.pid,
            v.address, v.size, v.from_ns, v.until_ns, v.events,
        )
        for v in found.all()
    ]  # fmt: skip
    for t0, t1, seq in found.losses:
        out.append(Violation("TK901", "note", "certain", None, None, None, t0, t1, (seq,)))
    for held, said, seq in found.clock_back:
        out.append(Violation("TK902", "warning", "certain", None, None, None, held, said, (seq,)))
    return out


def replayed_json(path: Path, grace_ns: int) -> list[Violation]:
    """What ``tracekit replay --format json`` says of a trace, one violation for each occurrence."""
    document = json.loads(render_json(replay.run(open_trace(path), grace_ns=grace_ns)))
    out = []
    for finding in document["findings"]:
        assert finding["count"] == len(finding["occurrences"]) or finding["count"] > 100
        for o in finding["occurrences"]:
            out.append(
                Violation(
                    finding["code"], finding["severity"], finding["confidence"],
                    finding["vm"]["pid"], o["gpa"] if o["iova"] is None else o["iova"], o["size"],
                    o["from_ns"], o["until_ns"], tuple(o["events"]),
                )
            )  # fmt: skip
    return out


def error_pages(violations: Iterable[Violation]) -> dict[str, set[int]]:
    """Per code, every page that stands in an error; -1 for an error without pages."""
    out: dict[str, set[int]] = {}
    for v in violations:
        if v.severity == "error":
            pages: Iterable[int] = (-1,)
            if v.iova is not None and v.size is not None:
                pages = reference_engine.pages_of(v.iova, v.size)
            out.setdefault(v.code, set()).update(pages)
    return out
