"""Made vsock recordings as streams of events, and the socket engine's word on them."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Collection
from typing import Any

import numpy as np
import pyarrow as pa
from recorded.recordings import Stream

from replay.linger.closing import Closing
from replay.linger.judge import Breach, Lingering
from replay.linger.models import MODELS
from replay.linger.run import judge_batches
from replay.linger.stream import COLUMNS
from tracekit.findings import Severity
from tracekit.store.events import from_events
from tracekit.synth.vsock.generate import Made
from tracekit.synth.vsock.truth import Planted

__all__ = ("alarms", "bursts", "judged", "matches", "stream_of", "told", "unjudged")


def stream_of(made: Made) -> Stream:
    """Its events as a table, in the order of time."""
    ordered = sorted(made.events, key=lambda e: e.ts_ns)
    table = pa.Table.from_batches(list(from_events(ordered))).unify_dictionaries().combine_chunks()
    numbered = table.append_column("seq", pa.array(np.arange(len(table))))
    return Stream(numbered.select([*COLUMNS, "cpu"]))


def judged(
    made: Made,
    stream: Stream | None = None,
    *,
    model: str | None = None,
    without: Collection[str] = (),
    each: Callable[[Closing], None] | None = None,
) -> Lingering:
    """The engine's word, by the model that made it.  ``without``: event types of no recorder."""
    stream = stream or stream_of(made)
    table = stream.table()
    if without:
        names = table["event"].cast(pa.string()).to_pylist()
        table = table.filter(pa.array([n not in without for n in names]))
    table = table.set_column(
        table.schema.get_field_index("seq"), "seq", pa.array(np.arange(len(table)))
    )
    events = {n: count for n, count in stream.events().items() if n not in without}
    return judge_batches(
        table.select(list(COLUMNS)).combine_chunks().to_batches(),
        MODELS[model or made.model],
        events=events,
        recorded=made.recorded - frozenset(without),
        hz=made.hz,
        compiled=False,
        each=each,
    )


def alarms(lingering: Lingering) -> list[Breach]:
    """What was said above a note."""
    return [b for b in lingering.breaches if b.severity is not Severity.NOTE]


def unjudged(lingering: Lingering) -> dict[str, dict[str, int]]:
    """Why something could not be judged, by code."""
    return {
        code: dict(j.reasons)
        for code, j in lingering.judged.items()
        if j.reasons and not (code == "TK306" and j.reasons == {"no_event:vsock.credit": 1})
    }


def matches(breach: Breach, planted: Planted) -> bool:
    """The same code, socket, and moments within the planted interval."""
    closing = breach.closing
    return (
        (breach.code, closing.local, closing.peer) == (planted.code, planted.local, planted.peer)
        and planted.from_ns <= closing.begun
        and closing.ended <= planted.until_ns
    )


def bursts(stream: Stream, share: float, chance: random.Random) -> Any:
    """Rows to lose: ``share`` of all, in up to three bursts of neighbours on one CPU."""
    wanted = round(len(stream) * share)
    if not wanted:
        return np.empty(0, np.int64)
    here = np.flatnonzero(stream.cpu == chance.choice(np.unique(stream.cpu).tolist()))
    pieces = min(3, wanted)
    gone: set[int] = set()
    for _ in range(pieces):
        length = min(max(1, wanted // pieces), len(here))
        start = chance.randrange(len(here) - length + 1)
        gone.update(here[start : start + length].tolist())
    return np.array(sorted(gone), np.int64)


def told(lingering: Lingering) -> Counter[tuple[str, tuple[int, int] | None]]:
    """Codes and sockets of what was said above a note."""
    return Counter((b.code, b.closing.local) for b in alarms(lingering))
