"""A written trace through the replay, and its answer in words short enough for a test."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path

from trace_language import trace_of

from replay import run
from replay.checks import CHECKS
from tracekit.events import Event, event_type
from tracekit.findings import Occurrence, Outcome, Severity
from tracekit.store import Manifest, open_trace, write_events

__all__ = ("alarms", "events_of", "example_of", "judge", "notes", "said")


def events_of(text: str, without: Collection[str] = ()) -> Iterator[Event]:
    """The rows of the test language as typed events; ``without``: types that nobody recorded."""
    for row in trace_of(text):
        if row["event"] in without:
            continue
        kind = event_type(row["event"])
        yield kind(**{k: v for k, v in row.items() if v is not None and k not in ("event", "seq")})


def example_of(code: str) -> str:
    """The trace on a check's page, which breaks its promise."""
    page = inspect.cleandoc(CHECKS[code].__doc__ or "")
    return page.split("\nExample\n")[1].split("\nWhat to look at\n")[0]


def judge(
    text: str,
    folder: Path,
    *,
    grace_ns: int = 1_000_000,
    in_place: bool = False,
    linger_model: str | None = None,
    slack_ns: int | None = None,
    clock_comparable: bool = True,
    without: Collection[str] = (),
) -> dict[str, Outcome]:
    """What the replay says of a written trace, by code."""
    path = folder / "t.parquet"
    path.unlink(missing_ok=True)
    manifest = None if clock_comparable else Manifest(clock_comparable=False)
    write_events(path, events_of(text, without), manifest)
    result = run(
        open_trace(path),
        grace_ns=grace_ns,
        in_place=in_place,
        linger_model=linger_model,
        slack_ns=slack_ns,
    )
    return {o.code: o for o in result.outcomes}


def said(outcome: Outcome) -> list[str]:
    """``error certain 0x100000+64K`` for each occurrence, in order of time and address."""
    rows = sorted(
        (o.from_ns, o.gpa or 0, f"{f.severity.value} {o.confidence.value} {_range(o)}")
        for f in outcome.findings
        for o in f.occurrences
    )
    return [text for _, _, text in rows]


def alarms(outcomes: Mapping[str, Outcome]) -> dict[str, list[str]]:
    """What was said at error or warning level, by code; empty is a quiet host."""
    told = {code: [s for s in said(o) if not s.startswith("note")] for code, o in outcomes.items()}
    return {code: texts for code, texts in told.items() if texts}


def notes(outcomes: Mapping[str, Outcome]) -> set[str]:
    """Codes with a note."""
    return {
        code for code, o in outcomes.items() if any(f.severity is Severity.NOTE for f in o.findings)
    }


def _range(o: Occurrence) -> str:
    if o.gpa is None or o.size is None:
        return "-"
    for unit, shift in (("G", 30), ("M", 20), ("K", 10)):
        if o.size >= 1 << shift and o.size % (1 << shift) == 0:
            return f"{o.gpa:#x}+{o.size >> shift}{unit}"
    return f"{o.gpa:#x}+{o.size}"
