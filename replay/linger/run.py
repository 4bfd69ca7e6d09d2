"""A trace's vsock sockets, judged: what the pipeline and the statistics call."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Set
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from replay.engine.kept import Kept, State, told_apart
from replay.linger.closing import Closing, Timing, check_records, closings_of, hz_of
from replay.linger.engine import engine_for
from replay.linger.judge import CODES, Judge, Lingering, Recorded
from replay.linger.keeping import judged_so_far, take_up
from replay.linger.kernel import layout as L
from replay.linger.models import MODELS, LingerModel, model_of
from replay.linger.quiet import OFF_CODES, SENT_CODES, quiet
from replay.linger.stream import columns_of, concerns
from replay.models.vsock_sock import WaitsFor
from tracekit.findings import Judged

if TYPE_CHECKING:
    from tracekit.store import Manifest, Trace

__all__ = ("SocketFollower", "judge_batches", "judge_lingering", "nothing_of_vsock")

_UNTIMED = 1 << 15
"""Records that are held back while nobody has said how many ticks a second has."""
_EPROBE = "SO_LINGER: setsockopt.arguments against setsockopt.called"
_LATER_NS = 60_000_000_000
_ENDS = frozenset(
    ("close.entered", "vsock.release", "vsock.transport_release", "vsock.linger",
     "vsock.hyperv_release", "vsock.vmci_release", "vsock.shutdown", "shutdown.entered")
)  # fmt: skip
"""Without any of them a trace shows packets, and no socket that ends."""
_DECIDING = frozenset(
    ("signal.generated", "signal.delivered", "vsock.sent", "vsock.done", "vsock.packet_received",
     "vsock.packet_allocated", "vsock.transport_release", "vsock.release", "vsock.linger",
     "vsock.credit")
)  # fmt: skip
"""What the judge or the engine concludes from that nothing was said of it."""


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
    if not concerns(trace.manifest.events):
        return nothing_of_vsock(trace.manifest, model)
    follower = SocketFollower.of(
        trace.manifest, model=model, slack_ns=slack_ns, compiled=compiled, each=each
    )
    for batch in trace.batches(columns_of(trace.manifest.events)):
        follower.feed(batch)
    return follower.finish()


def nothing_of_vsock(manifest: Manifest, model: str | None) -> Lingering:
    """The answer for a trace that says nothing of vsock."""
    chosen = _model(manifest, model)
    none = Judged(reasons={"no_event:vsock": 1})
    return Lingering(
        model=chosen.name if chosen else None, judged=dict.fromkeys(CODES, none), events=False
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
    follower = SocketFollower(
        model, events=events, recorded=recorded, slack_ns=slack_ns, hz=hz,
        comparable_clocks=comparable_clocks, compiled=compiled, each=each,
    )  # fmt: skip
    for batch in batches:
        follower.feed(batch)
    return follower.finish()


def _model(manifest: Manifest, name: str | None) -> LingerModel | None:
    return (
        MODELS[name] if name else model_of(manifest.kernel, [r.function for r in manifest.recorded])
    )


class SocketFollower:
    """Follows the sockets of a trace; arguments as those of :func:`judge_batches`."""

    def __init__(
        self,
        model: LingerModel | None,
        *,
        events: Mapping[str, int],
        recorded: Set[str],
        slack_ns: int | None = None,
        hz: int | None = None,
        comparable_clocks: bool = True,
        compiled: bool | None = None,
        each: Callable[[Closing], None] | None = None,
    ) -> None:
        self._events, self._recorded = events, recorded
        self._judge = Judge(
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
        self._records = _Records(self._judge, each)
        self._engine = engine_for(
            self._records.take, events=events, recorded=recorded, compiled=compiled
        )

    @classmethod
    def of(
        cls,
        manifest: Manifest,
        *,
        model: str | None = None,
        slack_ns: int | None = None,
        compiled: bool | None = None,
        each: Callable[[Closing], None] | None = None,
    ) -> SocketFollower:
        """For a trace, by what its manifest says of its kernel and of what was recorded."""
        chosen = _model(manifest, model)
        if chosen is None and manifest.events.get("vsock.linger"):
            chosen = MODELS["merged"]
        seen = {e for e, n in manifest.events.items() if n}
        return cls(
            chosen,
            events=manifest.events,
            recorded=seen | {r.event for r in manifest.recorded if r.event},
            slack_ns=slack_ns,
            hz=manifest.hz,
            comparable_clocks=manifest.clock_comparable,
            compiled=compiled,
            each=each,
        )

    def feed(self, batch: pa.RecordBatch) -> None:
        """Take one batch, its columns of those that :func:`columns_of` names."""
        self._engine.feed(batch)

    def finish(self) -> Lingering:
        """The trace is over: the answer."""
        told = self._engine.finish()
        self._records.finish(told.last_ns)
        judged = self._judge.lingering(told.credit_sides)
        if told.eprobe_wrong:
            judged.disagreements[_EPROBE] = told.eprobe_wrong
        if not self._recorded & _ENDS:
            for code in CODES[:5]:
                if not judged.judged[code].decided:
                    judged.judged[code] = Judged(reasons={"no_event:close": 1})
        if not self._events.get("vsock.credit"):
            judged.judged["TK306"] = Judged(reasons={"no_event:vsock.credit": 1})
        return judged

    def kept_state(self) -> State:
        """All that is known so far, as copies; before :meth:`finish`."""
        return {
            "concerned": concerns(self._events),
            "told": self._told(),
            "engine": self._engine.kept_state(),
            "records": self._records.kept_state(),
            "judge": judged_so_far(self._judge),
        }

    def restore(self, kept: Kept) -> None:
        """Go on from a state that another follower was in, before the first batch.

        :raises TraceFormatError: no state of a follower
        :raises UsageError: of one that was told of another kernel or other event types
        """
        if kept.boolean("concerned"):
            was, now = set(kept.texts("told")), set(self._told())
            if was != now:
                raise told_apart(sorted(was ^ now))
        self._engine.restore(kept.part("engine"))
        self._records.restore(kept.part("records"))
        take_up(self._judge, kept.part("judge"))

    def _told(self) -> list[str]:
        """What decides about a socket besides its own events."""
        deciding = sorted(self._recorded & _DECIDING)
        model, clocks = self._judge.model, self._judge.recorded.comparable_clocks
        return [
            *deciding,
            f"lingering as in the {model.name if model else 'unknown'} model",
            *(["clocks that can be compared"] if clocks else []),
        ]


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

    def kept_state(self) -> State:
        """What is held back."""
        return {"held": self._held.copy()}

    def restore(self, kept: Kept) -> None:
        """Hold the same back."""
        self._held = kept.array("held", None, L.R_COLS)
        check_records(kept, "held", self._held)

    def _told(self, records: Any, now: int) -> None:
        if self._each is None:
            off, sent = quiet(records, self._judge.timing, self._judge.recorded)
            sent &= self._judge.close_waits_for is WaitsFor.SENT and self._judge.model is not None
            self._judge.keep(OFF_CODES, int(np.count_nonzero(off)))
            self._judge.keep(SENT_CODES, int(np.count_nonzero(sent)))
            records = records[~(off | sent)]
        for one in closings_of(records, hz=self._judge.timing.hz, last_ns=now):
            if self._each is not None:
                self._each(one)
            self._judge.take(one)
