"""Traces from typed events: what tests and generators write."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path

import pyarrow as pa

from tracekit.events import Event
from tracekit.events.trace import EventsLost
from tracekit.store.manifest import Manifest, RecordedName
from tracekit.store.schema import batch_schema
from tracekit.store.writer import TraceWriter

__all__ = ("from_events", "write_events")


def from_events(events: Iterable[Event], rows: int = 1 << 16) -> Iterator[pa.RecordBatch]:
    """Events as batches for a :class:`TraceWriter`, in their order; ``seq`` is dropped."""
    schema = batch_schema()
    left = iter(events)
    while chunk := [e.row() for e in islice(left, rows)]:
        arrays = [pa.array([row.get(f.name) for row in chunk], f.type) for f in schema]
        yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def write_events(path: Path, events: Iterable[Event], manifest: Manifest | None = None) -> Manifest:
    """Write a trace of these events, sorted by time; equal times keep their order.

    Without ``manifest``, one is made that claims nothing but what the events themselves say.
    """
    ordered = sorted(events, key=lambda e: e.ts_ns)
    if manifest is None:
        names = Counter((e.source, e.name_) for e in ordered if e.source)
        lost = [e for e in ordered if isinstance(e, EventsLost)]
        manifest = Manifest(
            cpus=len({e.cpu for e in ordered if e.cpu is not None}),
            recorded=tuple(
                RecordedName(name=source or "", event=event, count=n)
                for (source, event), n in names.items()
            ),
            lost_events=sum(e.count or 0 for e in lost),
            loss_marks=len(lost),
            lost_unknown=any(e.count is None for e in lost),
        )
    with TraceWriter(path) as writer:
        for batch in from_events(ordered):
            writer.write(batch)
        return writer.finish(manifest)
