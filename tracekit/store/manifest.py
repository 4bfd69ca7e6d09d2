"""What a trace says about itself; kept as JSON in the Parquet file's key-value metadata."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from tracekit import __version__
from tracekit.errors import TraceFormatError
from tracekit.events import SCHEMA_VERSION
from tracekit.store.location import Place

__all__ = ("KEY", "Manifest", "RecordedName")

KEY = b"tracekit"
"""The key of the manifest in a Parquet file's metadata."""

_MAX_BYTES = 8 << 20
_MAX_TEXT = 4096
_MAX_ITEMS = 100_000
_INT64 = 1 << 63


@dataclass(frozen=True, kw_only=True)
class RecordedName:
    """One event name of the recording, and what the importer made of it.

    ``event`` null: no event type covers it, its ``count`` records are not in the table.
    ``function``: the probed function, where the recording shows it.
    """

    name: str
    count: int
    event: str | None = None
    function: str | None = None


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """Where a trace comes from, what it holds and what it lacks.

    ``lost_unknown``: the recorder dropped events without counting them, so ``lost_events`` is a
    lower bound.  ``disagreements`` counts, by name, where two sources of one fact said different
    things and the better one won.  ``span_ns`` is null for a trace without rows.
    ``clock_comparable``: whether times of different CPUs may be compared.
    ``incomparable``: what the ``source`` column begins with in rows whose clock could not be
    brought to the trace's; their times say nothing beside the other rows'.
    """

    schema: int = SCHEMA_VERSION
    tool: str = f"tracekit {__version__}"
    host: str | None = None
    kernel: str | None = None
    machine: str | None = None
    clock: str = "mono"
    cpus: int = 0
    span_ns: tuple[int, int] | None = None
    rows: int = 0
    first_seq: int = 0
    events: dict[str, int] = field(default_factory=dict)
    recorded: tuple[RecordedName, ...] = ()
    lost_events: int = 0
    loss_marks: int = 0
    lost_unknown: bool = False
    sources: tuple[dict[str, str | int | None], ...] = ()
    probes: tuple[str, ...] = ()
    disagreements: dict[str, int] = field(default_factory=dict)
    hz: int | None = None
    clock_comparable: bool = True
    incomparable: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        # a recording may claim to have lost any number of events
        object.__setattr__(self, "lost_events", min(self.lost_events, _INT64 - 1))

    @property
    def unrecognised(self) -> tuple[RecordedName, ...]:
        """What was recorded and no event type covers, most frequent first."""
        left = [r for r in self.recorded if r.event is None]
        return tuple(sorted(left, key=lambda r: (-r.count, r.name)))

    def to_json(self) -> str:
        """One line of JSON."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: bytes | str, path: Place) -> Manifest:
        """Read what :meth:`to_json` wrote; keys of a later version are ignored.

        :raises TraceFormatError: not a manifest, or of a schema that this version does not read
        """
        if len(text) > _MAX_BYTES:
            raise TraceFormatError(f"{path}: the manifest is larger than {_MAX_BYTES >> 20} MiB")
        try:
            raw = json.loads(text)
        except (ValueError, RecursionError):
            raise TraceFormatError(f"{path}: the manifest is not JSON") from None
        take = _Fields(raw, path)
        version = take.integer("schema")
        if version != SCHEMA_VERSION:
            raise TraceFormatError(
                f"{path} has trace schema {version}; this version reads {SCHEMA_VERSION}",
                help="import the recording again with this version",
            )
        span = take.items("span_ns") if raw.get("span_ns") is not None else None
        if span is not None and not (
            len(span) == 2 and all(_is_int(x) for x in span) and span[0] <= span[1]
        ):
            raise take.wrong("span_ns")
        return cls(
            schema=version,
            tool=take.text("tool"),
            host=take.text_or_none("host"),
            kernel=take.text_or_none("kernel"),
            machine=take.text_or_none("machine"),
            clock=take.text("clock"),
            cpus=take.integer("cpus"),
            span_ns=None if span is None else (span[0], span[1]),
            rows=take.integer("rows"),
            first_seq=take.integer("first_seq"),
            events=take.counts("events"),
            recorded=tuple(
                RecordedName(
                    name=one.text("name"),
                    count=one.integer("count"),
                    event=one.text_or_none("event"),
                    function=one.text_or_none("function"),
                )
                for one in (_Fields(r, path) for r in take.items("recorded"))
            ),
            lost_events=take.integer("lost_events"),
            loss_marks=take.integer("loss_marks"),
            lost_unknown=take.boolean("lost_unknown"),
            sources=tuple(_Fields(s, path).plain() for s in take.items("sources")),
            probes=tuple(take.texts("probes")),
            disagreements=take.counts("disagreements"),
            hz=None if raw.get("hz") is None else take.integer("hz"),
            clock_comparable="clock_comparable" not in raw or take.boolean("clock_comparable"),
            incomparable=tuple(take.texts("incomparable")) if "incomparable" in raw else (),
        )

    def merged(self, later: Manifest) -> Manifest:
        """This segment's manifest and the next one's as one.  Same host, same clock: asserted."""
        assert (self.host, self.clock) == (later.host, later.clock)
        spans = [s for s in (self.span_ns, later.span_ns) if s is not None]
        names = {(r.name, r.event): r for r in self.recorded}
        for r in later.recorded:
            before = names.get((r.name, r.event))
            names[r.name, r.event] = replace(r, count=r.count + before.count) if before else r
        return replace(
            self,
            cpus=max(self.cpus, later.cpus),
            span_ns=(min(s[0] for s in spans), max(s[1] for s in spans)) if spans else None,
            rows=self.rows + later.rows,
            events=_added(self.events, later.events),
            recorded=tuple(names.values()),
            lost_events=self.lost_events + later.lost_events,
            loss_marks=self.loss_marks + later.loss_marks,
            lost_unknown=self.lost_unknown or later.lost_unknown,
            sources=(*self.sources, *(s for s in later.sources if s not in self.sources)),
            probes=tuple(dict.fromkeys((*self.probes, *later.probes))),
            disagreements=_added(self.disagreements, later.disagreements),
            clock_comparable=self.clock_comparable and later.clock_comparable,
            incomparable=tuple(dict.fromkeys((*self.incomparable, *later.incomparable))),
        )


def _added(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return {k: one.get(k, 0) + other.get(k, 0) for k in sorted({*one, *other})}


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and -_INT64 <= value < _INT64


def _is_text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= _MAX_TEXT


class _Fields:
    """A JSON object of unknown origin, taken apart field by field."""

    def __init__(self, raw: object, path: Place) -> None:
        if not isinstance(raw, dict):
            raise TraceFormatError(f"{path}: the manifest is not a JSON object where one is due")
        self._raw: dict[str, Any] = raw
        self._path = path

    def wrong(self, name: str) -> TraceFormatError:
        return TraceFormatError(f"{self._path}: the manifest's {name!r} is missing or malformed")

    def integer(self, name: str) -> int:
        value = self._raw.get(name)
        if not _is_int(value) or value < 0:  # type: ignore[operator]
            raise self.wrong(name)
        return int(value)  # type: ignore[arg-type]

    def boolean(self, name: str) -> bool:
        value = self._raw.get(name)
        if not isinstance(value, bool):
            raise self.wrong(name)
        return value

    def text(self, name: str) -> str:
        value = self._raw.get(name)
        if not _is_text(value):
            raise self.wrong(name)
        return str(value)

    def text_or_none(self, name: str) -> str | None:
        return None if self._raw.get(name) is None else self.text(name)

    def items(self, name: str) -> list[Any]:
        value = self._raw.get(name)
        if not isinstance(value, list) or len(value) > _MAX_ITEMS:
            raise self.wrong(name)
        return value

    def texts(self, name: str) -> Iterable[str]:
        values = self.items(name)
        if not all(_is_text(v) for v in values):
            raise self.wrong(name)
        return values

    def counts(self, name: str) -> dict[str, int]:
        value = self._raw.get(name)
        if not isinstance(value, dict) or len(value) > _MAX_ITEMS:
            raise self.wrong(name)
        if not all(_is_text(k) and _is_int(v) and v >= 0 for k, v in value.items()):
            raise self.wrong(name)
        return value

    def plain(self) -> dict[str, str | int | None]:
        if len(self._raw) > 100 or not all(
            _is_text(k) and (v is None or _is_text(v) or _is_int(v)) for k, v in self._raw.items()
        ):
            raise self.wrong("sources")
        return self._raw
