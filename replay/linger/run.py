"""A trace's vsock sockets, judged: what the pipeline and the statistics call."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from typing import TYPE_CHECKING

import pyarrow as pa

from replay.linger.closing import Timing, closings_of, hz_of
from replay.linger.engine import close_records
from replay.linger.judge import CODES, Lingering, Recorded, judge_closings
from replay.linger.models import MODELS, LingerModel, model_of
from replay.linger.stream import COLUMNS, concerns
from tracekit.findings import Judged

if TYPE_CHECKING:
    from tracekit.store import Trace

__all__ = ("judge_batches", "judge_lingering")


def judge_lingering(
    trace: Trace,
    *,
    model: str | None = None,
    slack_ns: int | None = None,
    compiled: bool | None = None,
) -> Lingering:
    """What became of the trace's vsock sockets, by the model of its kernel or by ``model``."""
    manifest = trace.manifest
    probed = [r.function for r in manifest.recorded]
    chosen = MODELS[model] if model else model_of(manifest.kernel, probed)
    if not concerns(manifest.events):
        none = Judged(reasons={"no_event:vsock": 1})
        return Lingering(
            model=chosen.name if chosen else None,
            judged=dict.fromkeys(CODES, none),
            events=False,
        )
    if chosen is None and manifest.events.get("vsock.linger"):
        chosen = MODELS["merged"]
    seen = {e for e, n in manifest.events.items() if n}
    recorded = seen | {r.event for r in manifest.recorded if r.event}
    return judge_batches(
        trace.batches(COLUMNS),
        chosen,
        events=manifest.events,
        recorded=recorded,
        slack_ns=slack_ns,
        hz=manifest.hz,
        comparable_clocks=manifest.clock_comparable,
        compiled=compiled,
    )


def judge_batches(
    batches: Iterable[pa.RecordBatch],
    model: LingerModel | None,
    *,
    events: Mapping[str, int],
    recorded: Set[str],
    slack_ns: int | None = None,
    hz: int | None = None,
    comparable_clocks: bool = True,
    compiled: bool | None = None,
) -> Lingering:
    """The same of batches with the columns that the engine reads, in the order of time.

    ``events``: rows by event type.  ``recorded``: event types that were recorded, happened or not.
    """
    told = close_records(batches, events=events, recorded=recorded, compiled=compiled)
    hz = hz_of(told.records, hz)
    closings = closings_of(told.records, hz=hz, last_ns=told.last_ns, pids=told.pids)
    judged = judge_closings(
        closings,
        model,
        Timing(hz=hz, own_slack_ns=slack_ns),
        Recorded(
            signals=bool(recorded & {"signal.generated", "signal.delivered"}),
            sent="vsock.sent" in recorded,
            received="vsock.packet_received" in recorded,
            allocated="vsock.packet_allocated" in recorded,
            ends=bool(recorded & {"vsock.done", "vsock.packet_received"}),
            comparable_clocks=comparable_clocks,
        ),
        credit_sides=told.credit_sides,
    )
    if not events.get("vsock.credit"):
        judged.judged["TK306"] = Judged(reasons={"no_event:vsock.credit": 1})
    return judged
