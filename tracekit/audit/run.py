"""A whole audit: find, judge, compare, keep, tell.  The function behind ``tracekit audit``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import date, timedelta
from itertools import groupby

from tracekit.audit.compare import Compared, Share, compare, missing_streams, shares
from tracekit.audit.config import AuditConfig, Ignore
from tracekit.audit.executors import Executor, executor_of
from tracekit.audit.history import History, Night
from tracekit.audit.judging import Chain, record_path, unchanged
from tracekit.audit.results import Kept, Status, TraceResult, kept
from tracekit.audit.sources import Found, hosts_in, nights_in, traces_of
from tracekit.audit.task import Settings
from tracekit.audit.together import each
from tracekit.errors import TracekitError, UsageError
from tracekit.report.units import plural
from tracekit.store import Place, Remote, locate
from tracekit.store.location import remove

__all__ = ("Audited", "audit")


@dataclass(frozen=True, kw_only=True)
class Audited:
    """What a night's audit says.  ``redone``: how many traces were judged for it, not kept ones.

    ``reasons``: why the audit fails, a sentence each; none if it does not.
    ``expired``: rules that no longer count, and how many of tonight's findings they would cover.
    ``unused``: rules that cover nothing.  ``nights``: those before, oldest first.  ``is_newest``:
    no later night was audited yet.
    """

    config: AuditConfig
    night: str
    results: tuple[TraceResult, ...]
    findings: tuple[Compared, ...]
    missing: tuple[tuple[str, str], ...]
    shares: tuple[Share, ...]
    nights: tuple[Night, ...]
    expired: tuple[tuple[Ignore, int], ...]
    unused: tuple[Ignore, ...]
    reasons: tuple[str, ...]
    redone: int
    is_newest: bool

    @property
    def failing(self) -> list[Compared]:
        """The findings that fail the audit."""
        limits = self.config.thresholds
        return [
            row
            for row in self.findings
            if row.ignored is None
            and row.state in limits.states
            and row.finding.severity.rank <= limits.fail_on.rank
        ]

    @property
    def bad(self) -> list[TraceResult]:
        """Traces that could not be judged at all."""
        return [r for r in self.results if r.status is not Status.JUDGED]


def audit(
    config: AuditConfig,
    night: str | None = None,
    *,
    executor: Executor | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Audited:
    """Judge a night's traces, the newest night's if none is said, and write the history.

    ``executor``: instead of the configured one.  ``progress`` is called with the number of traces
    done, and of all.

    :raises TracekitError: the sources cannot be listed, or the folder cannot be written
    """
    hosts = hosts_in(config.sources)
    if not hosts:
        raise TracekitError(
            f"there is no host= folder in {', '.join(config.sources)}",
            help="the layout is host=NAME/date=YYYY-MM-DD/vm=NAME/*.parquet",
        )
    if night is None:
        nights = nights_in(hosts)
        if not nights:
            raise TracekitError(f"no host of {', '.join(config.sources)} has a date= folder")
        night = nights[-1]
    history = History(locate(config.outputs.folder))
    days = max(config.outputs.trend_nights, config.outputs.flapping_nights)
    before = history.nights(night, days)
    found = traces_of(hosts, night)
    if not found and not before:
        raise UsageError(f"there are no traces of the night {night}")
    chains = _chains(config, found, night)
    results, redone = _judged(config, chains, executor, progress)
    rows = compare(
        results,
        history.seen(night, days),
        night=night,
        window=config.outputs.flapping_nights,
        ignore=config.ignore,
    )
    history.write(night, results, rows)
    _forget_states(config, night)
    missing = missing_streams(results, before[-1].streams if before else ())
    made = Audited(
        config=config,
        night=night,
        results=tuple(results),
        findings=tuple(rows),
        missing=tuple(missing),
        shares=tuple(shares(results)),
        nights=tuple(before),
        expired=tuple(_expired(config.ignore, rows, night)),
        unused=tuple(rule for rule in config.ignore if not _covered(rule, rows)),
        reasons=(),
        redone=redone,
        is_newest=not history.has_later(night),
    )
    return _with_reasons(made)


def _chains(config: AuditConfig, found: Sequence[Found], night: str) -> list[Chain]:
    settings = Settings(
        folder=config.outputs.folder,
        checks=config.checks,
        reports=config.outputs.trace_reports,
        shard_events=config.execution.shard_events,
    )
    yesterday = (date.fromisoformat(night) - timedelta(days=1)).isoformat()
    folder = locate(config.outputs.folder)
    groups = [
        (stream, tuple(traces)) for stream, traces in groupby(found, lambda f: (f.host, f.stream))
    ]
    ends = each(isinstance(folder, Remote), lambda g: _end_of(folder, yesterday, *g[0]), groups)
    return [
        Chain(traces=traces, settings=settings, since=end if config.checks.chain else None)
        for (_, traces), end in zip(groups, ends, strict=True)
    ]


def _end_of(folder: Place, night: str, host: str, stream: str) -> Kept | None:
    """The state in which a stream's night ended, if it is kept."""
    parts = kept(folder / record_path(night, host, stream))
    return parts[-1] if parts and parts[-1].checkpoint is not None else None


def _forget_states(config: AuditConfig, night: str) -> None:
    """States of nights from which no audit will go on any more."""
    folder = locate(config.outputs.folder) / "checkpoints"
    days = timedelta(days=config.outputs.checkpoint_nights)
    oldest = (date.fromisoformat(night) - days).isoformat()
    try:
        old = [p for p in folder.iterdir() if p.name <= oldest]
    except OSError:
        return
    for place in old:
        remove(place)


def _judged(
    config: AuditConfig,
    chains: Sequence[Chain],
    executor: Executor | None,
    progress: Callable[[int, int], None] | None,
) -> tuple[list[TraceResult], int]:
    """All results, in order, and how many of them are not the kept ones."""
    total = sum(len(c.traces) for c in chains)
    remote = isinstance(locate(config.outputs.folder), Remote)
    old = each(remote, unchanged, chains)
    results = [r for one in old if one is not None for r in one]
    left = [c for c, one in zip(chains, old, strict=True) if one is None]
    redone = sum(len(c.traces) for c in left)
    if left:
        for some in (executor or executor_of(config.execution)).run(left):
            results += some
            if progress is not None:
                progress(len(results), total)
    assert len(results) == total, "an executor lost a chain"
    return sorted(results, key=lambda r: (r.host, r.stream, r.trace)), redone


def _covered(rule: Ignore, rows: Sequence[Compared]) -> int:
    return sum(
        rule.covers(
            finding=row.finding.id,
            code=row.finding.code,
            name=row.finding.name,
            host=row.host,
            stream=row.stream,
        )
        for row in rows
        if row.state.is_there
    )


def _expired(
    rules: Sequence[Ignore], rows: Sequence[Compared], night: str
) -> list[tuple[Ignore, int]]:
    return [(r, _covered(r, rows)) for r in rules if r.until < date.fromisoformat(night)]


def _with_reasons(made: Audited) -> Audited:
    limits, reasons = made.config.thresholds, []
    failing = made.failing
    if failing:
        counts = [(s, sum(row.state is s for row in failing)) for s in limits.states]
        said = ", ".join(f"{n:,} {state.value}" for state, n in counts if n)
        found = plural(len(failing), "finding")
        reasons.append(f"{found} of severity {limits.fail_on.value} or worse: {said}")
    if len(made.bad) > limits.max_bad_traces:
        reasons.append(
            f"{plural(len(made.bad), 'trace')} could not be read or judged, more than"
            f" {limits.max_bad_traces:,}"
        )
    if len(made.missing) > limits.max_missing:
        reasons.append(
            f"{plural(len(made.missing), 'stream')} of the night before without a trace, more than"
            f" {limits.max_missing:,}"
        )
    last = made.nights[-1] if made.nights else None
    for share in made.shares:
        now = share.undecided_share
        if now > limits.max_undecided:
            reasons.append(
                f"{share.code}: {now:.1%} could not be judged, more than {limits.max_undecided:.1%}"
            )
        if last is not None and share.code in last.decided:
            left = last.undecided[share.code]
            total = left + last.decided[share.code]
            rise = now - (left / total if total else 0.0)
            if rise > limits.max_undecided_rise:
                reasons.append(
                    f"{share.code}: what could not be judged rose by {rise:.1%} of the whole, more"
                    f" than {limits.max_undecided_rise:.1%}"
                )
    return replace(made, reasons=tuple(reasons))
