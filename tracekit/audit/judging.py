"""One trace judged: what a worker does, wherever it is.

A stream's traces of a night follow each other, and each starts with the state in which the one
before ended; so a :class:`Chain` of them goes to one worker.  A trace that cannot be judged fails
alone.  What is done is kept in the audit's folder at once: who is killed loses one trace's work.
"""

from __future__ import annotations

import traceback
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from tracekit.audit.config import Checks, Reports
from tracekit.audit.results import (
    CheckRow,
    FindingRow,
    Kept,
    Status,
    TraceResult,
    file_name,
    keep,
    kept,
)
from tracekit.audit.sources import Found
from tracekit.audit.task import Settings, Task, below
from tracekit.errors import TracekitError
from tracekit.findings import Finding, Outcome, ReplayResult
from tracekit.store import Place, Remote, Trace, locate, open_trace
from tracekit.store.location import put

if TYPE_CHECKING:
    from tracekit.audit.replaying import Replayed
    from tracekit.report.page import CheckPage

__all__ = ("Chain", "judge_chain", "judge_one", "record_path", "unchanged")


@dataclass(frozen=True, kw_only=True)
class Chain:
    """A stream's traces of a night, in order; ``since``: what the night before ended with."""

    traces: tuple[Found, ...]
    settings: Settings
    since: Kept | None = None

    @property
    def name(self) -> str:
        """As people and executors know it."""
        first = self.traces[0]
        return f"{first.night}/{first.host}/{first.stream}"

    @property
    def place(self) -> Place:
        """Where its results are kept."""
        first = self.traces[0]
        return below(self.settings.folder, record_path(first.night, first.host, first.stream))

    def failed(self, why: str) -> list[TraceResult]:
        """Results for a chain whose worker died again and again."""
        done = [part.result for part in _still_right(self)]
        return done + [_unjudged(f, Status.CRASHED, why) for f in self.traces[len(done) :]]


def record_path(night: str, host: str, stream: str) -> str:
    """Where a stream's night is kept, in the audit's folder."""
    return f"results/{night}/{file_name(host, stream)}.json"


def unchanged(chain: Chain) -> list[TraceResult] | None:
    """The results that are kept, if all of them still hold."""
    parts = _still_right(chain)
    return [p.result for p in parts] if len(parts) == len(chain.traces) else None


def _still_right(chain: Chain) -> list[Kept]:
    """Of the kept results, those from the first on that judging again would give."""
    right: list[Kept] = []
    since = chain.since
    for found, part in zip(chain.traces, kept(chain.place), strict=False):
        if not _holds(part, Task(found=found, settings=chain.settings, since=since)):
            break
        right.append(part)
        since = part if part.result.status is Status.JUDGED else None
    return right


def judge_chain(chain: Chain) -> list[TraceResult]:
    """Judge what is not judged yet, in order.

    :raises OSError: the audit's folder cannot be written
    """
    parts = _still_right(chain)
    for found in chain.traces[len(parts) :]:
        last = parts[-1] if parts else chain.since
        since = last if last is not None and last.result.status is Status.JUDGED else None
        parts.append(judge_one(Task(found=found, settings=chain.settings, since=since)))
        keep(chain.place, parts)
    return [p.result for p in parts]


def judge_one(task: Task) -> Kept:
    """Judge one trace.  Whatever is wrong with it is in the result.

    :raises OSError: the audit's folder cannot be written
    """
    from tracekit.audit.replaying import replay_task  # the engine, which who only waits needs not

    found = task.found
    try:
        trace = open_trace(found.trace)
        replayed = replay_task(trace, task)
        judged = _told(found, trace, replayed)
    except TracekitError as why:
        return Kept(key=task.key, result=_unjudged(found, Status.BAD, why.message))
    except MemoryError:
        return Kept(key=task.key, result=_unjudged(found, Status.CRASHED, "out of memory"))
    except Exception as why:  # one trace that we stumble over is no reason to lose the others
        where = traceback.extract_tb(why.__traceback__)[-1]
        said = f"our own mistake: {type(why).__name__}: {why} ({where.name}, line {where.lineno})"
        return Kept(key=task.key, result=_unjudged(found, Status.CRASHED, said[:400]))
    return Kept(
        key=task.key,
        result=_reported(judged, trace, replayed.result, task.settings),
        checkpoint=replayed.checkpoint,
        digest=replayed.digest,
        totals=replayed.totals,
    )


def _told(found: Found, trace: Trace, replayed: Replayed) -> TraceResult:
    manifest, result = trace.manifest, replayed.result
    qemu = [str(s["qemu"]) for s in manifest.sources if s.get("qemu")]
    return replace(
        _of(found, Status.JUDGED),
        kernel=manifest.kernel,
        qemu=found.qemu or (qemu[0] if qemu else None),
        events=manifest.rows,
        lost_events=manifest.lost_events,
        since=replayed.since,
        notes=replayed.notes,
        checks=tuple(_check(o) for o in result.outcomes),
        findings=tuple(_finding(f) for f in result.findings),
    )


def _check(outcome: Outcome) -> CheckRow:
    return CheckRow(
        code=outcome.code,
        name=outcome.name,
        verdict=outcome.verdict,
        decided=outcome.judged.decided,
        undecided=outcome.judged.undecided,
        reasons=tuple(sorted(outcome.judged.reasons.items())),
    )


def _finding(finding: Finding) -> FindingRow:
    first = finding.occurrences[0] if finding.occurrences else None
    return FindingRow(
        id=finding.id,
        code=finding.code,
        name=finding.name,
        severity=finding.severity,
        confidence=finding.confidence,
        title=finding.title,
        vm=finding.vm.name,
        device=finding.device,
        cause=finding.cause,
        count=finding.count,
        from_ns=first.from_ns if first else None,
        until_ns=first.until_ns if first else None,
    )


def _unjudged(found: Found, status: Status, why: str) -> TraceResult:
    # Where the trace is stands in the result already.
    base, mark, query = found.trace.partition("?")
    short = why.replace(base, base.rpartition("/")[2]).replace(mark + query, "")
    return replace(_of(found, status), error=" ".join(short.split()))


def _of(found: Found, status: Status) -> TraceResult:
    return TraceResult(
        host=found.host,
        stream=found.stream,
        night=found.night,
        trace=found.trace,
        size=found.size,
        status=status,
        qemu=found.qemu,
    )


def _reported(
    judged: TraceResult, trace: Trace, result: ReplayResult, settings: Settings
) -> TraceResult:
    """With the trace's own page and its verdicts as JSON beside it."""
    from tracekit.report.json import render_json

    told = any(f.severity.rank < 2 for f in result.findings)
    notes = list(judged.notes)
    name = f"{judged.night}/{file_name(judged.host, judged.stream, judged.trace)}"
    page = None
    if settings.reports is Reports.ALL or (settings.reports is Reports.FINDINGS and told):
        try:
            text = _page(trace, result, settings.checks)
        except TracekitError as why:
            notes.append(f"no report: {why.message}")
        else:
            page = f"reports/{name}.html"
            put(below(settings.folder, page), text.encode("utf-8", "backslashreplace"))
            document = render_json(result).encode("utf-8", "backslashreplace")
            put(below(settings.folder, f"reports/{name}.json"), document)
    read = trace.path.meter.bytes if isinstance(trace.path, Remote) else None
    return replace(judged, report=page, notes=tuple(notes), bytes_read=read)


def _page(trace: Trace, result: ReplayResult, checks: Checks) -> str:
    from tracekit.report.gathered import gather
    from tracekit.report.html import render_html

    found = gather(trace, result, model=checks.linger_model, slack_ns=checks.slack_ns)
    return render_html(result, _explained(), found)


def _explained() -> dict[str, CheckPage]:
    from replay.checks import CHECKS
    from tracekit.report.page import parse_page

    return {
        code: parse_page(
            code=code, name=check.name, severity=check.severity, docstring=check.__doc__ or ""
        )
        for code, check in CHECKS.items()
    }


def _holds(part: Kept, task: Task) -> bool:
    """Whether a kept result is what judging again would give.

    What failed by our mistake or for want of memory is tried again; and so is what could not be
    fetched, which cannot be told from what is damaged.
    """
    if part.key != task.key or part.result.status is Status.CRASHED:
        return False
    return part.result.status is Status.JUDGED or not isinstance(locate(task.found.trace), Remote)
