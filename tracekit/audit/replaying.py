"""A trace replayed in time shards, from the state in which the night before ended.

The state of a replay is a checkpoint (docs/checkpoints.md).  Between the shards of a long trace it
is kept too, so that who goes on after a killed worker goes on there.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

from replay.checkpoint import Checkpoint
from replay.pipeline import run
from tracekit.audit.config import Checks
from tracekit.audit.results import file_name
from tracekit.audit.task import Task, below
from tracekit.audit.tonight import Totals, tonight, totals_of
from tracekit.errors import TracekitError
from tracekit.events import EVENT_TYPES
from tracekit.findings import ReplayResult
from tracekit.store import Place, Trace
from tracekit.store.location import put, remove

__all__ = ("Replayed", "replay_task")

_NO_GAP = 1 << 63


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """``result``: tonight's alone; ``totals``: of the chain.

    ``since``: it went on from a state; ``notes``: why it did not.  ``checkpoint``: the file with
    the state in which it ended, ``digest``: of its content.
    """

    result: ReplayResult
    totals: Totals
    since: bool
    notes: tuple[str, ...]
    checkpoint: str | None
    digest: str | None


def replay_task(trace: Trace, task: Task) -> Replayed:
    """Replay in shards, from the state before if there is one and the trace goes on from it.

    :raises TracekitError: the trace cannot be judged
    :raises OSError: the audit's folder cannot be written
    """
    checks, folder = task.settings.checks, task.settings.folder
    before, notes = _state_before(task, trace)
    totals = task.since.totals if task.since and before else Totals()
    since = task.since.checkpoint if task.since and before else None
    done, begun = _resumed(task)
    try:
        result, state = _in_shards(trace, task, begun or before, done)
    except TracekitError as why:
        if before is None:
            raise
        # Of a night on which not everything came that comes tonight, say: docs/fleet.md.
        notes, since, totals = (f"begins anew: {why.message}",), None, Totals()
        result, state = _in_shards(trace, task, None, 0)
    words = [*_options(checks), *(["--from", str(below(folder, since))] if since else [])]
    first = trace.manifest.span_ns[0] if trace.manifest.span_ns else 0
    name = digest = None
    if checks.chain and state is not None:
        content = state.to_bytes()
        name, digest = f"{_states(task)}.checkpoint", hashlib.sha256(content).hexdigest()
        put(below(folder, name), content)
    remove(below(folder, f"{_states(task)}.shards"))
    return Replayed(
        result=replace(tonight(result, totals, first), options=tuple(words)),
        totals=totals_of(result),
        since=since is not None,
        notes=notes,
        checkpoint=name,
        digest=digest,
    )


def _in_shards(
    trace: Trace, task: Task, state: Checkpoint | None, done: int
) -> tuple[ReplayResult, Checkpoint | None]:
    """The result of all shards from number ``done`` on, and the state at the end."""
    checks, result = task.settings.checks, None
    recorded = {r.event for r in trace.manifest.recorded if r.event in EVENT_TYPES}
    recorded |= {*checks.recorded, *trace.manifest.events}
    for number, shard in enumerate(trace.shards(task.settings.shard_events)):
        if number < done:
            continue
        if result is not None and state is not None:
            _keep_shard(task, number, state)
        ends: list[Checkpoint] = []
        result = run(
            shard,
            only=checks.only,
            grace_ns=checks.grace_ns,
            in_place=checks.in_place,
            linger_model=checks.linger_model,
            slack_ns=checks.slack_ns,
            generation=checks.generation,
            recorded=sorted(recorded),
            since=state,
            gap_ns=_NO_GAP if number else checks.gap_ns,  # a trace's own shards have none
            checkpoint=ends.append if checks.chain or shard is not trace else None,
        )
        state = ends[0] if ends else None
    assert result is not None, "a trace has a shard at least"
    return result, state


def _state_before(task: Task, trace: Trace) -> tuple[Checkpoint | None, tuple[str, ...]]:
    """The state that the trace goes on from; or none, and why."""
    if task.since is None or task.since.checkpoint is None:
        return None, ()
    place = below(task.settings.folder, task.since.checkpoint)
    try:
        with place.open("rb") as file:
            state = Checkpoint.from_bytes(file.read(), place.name)
        state.check_follows(trace.manifest, "the trace", task.settings.checks.gap_ns)
    except OSError as why:
        return None, (f"begins anew: the state before is not there ({why.strerror})",)
    except TracekitError as why:
        return None, (f"begins anew: {why.message}",)
    return state, ()


def _states(task: Task) -> str:
    """What the files of a trace's states begin with."""
    found = task.found
    name = file_name(found.host, found.stream, found.trace.partition("?")[0])
    return f"checkpoints/{found.night}/{name}"


def _keep_shard(task: Task, number: int, state: Checkpoint) -> None:
    """The state before shard ``number``."""
    name = f"{_states(task)}.shards/{task.key[:32]}-{number:06}"
    put(below(task.settings.folder, name), state.to_bytes())


def _resumed(task: Task) -> tuple[int, Checkpoint | None]:
    """How many shards somebody had done of just this task, and the state after them."""
    try:
        files: list[Place] = list(below(task.settings.folder, f"{_states(task)}.shards").iterdir())
        mine = sorted((f for f in files if f.name.startswith(task.key[:32])), key=str)
        if not mine:
            return 0, None
        with mine[-1].open("rb") as file:
            state = Checkpoint.from_bytes(file.read(), mine[-1].name)
        return int(mine[-1].name.rpartition("-")[2]), state
    except (OSError, ValueError, TracekitError):
        return 0, None


def _options(checks: Checks) -> Iterator[str]:
    """Of ``tracekit replay``, those that say the same."""
    usual = Checks()
    for name in ("grace_ns", "slack_ns"):
        value = getattr(checks, name)
        if value != getattr(usual, name):
            yield from (f"--{name.removesuffix('_ns')}", f"{value}ns")
    if checks.linger_model is not None:
        yield from ("--linger-model", checks.linger_model)
    if checks.generation != usual.generation:
        yield from ("--generation", checks.generation)
    if checks.in_place:
        yield "--in-place"
