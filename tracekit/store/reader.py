"""Opens a trace: one Parquet file, or a folder of segments.  Files may be hostile."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from functools import reduce
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from tracekit.errors import TraceFormatError, UnknownNameError, UsageError
from tracekit.escape import html_table
from tracekit.events import COLUMNS, COMMON, EVENT_TYPES, event_columns
from tracekit.store.location import Place, Remote, locate
from tracekit.store.manifest import Manifest
from tracekit.store.schema import arrow_schema
from tracekit.store.segment import (
    Segment,
    check_follows,
    in_batches,
    open_segment,
    parquet,
    reading,
    segment_paths,
)
from tracekit.store.shards import shards_of

if TYPE_CHECKING:
    import polars as pl

__all__ = ("Trace", "open_trace")

_SCHEMA = arrow_schema()


def open_trace(path: str | Place) -> Trace:
    """Open a trace and check that it is one; its rows are read later, and in pieces.

    :raises TraceFormatError: not a trace, damaged, of another schema, or not to be read
    """
    place = path if isinstance(path, Remote) else locate(path)
    segments = [open_segment(p) for p in segment_paths(place)]
    for before, after in itertools.pairwise(segments):
        check_follows(before, after)
    return Trace(place, segments)


class Trace:
    """One recording: a manifest, and a table of events ordered by ``seq`` (and so by time)."""

    def __init__(self, path: Place, segments: Sequence[Segment]) -> None:
        assert segments
        self.path = path
        self.manifest: Manifest = reduce(Manifest.merged, (s.manifest for s in segments))
        self._segments = tuple(segments)

    def scan(self) -> pl.LazyFrame:
        """Every row, lazily, with the declared columns in their order."""
        return self._scan([c.name for c in COLUMNS])

    def events(self, name: str) -> pl.LazyFrame:
        """The events of one type, lazily: the common columns and those that this type fills.

        :raises UnknownNameError: there is no such event type
        """
        if name not in EVENT_TYPES:
            raise UnknownNameError("event type", name, EVENT_TYPES)
        import polars as pl

        own = [column.name for column, _, _ in event_columns(name)]
        return self._scan([*(c.name for c in COMMON), *own]).filter(pl.col("event") == name)

    def batches(
        self, columns: Sequence[str] | None = None, rows: int = 1 << 16
    ) -> Iterator[pa.RecordBatch]:
        """The table in pieces of at most ``rows`` rows, in order; ``columns`` in the order asked.

        Memory does not grow with the trace.  A column that an older trace lacks comes as nulls.
        Text comes as dictionary<int32, utf8>, whose dictionary differs from piece to piece.

        :raises TraceFormatError: the file is damaged, or its rows are not in order
        """
        wanted = [c.name for c in COLUMNS] if columns is None else list(columns)
        _check_columns(wanted)
        last_ns = -(1 << 63)
        for segment in self._segments:
            with reading(segment.path), parquet(segment.path, segment.footer) as file:
                there = [c for c in wanted if c in segment.columns]
                left = segment.manifest.rows
                for batch in in_batches(file, rows, there, segment):
                    left -= batch.num_rows
                    batch = _completed(batch, wanted)
                    last_ns = _check_batch(batch, last_ns, segment.path)
                    yield batch
                _check_complete(left, segment.path)

    def rows(self, seqs: Iterable[int], columns: Sequence[str] | None = None) -> pa.Table:
        """Single events by number, in ``seq`` order; a number that is not there is left out.

        ``columns``: those wanted, ``seq`` always; all if None.
        """
        if columns is not None:
            _check_columns(columns)
        schema = pa.schema(f for f in _SCHEMA if columns is None or f.name in {"seq", *columns})
        wanted = np.unique(np.fromiter(seqs, dtype=np.int64))
        found: list[pa.Table] = []
        for segment in self._segments:
            first = segment.manifest.first_seq
            here = wanted[(wanted >= first) & (wanted < first + segment.manifest.rows)]
            if len(here):
                with reading(segment.path):
                    found.append(_single_rows(segment, here, schema))
        return pa.concat_tables(found) if found else schema.empty_table()

    def shards(self, rows: int) -> Iterator[Trace]:
        """The trace in shards of about so many rows; itself if it has no more.

        Each is a trace with the numbers that its events have in this one.  What the recording lost
        is said by the first alone, so that together they say what this one does.

        :raises TraceFormatError: the trace is damaged
        """
        if self.manifest.rows <= rows:
            yield self
            return
        for segments in shards_of(self._segments, rows):
            yield Trace(self.path, segments)

    def __len__(self) -> int:
        return self.manifest.rows

    def __repr__(self) -> str:
        m = self.manifest
        return f"<Trace {self.path}: {m.rows:,} events, kernel {m.kernel}, {m.lost_events:,} lost>"

    def _repr_html_(self) -> str:
        m = self.manifest
        seconds = "" if m.span_ns is None else f"{(m.span_ns[1] - m.span_ns[0]) / 1e9:,.3f} s"
        facts = {
            "trace": str(self.path),
            "kernel": m.kernel or "unknown",
            "clock": m.clock,
            "span": seconds,
            "events": f"{m.rows:,}",
            "lost": f"{m.lost_events:,}" + (" or more" if m.lost_unknown else ""),
            **{name: f"{n:,}" for name, n in sorted(m.events.items(), key=lambda e: -e[1])},
        }
        return html_table(facts.items())

    def _scan(self, columns: list[str]) -> pl.LazyFrame:
        import polars as pl

        frames = []
        for segment in self._segments:
            frame = _lazily(segment)
            try:
                frame.collect_schema()  # stricter than Arrow, which has read it before
            except pl.exceptions.PolarsError as why:
                said = str(why).splitlines()[0][:200]
                raise TraceFormatError(f"{segment.path} is damaged: {said}") from None
            missing = [c for c in columns if c not in segment.columns]
            if missing:
                like = pl.from_arrow(_SCHEMA.empty_table())
                assert isinstance(like, pl.DataFrame)
                frame = frame.with_columns(
                    pl.lit(None, dtype=like.schema[c]).alias(c) for c in missing
                )
            frames.append(frame.select(columns))
        return frames[0] if len(frames) == 1 else pl.concat(frames)


def _lazily(segment: Segment) -> pl.LazyFrame:
    """The file for polars.  What is elsewhere, or a part, is read here: the columns asked for."""
    import polars as pl

    path = segment.path
    if segment.groups is None and not isinstance(path, Remote):
        return pl.scan_parquet(path, glob=False)
    from polars.io.plugins import register_io_source

    def frames(
        columns: list[str] | None, predicate: pl.Expr | None, rows: int | None, size: int | None
    ) -> Iterator[pl.DataFrame]:
        with reading(path), parquet(path, segment.footer) as file:
            for batch in in_batches(file, size or 1 << 16, columns, segment):
                frame = pl.from_arrow(batch.slice(0, rows))
                assert isinstance(frame, pl.DataFrame)
                rows = None if rows is None else rows - len(frame)
                yield frame if predicate is None else frame.filter(predicate)
                if rows == 0:
                    return

    with reading(path), parquet(path, segment.footer) as file:
        like = pl.from_arrow(file.schema_arrow.empty_table())
    assert isinstance(like, pl.DataFrame)
    return register_io_source(frames, schema=like.schema)


def _check_columns(wanted: Sequence[str]) -> None:
    for name in wanted:
        if name not in _SCHEMA.names:
            raise UnknownNameError("column", name, _SCHEMA.names)
    if len(set(wanted)) != len(wanted):
        raise UsageError("a column is asked for twice")


def _completed(batch: pa.RecordBatch, wanted: Sequence[str]) -> pa.RecordBatch:
    """The columns in the order asked for; one that the file lacks is all null."""
    if batch.schema.names == wanted:
        return batch
    arrays = [
        batch.column(name)
        if name in batch.schema.names
        else pa.nulls(batch.num_rows, _SCHEMA.field(name).type)
        for name in wanted
    ]
    return pa.RecordBatch.from_arrays(arrays, names=list(wanted))


def _check_batch(batch: pa.RecordBatch, last_ns: int, path: Place) -> int:
    """What the replay relies on: no null where none may be, and time that never runs back."""
    for column in batch.columns:
        if pa.types.is_dictionary(column.type):
            column.validate(full=True)  # Parquet's page headers have no checksum
    for name in ("ts_ns", "seq", "event"):
        if name in batch.schema.names and batch.column(name).null_count:
            raise TraceFormatError(f"{path}: column {name} holds nulls")
    if "seq" in batch.schema.names:
        seqs = batch.column("seq").to_numpy()
        if not bool((seqs[1:] > seqs[:-1]).all()):
            raise TraceFormatError(f"{path}: event numbers are not in order")
    if "ts_ns" not in batch.schema.names or batch.num_rows == 0:
        return last_ns
    times = batch.column("ts_ns").to_numpy()
    if int(times[0]) < last_ns or not bool((times[1:] >= times[:-1]).all()):
        raise TraceFormatError(f"{path}: rows are not in time order")
    return int(times[-1])


def _check_complete(left: int, path: Place) -> None:
    """A damaged page header, which has no checksum, reads as an empty page and is no error."""
    if left:
        raise TraceFormatError(f"{path} is damaged: {left:,} rows could not be read")


def _places(numbers: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Where the wanted numbers are; both ascend."""
    if not len(numbers):
        return np.zeros(0, np.int64)
    at: np.ndarray = np.minimum(np.searchsorted(numbers, wanted), len(numbers) - 1)
    there: np.ndarray = at[numbers[at] == wanted]
    return there


def _copied(batch: pa.RecordBatch, places: np.ndarray) -> pa.RecordBatch:
    """Some rows, in order, that do not keep the others alive.

    ``RecordBatch.take`` does the same, and first imports all that Arrow computes with.
    """
    runs = np.split(places, np.flatnonzero(np.diff(places) != 1) + 1)
    arrays = [
        pa.concat_arrays([*(column.slice(int(r[0]), len(r)) for r in runs), column.slice(0, 0)])
        for column in batch.columns
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=batch.schema)


def _single_rows(segment: Segment, wanted: np.ndarray, schema: pa.Schema) -> pa.Table:
    """Those rows of one segment; row groups that hold none of them are not read.

    Numbers have no gaps, so a group's place tells its numbers.  The groups' statistics would too,
    but their accessors abort the process on a damaged footer.
    """
    there = [name for name in schema.names if name in segment.columns]
    found: list[pa.RecordBatch] = []
    with parquet(segment.path, segment.footer) as file:
        groups = list(range(file.num_row_groups) if segment.groups is None else segment.groups)
        sizes = [file.metadata.row_group(group).num_rows for group in groups]
        ends = np.cumsum([segment.manifest.first_seq, *sizes])
        for at in np.unique(np.searchsorted(ends, wanted, side="right") - 1).tolist():
            if not 0 <= at < len(groups):
                continue  # the footer says other sizes than the manifest
            left = sizes[at]
            for batch in file.iter_batches(1 << 14, [groups[at]], columns=there, use_threads=False):
                left -= batch.num_rows
                places = _places(batch.column("seq").to_numpy(), wanted)
                if len(places):
                    found.append(_completed(_copied(batch, places), schema.names))
            _check_complete(left, segment.path)
    batches = [pa.RecordBatch.from_arrays(b.columns, schema=schema) for b in found]
    return pa.Table.from_batches(batches, schema=schema)
