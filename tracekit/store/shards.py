"""A long trace cut in time, where a segment or a row group begins: nothing is decoded twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

from tracekit.store.manifest import Manifest
from tracekit.store.segment import Segment, in_batches, parquet, reading

__all__ = ("shards_of",)


def shards_of(segments: Sequence[Segment], rows: int) -> Iterator[list[Segment]]:
    """Consecutive segments, or parts of them, of about so many rows together.

    :raises TraceFormatError: a segment is damaged
    """
    shard: list[Segment] = []
    first = True
    for segment in segments:
        for part in _parts(segment, rows):
            if shard and sum(s.manifest.rows for s in shard) + part.manifest.rows > rows:
                yield shard
                shard, first = [], False
            shard.append(part if first else replace(part, manifest=_lossless(part.manifest)))
    yield shard


def _parts(segment: Segment, rows: int) -> Iterator[Segment]:
    """The segment itself, or its row groups in runs of about so many rows."""
    if segment.manifest.rows <= rows:
        yield segment
        return
    with reading(segment.path), parquet(segment.path, segment.footer) as file:
        sizes = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
    start, before = 0, 0
    while start < len(sizes):
        end, size = start + 1, sizes[start]
        while end < len(sizes) and size + sizes[end] <= rows:
            size += sizes[end]
            end += 1
        part = replace(segment, groups=range(start, end))
        whole = segment.manifest if start == 0 else _lossless(segment.manifest)
        yield replace(part, manifest=_counted(part, whole, before, size))
        start, before = end, before + size


def _counted(part: Segment, manifest: Manifest, before: int, rows: int) -> Manifest:
    """The manifest for some of a segment's row groups."""
    events: Counter[str] = Counter()
    times: list[int] = []
    with reading(part.path), parquet(part.path, part.footer) as file:
        for batch in in_batches(file, 1 << 16, ["ts_ns", "event"], part):
            counts = batch.column("event").value_counts()
            for name, count in zip(counts.field("values").to_pylist(),
                                   counts.field("counts").to_pylist(), strict=True):  # fmt: skip
                events[str(name)] += count
            ts = batch.column("ts_ns")
            times = [*times[:1], *([ts[0].as_py()] if not times else []), ts[-1].as_py()]
    return replace(
        manifest,
        rows=rows,
        first_seq=manifest.first_seq + before,
        events=dict(sorted(events.items())),
        span_ns=(times[0], times[-1]) if times else None,
    )


def _lossless(manifest: Manifest) -> Manifest:
    """Without what the first shard has said of the whole recording."""
    return replace(
        manifest, recorded=(), lost_events=0, loss_marks=0, lost_unknown=False, disagreements={}
    )
