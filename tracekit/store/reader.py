"""Opens a trace: one Parquet file, or a folder of segments.  Files may be hostile."""

from __future__ import annotations

import html
import itertools
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tracekit.errors import TraceFormatError, UnknownNameError, UsageError
from tracekit.events import COLUMNS, COMMON, EVENT_TYPES, event_columns
from tracekit.store.footer import footer_is_intact
from tracekit.store.manifest import KEY, Manifest
from tracekit.store.schema import arrow_schema, arrow_type

if TYPE_CHECKING:
    import polars as pl

__all__ = ("Trace", "open_trace")

_SCHEMA = arrow_schema()
_MAX_SEGMENTS = 100_000


@dataclass(frozen=True)
class _Segment:
    path: Path
    manifest: Manifest
    columns: frozenset[str]


def open_trace(path: str | Path) -> Trace:
    """Open a trace and check that it is one; its rows are read later, and in pieces.

    :raises TraceFormatError: not a trace, damaged, of another schema, or not to be read
    """
    path = Path(path)
    segments = [_open_segment(p) for p in _segment_paths(path)]
    for before, after in itertools.pairwise(segments):
        _check_follows(before, after)
    return Trace(path, segments)


class Trace:
    """One recording: a manifest, and a table of events ordered by ``seq`` (and so by time)."""

    def __init__(self, path: Path, segments: Sequence[_Segment]) -> None:
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
            with _reading(segment.path), _parquet(segment.path) as file:
                there = [c for c in wanted if c in segment.columns]
                for batch in file.iter_batches(rows, columns=there, use_threads=False):
                    batch = _completed(batch, wanted)
                    last_ns = _check_batch(batch, last_ns, segment.path)
                    yield batch

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
                with _reading(segment.path):
                    found.append(_single_rows(segment.path, here, segment.columns, schema))
        return pa.concat_tables(found) if found else schema.empty_table()

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
        cells = "".join(
            f"<tr><td>{html.escape(k)}</td><td>{html.escape(v)}</td></tr>" for k, v in facts.items()
        )
        return f"<table>{cells}</table>"

    def _scan(self, columns: list[str]) -> pl.LazyFrame:
        import polars as pl

        frames = []
        for segment in self._segments:
            frame = pl.scan_parquet(segment.path, glob=False)
            missing = [c for c in columns if c not in segment.columns]
            if missing:
                like = pl.from_arrow(_SCHEMA.empty_table())
                assert isinstance(like, pl.DataFrame)
                frame = frame.with_columns(
                    pl.lit(None, dtype=like.schema[c]).alias(c) for c in missing
                )
            frames.append(frame.select(columns))
        return frames[0] if len(frames) == 1 else pl.concat(frames)


def _segment_paths(path: Path) -> list[Path]:
    try:
        mode = path.stat().st_mode
        if not stat.S_ISDIR(mode):
            return [path]
        found = sorted(p for p in path.iterdir() if p.suffix == ".parquet" and p.name[0] != ".")
    except OSError as why:
        raise TraceFormatError(f"cannot read {path}: {why.strerror}") from None
    except ValueError:
        raise TraceFormatError(f"cannot read {str(path)!r}: not a file name") from None
    if not found:
        raise TraceFormatError(f"{path} is a directory without trace segments (*.parquet)")
    if len(found) > _MAX_SEGMENTS:
        raise TraceFormatError(f"{path} has more than {_MAX_SEGMENTS:,} segments")
    return found


def _open_segment(path: Path) -> _Segment:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise TraceFormatError(f"{path} is not a regular file")
        with path.open("rb") as opened:
            magic = opened.read(4)
    except OSError as why:
        raise TraceFormatError(f"cannot read {path}: {why.strerror}") from None
    if not magic:
        raise TraceFormatError(f"{path} is empty")
    if magic != b"PAR1":
        raise TraceFormatError(
            f"{path} is not a trace: not a Parquet file",
            help="a recording made by another tool becomes one by `tracekit import`",
        )
    with _reading(path):
        intact = footer_is_intact(path)
    if not intact:
        raise TraceFormatError(
            f"{path} is damaged, cut, or no trace: it lacks the footer that tracekit writes"
        )
    with _reading(path), _parquet(path) as file:
        metadata = file.metadata.metadata or {}
        if KEY not in metadata:
            raise TraceFormatError(f"{path} is not a trace: a Parquet file without our manifest")
        manifest = Manifest.from_json(metadata[KEY], path)
        schema = file.schema_arrow
        _check_types(schema, path)
        if file.metadata.num_rows != manifest.rows:
            raise TraceFormatError(
                f"{path} holds {file.metadata.num_rows:,} rows and its manifest says "
                f"{manifest.rows:,}"
            )
        return _Segment(path, manifest, frozenset(schema.names) & set(_SCHEMA.names))


def _check_types(schema: pa.Schema, path: Path) -> None:
    """The common columns are there, no name is there twice, and what is there has our type."""
    absent = [c.name for c in COMMON if c.name not in schema.names]
    if absent:
        raise TraceFormatError(f"{path} lacks the columns {', '.join(absent)}")
    for c in COLUMNS:
        found = schema.get_all_field_indices(c.name)
        if len(found) > 1:
            raise TraceFormatError(f"{path} has the column {c.name} {len(found)} times")
        if found and schema.types[found[0]] != arrow_type(c.type):
            raise TraceFormatError(
                f"{path}: column {c.name} is {schema.types[found[0]]}, not {arrow_type(c.type)}"
            )


def _check_follows(before: _Segment, after: _Segment) -> None:
    one, two = before.manifest, after.manifest
    if (one.host, one.clock) != (two.host, two.clock):
        raise TraceFormatError(f"{after.path} is of another host or clock than {before.path}")
    if one.span_ns and two.span_ns and two.span_ns[0] < one.span_ns[1]:
        raise TraceFormatError(
            f"{after.path} begins before {before.path} ends: not one trace's segments"
        )
    if two.first_seq < one.first_seq + one.rows:
        raise TraceFormatError(f"{after.path} uses event numbers of {before.path} again")


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


def _check_batch(batch: pa.RecordBatch, last_ns: int, path: Path) -> int:
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


def _single_rows(
    path: Path, wanted: np.ndarray, columns: frozenset[str], schema: pa.Schema
) -> pa.Table:
    """Those rows of one segment; row groups that hold none of them are not decoded."""
    # Not by ParquetFile.metadata: its column accessors abort the process on a damaged footer.
    import pyarrow.dataset as ds

    reading = ds.ParquetFileFormat(
        default_fragment_scan_options=ds.ParquetFragmentScanOptions(
            page_checksum_verification=True
        ),
    )
    seq = ds.field("seq")
    near = (seq >= int(wanted[0])) & (seq <= int(wanted[-1]))
    found = ds.dataset(path, format=reading).to_table(
        columns=[n for n in schema.names if n in columns],
        filter=near & seq.isin(pa.array(wanted)),
        use_threads=False,
        batch_readahead=1,
        fragment_readahead=1,
    )
    arrays = [
        found[f.name] if f.name in columns else pa.nulls(found.num_rows, f.type) for f in schema
    ]
    return pa.Table.from_arrays(arrays, schema=schema)


@contextmanager
def _parquet(path: Path) -> Iterator[pq.ParquetFile]:
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        yield file


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Whatever the Parquet library says about a damaged file, in one sentence."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, KeyError, MemoryError, OverflowError) as why:
        said = str(why).splitlines()[0] if str(why) else type(why).__name__
        raise TraceFormatError(f"{path} is damaged or cut: {said[:200]}") from None
