"""A trace's vsock sockets, judged: what the pipeline and the statistics call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Set
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from replay.linger.closing import Closing, Timing, closings_of, hz_of
from replay.linger.engine import run_engine
from replay.linger.judge import CODES, Judge, Lingering, Recorded
from replay.linger.kernel import layout as L
from replay.linger.models import MODELS, LingerModel, model_of
from replay.linger.stream import columns_of, concerns
from tracekit.findings import Judged

if TYPE_CHECKING:
    from tracekit.store import Trace

__all__ = ("judge_batches", "judge_lingering")

_UNTIMED = 1 << 15
"""Records that are held back while nobody has said how many ticks a second has."""
_EPROBE = "SO_LINGER: setsockopt.arguments against setsockopt.called"
_LATER_NS = 60_000_000_000
_ENDS = frozenset(
    ("close.entered", "vsock.release", "vsock.transport_release", "vsock.linger",
     "vsock.hyperv_release", "vsock.vmci_release", "vsock.shutdown", "shutdown.entered")
)  # fmt: skip
"""Without any of them a trace shows packets, and no socket that ends."""


def judge_lingering(
    trace: Trace,
    *,
    model: str | None = None,
    slack_ns: int | None = None,
    compiled: bool | None = None,
    each: Callable[[Closing], None] | None = None,
) -> Lingering:
    """What became of the trace's vsock sockets, by the model of its kernel or by ``model``.

    ``each`` is called for every close, shutdown and packet out of place.
    """
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
        trace.batches(columns_of(manifest.events)),
        chosen,
        events=manifest.events,
        recorded=recorded,
        slack_ns=slack_ns,
        hz=manifest.hz,
        comparable_clocks=manifest.clock_comparable,
        compiled=compiled,
        each=each,
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
    each: Callable[[Closing], None] | None = None,
) -> Lingering:
    """The same of batches with the columns that the engine reads, in the order of time.

    ``events``: rows by event type.  ``recorded``: event types that were recorded, happened or not.
    """
    judge = Judge(
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
    )
    records = _Records(judge, each)
    told = run_engine(batches, records.take, events=events, recorded=recorded, compiled=compiled)
    records.finish(told.last_ns)
    judged = judge.lingering(told.credit_sides)
    if told.eprobe_wrong:
        judged.disagreements[_EPROBE] = told.eprobe_wrong
    if not recorded & _ENDS:
        for code in CODES[:5]:
            if not judged.judged[code].decided:
                judged.judged[code] = Judged(reasons={"no_event:close": 1})
    if not events.get("vsock.credit"):
        judged.judged["TK306"] = Judged(reasons={"no_event:vsock.credit": 1})
    return judged


class _Records:
    """Hands the engine's records to the judge, once all that decides about them is known."""

    def __init__(self, judge: Judge, each: Callable[[Closing], None] | None) -> None:
        self._judge, self._each = judge, each
        self._held = np.zeros((0, L.R_COLS), np.int64)

    def take(self, records: Any, now: int) -> None:
        """Some records; ``now``: so far the trace was read."""
        held = np.concatenate([self._held, records])
        own = self._judge.timing.own_slack_ns
        hz = hz_of(held, self._judge.timing.hz)
        self._judge.timing = Timing(hz=hz, own_slack_ns=own)
        if hz is None and len(held) < _UNTIMED:
            self._held = held
            return
        # Whether a shutdown's bytes were sent soon after it is not known yet.
        seconds = np.where(held[:, L.R_SECS] == L.NULL, 0, held[:, L.R_SECS])
        until = held[:, L.R_T1] + np.maximum(_LATER_NS, seconds * 50_000_000) + (own or 0)
        later = (held[:, L.R_KIND] == L.SHUTDOWN) & (until >= now)
        self._told(held[~later], now)
        self._held = held[later]

    def finish(self, last_ns: int) -> None:
        """The trace is over."""
        self._told(self._held, last_ns)

    def _told(self, records: Any, now: int) -> None:
        for one in closings_of(records, hz=self._judge.timing.hz, last_ns=now):
            if self._each is not None:
                self._each(one)
            self._judge.take(one)
