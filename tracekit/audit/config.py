"""``audit.toml``: what is audited, how, and what of it is bad."""

from __future__ import annotations

import fnmatch
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from enum import Enum
from pathlib import Path

from tracekit.audit.keys import Keys
from tracekit.audit.sources import split_pattern
from tracekit.errors import TracekitError, UsageError
from tracekit.events import EVENT_TYPES
from tracekit.findings import Severity
from tracekit.store.location import parsed_uri

__all__ = (
    "AuditConfig",
    "Checks",
    "Execution",
    "ExecutorKind",
    "Ignore",
    "Outputs",
    "Reports",
    "State",
    "Thresholds",
    "load_config",
)

_MOST_BYTES = 1 << 20


class State(Enum):
    """What became of a finding since the nights before (docs/fleet.md)."""

    NEW = "new"
    STILL = "still"
    FLAPPING = "flapping"
    GONE = "gone"
    UNJUDGED = "unjudged"

    @property
    def is_there(self) -> bool:
        """Found tonight."""
        return self in (State.NEW, State.STILL, State.FLAPPING)


class ExecutorKind(Enum):
    """Where traces are judged."""

    IN_PROCESS = "in-process"
    PROCESSES = "processes"
    DASK = "dask"


class Reports(Enum):
    """Of which traces a page is made."""

    ALL = "all"
    FINDINGS = "findings"
    NONE = "none"


class _Model(Enum):
    LEGACY = "legacy"
    V1 = "v1"
    MERGED = "merged"


class _Generation(Enum):
    V4 = "v4"
    MERGED = "merged"
    SOURCES = "11.1"
    AUTO = "auto"


@dataclass(frozen=True, kw_only=True)
class Checks:
    """How each trace is judged; the same as the options of ``tracekit replay``.

    ``chain``: each night goes on from the state at the end of the night before, if no more than
    ``gap_ns`` lies between them.  ``recorded``: event types that are recorded everywhere, also on
    nights on which none comes.
    """

    only: tuple[str, ...] = ()
    grace_ns: int = 1_000_000
    in_place: bool = False
    generation: str = "auto"
    linger_model: str | None = None
    slack_ns: int | None = None
    chain: bool = True
    gap_ns: int = 60_000_000_000
    recorded: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """When the audit fails.  Shares are of what could have been judged, 0 to 1."""

    fail_on: Severity = Severity.ERROR
    states: tuple[State, ...] = (State.NEW, State.STILL, State.FLAPPING)
    max_undecided: float = 1.0
    max_undecided_rise: float = 1.0
    max_bad_traces: int = 0
    max_missing: int = 0


@dataclass(frozen=True, kw_only=True)
class Ignore:
    """Findings that do not fail the audit until a day, and why.  Patterns as in file names."""

    reason: str
    until: date
    finding: str = "*"
    check: str = "*"
    host: str = "*"
    stream: str = "*"

    def covers(self, *, finding: str, code: str, name: str, host: str, stream: str) -> bool:
        """Whether it means this finding, on whatever night."""
        match = fnmatch.fnmatchcase
        return (
            match(finding, self.finding)
            and (match(code, self.check) or match(name, self.check))
            and match(host, self.host)
            and match(stream, self.stream)
        )

    def __str__(self) -> str:
        words = {
            "finding": self.finding,
            "check": self.check,
            "host": self.host,
            "stream": self.stream,
        }
        return ", ".join(f"{k} {v}" for k, v in words.items() if v != "*")


@dataclass(frozen=True, kw_only=True)
class Execution:
    """Where and in what pieces.  ``workers`` 0: as many as this machine may use."""

    kind: ExecutorKind = ExecutorKind.PROCESSES
    workers: int = 0
    scheduler: str | None = None
    shard_events: int = 20_000_000
    retries: int = 2


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """``folder``: results, history and pages; a path or a URI that every worker reaches.

    ``checkpoint_nights``: how long states are kept from which a night can go on.  ``metrics``: the
    Prometheus textfile, besides the one in the folder.
    """

    folder: str
    trace_reports: Reports = Reports.ALL
    trend_nights: int = 30
    flapping_nights: int = 7
    checkpoint_nights: int = 7
    metrics: str | None = None


@dataclass(frozen=True, kw_only=True)
class AuditConfig:
    """A whole ``audit.toml``.  ``sources``: folders (patterns) above ``host=``, absolute."""

    name: str
    sources: tuple[str, ...]
    checks: Checks
    thresholds: Thresholds
    ignore: tuple[Ignore, ...]
    execution: Execution
    outputs: Outputs


def load_config(path: Path, *, checks: Mapping[str, str]) -> AuditConfig:
    """Read and validate; relative paths are relative to the file.  ``checks``: names by code.

    :raises UsageError: it cannot be read, or a key is wrong; the message names the key
    """
    try:
        with path.open("rb") as file:
            raw = file.read(_MOST_BYTES + 1)
    except OSError as why:
        raise UsageError(f"cannot read {path}: {why.strerror}") from None
    if len(raw) > _MOST_BYTES:
        raise UsageError(f"{path} is larger than {_MOST_BYTES >> 20} MiB")
    try:
        table = tomllib.loads(raw.decode("utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, RecursionError) as why:
        raise UsageError(f"{path} is not TOML: {str(why)[:200]}") from None
    top = Keys(table, str(path))
    config = AuditConfig(
        name=top.text("name", path.stem),
        sources=tuple(_source(one, path.parent) for one in top.tables("sources")),
        checks=_checks(top.table("checks"), checks),
        thresholds=_thresholds(top.table("thresholds")),
        ignore=tuple(_ignore(one, checks) for one in top.tables("ignore")),
        execution=_execution(top.table("executor")),
        outputs=_outputs(top.table("outputs"), path.parent),
    )
    top.done()
    if not config.sources:
        raise top.wrong("sources", "is missing", help='[[sources]] and below it root = "/srv/..."')
    return config


def _source(keys: Keys, folder: Path) -> str:
    root = keys.text("root")
    keys.done()
    return _place(keys, "root", root, folder)


def _checks(keys: Keys, known: Mapping[str, str]) -> Checks:
    by_name = {name: code for code, name in known.items()}
    only = []
    for given in keys.texts("only"):
        if given not in known and given not in by_name:
            raise keys.wrong(
                "only", f"has {given!r}, which is no check", help="tracekit checks lists them"
            )
        only.append(by_name.get(given, given))
    model = keys.text_or_none("linger_model")
    if model is not None and model not in {m.value for m in _Model}:
        raise keys.wrong("linger_model", f"is {model!r}, none of legacy, v1, merged")
    found = Checks(
        only=tuple(dict.fromkeys(only)),
        grace_ns=keys.duration("grace", 1_000_000) or 0,
        in_place=keys.flag("in_place"),
        generation=keys.choice("generation", _Generation, _Generation.AUTO).value,
        linger_model=model,
        slack_ns=keys.duration("slack", None),
        chain=keys.flag("chain", True),
        gap_ns=keys.duration("gap", 60_000_000_000) or 0,
        recorded=_recorded(keys),
    )
    if "TK111" in found.only and not found.in_place:
        raise keys.wrong("only", "has TK111, which needs in_place = true")
    keys.done()
    return found


def _recorded(keys: Keys) -> tuple[str, ...]:
    names = keys.texts("recorded")
    for name in names:
        if name not in EVENT_TYPES:
            raise keys.wrong(
                "recorded", f"has {name!r}, which is no event type", help="tracekit schema"
            )
    return tuple(sorted(set(names)))


def _thresholds(keys: Keys) -> Thresholds:
    usual = Thresholds()
    states = keys.choices("states", State, usual.states)
    found = Thresholds(
        fail_on=keys.choice("fail_on", Severity, usual.fail_on),
        states=states,
        max_undecided=keys.share("max_undecided", usual.max_undecided),
        max_undecided_rise=keys.share("max_undecided_rise", usual.max_undecided_rise),
        max_bad_traces=keys.whole("max_bad_traces", usual.max_bad_traces),
        max_missing=keys.whole("max_missing", usual.max_missing),
    )
    if not all(state.is_there for state in states):
        raise keys.wrong("states", "may have new, still and flapping: what was found tonight")
    keys.done()
    return found


def _ignore(keys: Keys, known: Mapping[str, str]) -> Ignore:
    rule = Ignore(
        reason=keys.text("reason"),
        until=keys.day("until"),
        finding=keys.text("finding", "*"),
        check=keys.text("check", "*"),
        host=keys.text("host", "*"),
        stream=keys.text("stream", "*"),
    )
    keys.done()
    if not str(rule):
        raise keys.wrong(
            "reason", "stands alone: the rule would ignore everything",
            help="add finding, check, host or stream",
        )  # fmt: skip
    names = [*known, *known.values()]
    if rule.check != "*" and not any(fnmatch.fnmatchcase(n, rule.check) for n in names):
        raise keys.wrong("check", f"is {rule.check!r}, which is no check")
    return rule


def _execution(keys: Keys) -> Execution:
    usual = Execution()
    found = Execution(
        kind=keys.choice("kind", ExecutorKind, usual.kind),
        workers=keys.whole("workers", usual.workers),
        scheduler=keys.text_or_none("scheduler"),
        shard_events=keys.whole("shard_events", usual.shard_events, least=1000),
        retries=keys.whole("retries", usual.retries),
    )
    keys.done()
    if found.kind is ExecutorKind.DASK and found.scheduler is None:
        raise keys.wrong("scheduler", "is missing", help='scheduler = "tcp://10.0.0.1:8786"')
    if found.kind is not ExecutorKind.DASK and found.scheduler is not None:
        raise keys.wrong("scheduler", f"is for dask, and kind is {found.kind.value}")
    if found.scheduler and not re.fullmatch(r"(tcp|tls|ucx)://[^\s/]+:\d+", found.scheduler):
        raise keys.wrong("scheduler", f"is {found.scheduler!r}, not like tcp://10.0.0.1:8786")
    return found


def _outputs(keys: Keys, folder: Path) -> Outputs:
    usual = Outputs(folder="audit")
    metrics = keys.text_or_none("metrics")
    found = Outputs(
        folder=_place(keys, "folder", keys.text("folder", usual.folder), folder),
        trace_reports=keys.choice("trace_reports", Reports, usual.trace_reports),
        trend_nights=keys.whole("trend_nights", usual.trend_nights, least=2),
        flapping_nights=keys.whole("flapping_nights", usual.flapping_nights, least=2),
        checkpoint_nights=keys.whole("checkpoint_nights", usual.checkpoint_nights, least=1),
        metrics=None if metrics is None else _place(keys, "metrics", metrics, folder),
    )
    keys.done()
    return found


def _place(keys: Keys, key: str, given: str, folder: Path) -> str:
    """A path made absolute; a URI as it is, if it can be one."""
    try:
        is_remote = parsed_uri(split_pattern(given)[0]) is not None
    except TracekitError as why:
        raise keys.wrong(key, f"cannot be used: {why.message}", help=why.help) from None
    if is_remote:
        return given
    if "://" in given and not given.startswith("file:///"):
        raise keys.wrong(key, f"is {given!r}, a kind of URI that is not known")
    return str(folder.absolute() / Path(given.removeprefix("file://")).expanduser())
