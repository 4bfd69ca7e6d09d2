"""What every audit found, as Parquet: ``history/findings/NIGHT.parquet``, ``traces/``, ``checks/``.

Any night's files can be written again: they depend on nothing but that night's traces and the
nights before.  DuckDB and polars read all nights in one line (docs/fleet.md).
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tracekit.audit.compare import Compared, Key, Seen
from tracekit.audit.config import State
from tracekit.audit.results import FindingRow, TraceResult
from tracekit.errors import TracekitError
from tracekit.findings import Confidence, Severity
from tracekit.store import Place
from tracekit.store.location import is_there, put

__all__ = ("History", "Night")

_TEXT = pa.dictionary(pa.int32(), pa.utf8())
_STREAM = (
    pa.field("night", pa.date32(), nullable=False),
    pa.field("host", _TEXT, nullable=False),
    pa.field("stream", _TEXT, nullable=False),
)
_FINDINGS = pa.schema(
    [
        *_STREAM,
        pa.field("id", pa.utf8(), nullable=False),
        pa.field("code", _TEXT, nullable=False),
        pa.field("name", _TEXT, nullable=False),
        pa.field("severity", _TEXT, nullable=False),
        pa.field("confidence", _TEXT, nullable=False),
        pa.field("state", _TEXT, nullable=False),
        pa.field("first_seen", pa.date32(), nullable=False),
        pa.field("last_seen", pa.date32(), nullable=False),
        pa.field("count", pa.int64(), nullable=False),
        pa.field("title", pa.utf8(), nullable=False),
        pa.field("vm", pa.utf8()),
        pa.field("device", pa.utf8()),
        pa.field("cause", pa.utf8(), nullable=False),
        pa.field("from_ns", pa.int64()),
        pa.field("until_ns", pa.int64()),
        pa.field("kernel", _TEXT),
        pa.field("qemu", _TEXT),
        pa.field("ignored", pa.utf8()),
        pa.field("report", pa.utf8()),
    ]
)
_TRACES = pa.schema(
    [
        *_STREAM,
        pa.field("trace", pa.utf8(), nullable=False),
        pa.field("status", _TEXT, nullable=False),
        pa.field("error", pa.utf8()),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("bytes_read", pa.int64()),
        pa.field("events", pa.int64(), nullable=False),
        pa.field("lost_events", pa.int64(), nullable=False),
        pa.field("kernel", _TEXT),
        pa.field("qemu", _TEXT),
        pa.field("since", pa.bool_(), nullable=False),
    ]
)
_CHECKS = pa.schema(
    [
        *_STREAM,
        pa.field("trace", pa.utf8(), nullable=False),
        pa.field("code", _TEXT, nullable=False),
        pa.field("verdict", _TEXT, nullable=False),
        pa.field("decided", pa.int64(), nullable=False),
        pa.field("undecided", pa.int64(), nullable=False),
        pa.field("reasons", pa.map_(pa.utf8(), pa.int64()), nullable=False),
        pa.field("kernel", _TEXT),
        pa.field("qemu", _TEXT),
    ]
)


class Night:
    """What the history says of one earlier night, in numbers: for the trend."""

    def __init__(self, night: str, traces: pa.Table, findings: pa.Table, checks: pa.Table) -> None:
        self.night = night
        self.streams = sorted(
            set(
                zip(
                    traces.column("host").to_pylist(),
                    traces.column("stream").to_pylist(),
                    strict=True,
                )
            )
        )
        self.traces = traces.num_rows
        self.bad = sum(status != "judged" for status in traces.column("status").to_pylist())
        there = [
            row
            for row in findings.select(["severity", "state", "ignored"]).to_pylist()
            if State(row["state"]).is_there and row["ignored"] is None
        ]
        self.found = {
            severity: sum(row["severity"] == severity.value for row in there)
            for severity in Severity
        }
        self.decided: dict[str, int] = {}
        self.undecided: dict[str, int] = {}
        for row in checks.select(["code", "decided", "undecided"]).to_pylist():
            self.decided[row["code"]] = self.decided.get(row["code"], 0) + row["decided"]
            self.undecided[row["code"]] = self.undecided.get(row["code"], 0) + row["undecided"]

    @property
    def undecided_share(self) -> float:
        """Of all that could have been judged."""
        left, total = sum(self.undecided.values()), sum(self.decided.values())
        return left / (left + total) if left + total else 0.0


class History:
    """The nights before, in the audit's folder."""

    def __init__(self, folder: Place) -> None:
        self._folder = folder

    def nights(self, before: str, most: int) -> list[Night]:
        """Those of the last ``most`` days before a night, oldest first.

        :raises TracekitError: a file is there and cannot be read
        """
        return [
            Night(
                night,
                self._read("traces", night, _TRACES),
                self._read("findings", night, _FINDINGS),
                self._read("checks", night, _CHECKS),
            )
            for night in self._dates(before, most)
        ]

    def seen(self, before: str, most: int) -> dict[Key, Seen]:
        """By finding, what those nights said of it."""
        found: dict[Key, Seen] = {}
        for night in self._dates(before, most):
            for row in self._read("findings", night, _FINDINGS).to_pylist():
                key = (row["host"], row["stream"], row["id"])
                states = found[key].states if key in found else []
                states.append((night, State(row["state"])))
                found[key] = _seen(states, row)
        return found

    def write(self, night: str, results: Sequence[TraceResult], rows: Iterable[Compared]) -> None:
        """A night's three files; those that are there are replaced.

        :raises OSError: they cannot be written
        """
        day = date.fromisoformat(night)
        self._write("findings", night, _FINDINGS, [_finding(day, row) for row in rows])
        self._write("traces", night, _TRACES, [_trace(day, r) for r in results])
        self._write("checks", night, _CHECKS, [c for r in results for c in _checks(day, r)])

    def has_later(self, night: str) -> bool:
        """Whether a night after this one was audited."""
        return any(other > night for other in self._every())

    def _dates(self, before: str, most: int) -> list[str]:
        first = date.fromordinal(max(1, date.fromisoformat(before).toordinal() - most)).isoformat()
        return [n for n in self._every() if first <= n < before]

    def _every(self) -> list[str]:
        try:
            names = [p.name for p in (self._folder / "history" / "traces").iterdir()]
        except FileNotFoundError:
            return []
        except OSError as why:
            if not is_there(self._folder / "history" / "traces"):
                return []
            raise TracekitError(f"cannot list {self._folder}/history: {why.strerror}") from None
        return sorted(n.removesuffix(".parquet") for n in names if n.endswith(".parquet"))

    def _read(self, table: str, night: str, schema: pa.Schema) -> pa.Table:
        place = self._folder / "history" / table / f"{night}.parquet"
        try:
            with place.open("rb") as file:
                read = pq.read_table(io.BytesIO(file.read()))
            return read.select(schema.names).cast(schema)
        except (OSError, KeyError, ValueError, pa.ArrowException) as why:
            said = str(why).splitlines()[0] if str(why) else type(why).__name__
            raise TracekitError(
                f"the history's {place} cannot be read: {said[:200]}",
                help=f"remove it and run the audit again with --night {night}",
            ) from None

    def _write(
        self, table: str, night: str, schema: pa.Schema, rows: Sequence[Mapping[str, Any]]
    ) -> None:
        arrays = [pa.array([row[f.name] for row in rows], f.type) for f in schema]
        out = io.BytesIO()
        made = pa.Table.from_arrays(arrays, schema=schema)
        pq.write_table(made, out, compression="zstd")
        put(self._folder / "history" / table / f"{night}.parquet", out.getvalue())


def _seen(states: list[tuple[str, State]], row: Mapping[str, Any]) -> Seen:
    return Seen(
        states=states,
        first_seen=row["first_seen"].isoformat(),
        last_seen=row["last_seen"].isoformat(),
        finding=FindingRow(
            id=row["id"],
            code=row["code"],
            name=row["name"],
            severity=Severity(row["severity"]),
            confidence=Confidence(row["confidence"]),
            title=row["title"],
            vm=row["vm"],
            device=row["device"],
            cause=row["cause"],
            count=row["count"],
            from_ns=row["from_ns"],
            until_ns=row["until_ns"],
        ),
    )


def _finding(day: date, row: Compared) -> dict[str, Any]:
    f = row.finding
    return {
        **_stream(day, row),
        "id": f.id,
        "code": f.code,
        "name": f.name,
        "severity": f.severity.value,
        "confidence": f.confidence.value,
        "state": row.state.value,
        "first_seen": date.fromisoformat(row.first_seen),
        "last_seen": date.fromisoformat(row.last_seen),
        "count": f.count,
        "title": _valid(f.title),
        "vm": _valid(f.vm),
        "device": _valid(f.device),
        "cause": _valid(f.cause),
        "from_ns": f.from_ns,
        "until_ns": f.until_ns,
        "ignored": row.ignored,
        "report": row.report,
    }


def _trace(day: date, r: TraceResult) -> dict[str, Any]:
    return {
        **_stream(day, r),
        "trace": _valid(r.trace),
        "status": r.status.value,
        "error": _valid(r.error),
        "size": r.size,
        "bytes_read": r.bytes_read,
        "events": r.events,
        "lost_events": r.lost_events,
        "since": r.since,
    }


def _checks(day: date, r: TraceResult) -> Iterable[dict[str, Any]]:
    for row in r.checks:
        yield {
            **_stream(day, r),
            "trace": _valid(r.trace),
            "code": row.code,
            "verdict": row.verdict.value,
            "decided": row.decided,
            "undecided": row.undecided,
            "reasons": list(row.reasons),
        }


def _stream(day: date, of: Compared | TraceResult) -> dict[str, Any]:
    return {
        "night": day,
        "host": _valid(of.host),
        "stream": _valid(of.stream),
        "kernel": _valid(of.kernel),
        "qemu": _valid(of.qemu),
    }


def _valid(text: str | None) -> Any:
    """Surrogates of file names that are no UTF-8 spelled out."""
    return None if text is None else text.encode("utf-8", "backslashreplace").decode()
