"""What is kept of one judged trace, and of one stream's traces of a night, as JSON."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any

from tracekit.audit.tonight import Totals
from tracekit.findings import Confidence, Severity, Verdict
from tracekit.store import Place
from tracekit.store.location import put

__all__ = ("CheckRow", "FindingRow", "Kept", "Status", "TraceResult", "file_name", "keep", "kept")

SCHEMA = 1


class Status(Enum):
    """Judged; or not to be read; or our own mistake, or the worker's end, which may pass."""

    JUDGED = "judged"
    BAD = "bad"
    CRASHED = "crashed"


@dataclass(frozen=True, kw_only=True)
class CheckRow:
    """How much one check could judge in one trace."""

    code: str
    name: str
    verdict: Verdict
    decided: int
    undecided: int
    reasons: tuple[tuple[str, int], ...]


@dataclass(frozen=True, kw_only=True)
class FindingRow:
    """One finding without its occurrences, which are in the trace's own report."""

    id: str
    code: str
    name: str
    severity: Severity
    confidence: Confidence
    title: str
    vm: str | None
    device: str | None
    cause: str
    count: int
    from_ns: int | None
    until_ns: int | None


@dataclass(frozen=True, kw_only=True)
class TraceResult:
    """One trace judged, or why not.  Nothing in it depends on when, where or how fast that was.

    ``bytes_read``: of a trace that is not on this machine, by everything that was asked of it.
    ``since``: it began with the state in which the stream's trace before had ended.
    ``report``: the trace's page, in the audit's folder.
    """

    host: str
    stream: str
    night: str
    trace: str
    size: int
    status: Status
    error: str | None = None
    kernel: str | None = None
    qemu: str | None = None
    events: int = 0
    lost_events: int = 0
    bytes_read: int | None = None
    since: bool = False
    checks: tuple[CheckRow, ...] = ()
    findings: tuple[FindingRow, ...] = ()
    report: str | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Kept:
    """A result, what it was made of (``key``), and the state that it ended in, if that is kept.

    ``checkpoint``: the state's file in the audit's folder; ``digest``: of its content; ``totals``:
    what the replay had counted since its chain began.
    """

    key: str
    result: TraceResult
    checkpoint: str | None = None
    digest: str | None = None
    totals: Totals = field(default_factory=Totals)


def file_name(*names: str) -> str:
    """One safe file name for a stream's or a trace's name, whatever it has in it."""
    whole = "/".join(names)
    safe = re.sub(r"[^A-Za-z0-9._-]+", "_", whole).strip("._")[-60:]
    digest = hashlib.sha256(whole.encode("utf-8", "surrogateescape")).hexdigest()[:10]
    return f"{safe}-{digest}" if safe else digest


def keep(place: Place, parts: Sequence[Kept]) -> None:
    """Write a stream's night.

    :raises OSError: it cannot be written
    """
    document = {"schema": SCHEMA, "parts": [_plain(asdict(p)) for p in parts]}
    put(place, (json.dumps(document, indent=1, ensure_ascii=True) + "\n").encode())


def kept(place: Place) -> list[Kept]:
    """What :func:`keep` wrote; nothing if it is not there or is of another version."""
    try:
        with place.open("rb") as file:
            document = json.loads(file.read())
        if document["schema"] != SCHEMA:
            return []
        return [
            Kept(**{**part, "result": _result(part["result"]), "totals": Totals(**part["totals"])})
            for part in document["parts"]
        ]
    except (OSError, ValueError, KeyError, TypeError):
        return []


def _result(raw: dict[str, Any]) -> TraceResult:
    checks = tuple(
        CheckRow(
            **{
                **one,
                "verdict": Verdict(one["verdict"]),
                "reasons": tuple((str(name), int(count)) for name, count in one["reasons"]),
            }
        )
        for one in raw["checks"]
    )
    findings = tuple(
        FindingRow(
            **{
                **one,
                "severity": Severity(one["severity"]),
                "confidence": Confidence(one["confidence"]),
            }
        )
        for one in raw["findings"]
    )
    more = {"status": Status(raw["status"]), "notes": tuple(raw["notes"])}
    return TraceResult(**{**raw, **more, "checks": checks, "findings": findings})


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value.value if isinstance(value, Enum) else value
