"""Finds a trace's Parquet files and checks, before any row is read, that they are ours."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from tracekit.errors import TraceFormatError
from tracekit.events import COLUMNS, COMMON
from tracekit.store.footer import footer_is_intact
from tracekit.store.location import Place, Remote
from tracekit.store.manifest import KEY, Manifest
from tracekit.store.schema import arrow_type

__all__ = (
    "Segment",
    "check_follows",
    "in_batches",
    "open_segment",
    "parquet",
    "reading",
    "segment_paths",
)

_OURS = frozenset(c.name for c in COLUMNS)
_MAX_SEGMENTS = 100_000


@dataclass(frozen=True)
class Segment:
    """One complete file of a trace; ``columns``: those of ours that it has.

    ``footer``: of a file elsewhere, which is not to be fetched again.  ``groups``: the row groups
    that count, if not all do (:mod:`tracekit.store.shards`); the manifest is of those.
    """

    path: Place
    manifest: Manifest
    columns: frozenset[str]
    footer: pq.FileMetaData | None = None
    groups: range | None = None


def segment_paths(path: Place) -> Sequence[Place]:
    """The file itself, or the folder's ``*.parquet`` files in name order."""
    try:
        mode = path.stat().st_mode
        if not stat.S_ISDIR(mode):
            return [path]
        found = sorted(
            (p for p in path.iterdir() if p.suffix == ".parquet" and p.name[0] != "."),
            key=lambda p: p.name,
        )
    except OSError as why:
        raise TraceFormatError(f"cannot read {path}: {why.strerror}") from None
    except ValueError:
        raise TraceFormatError(f"cannot read {str(path)!r}: not a file name") from None
    if not found:
        raise TraceFormatError(f"{path} is a directory without trace segments (*.parquet)")
    if len(found) > _MAX_SEGMENTS:
        raise TraceFormatError(f"{path} has more than {_MAX_SEGMENTS:,} segments")
    return found


def open_segment(path: Place) -> Segment:
    """Check one file: a regular one, intact footer, our manifest, our columns.

    :raises TraceFormatError: it is not
    """
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
    with reading(path):
        intact = footer_is_intact(path)
    if not intact:
        raise TraceFormatError(
            f"{path} is damaged, cut, or no trace: it lacks the footer that tracekit writes"
        )
    with reading(path), parquet(path) as file:
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
        footer = file.metadata if isinstance(path, Remote) else None
        return Segment(path, manifest, frozenset(schema.names) & _OURS, footer)


def _check_types(schema: pa.Schema, path: Place) -> None:
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


def check_follows(before: Segment, after: Segment) -> None:
    """Segments of one trace: one host, one clock, later times, higher numbers."""
    one, two = before.manifest, after.manifest
    if (one.host, one.clock) != (two.host, two.clock):
        raise TraceFormatError(f"{after.path} is of another host or clock than {before.path}")
    if one.span_ns and two.span_ns and two.span_ns[0] < one.span_ns[1]:
        raise TraceFormatError(
            f"{after.path} begins before {before.path} ends: not one trace's segments"
        )
    if two.first_seq < one.first_seq + one.rows:
        raise TraceFormatError(f"{after.path} uses event numbers of {before.path} again")


@contextmanager
def parquet(path: Place, footer: pq.FileMetaData | None = None) -> Iterator[pq.ParquetFile]:
    """The file, open, with every page's checksum verified; from elsewhere, ranges are read.

    Arrow reads ahead only where a read is a request: it would keep all that it has read ahead.
    """
    with ExitStack() as opened:
        source = opened.enter_context(path.open("rb")) if isinstance(path, Remote) else path
        yield opened.enter_context(
            pq.ParquetFile(
                source,
                metadata=footer,
                pre_buffer=isinstance(path, Remote),
                page_checksum_verification=True,
            )
        )


def in_batches(
    file: pq.ParquetFile, rows: int, columns: Sequence[str] | None, segment: Segment
) -> Iterator[pa.RecordBatch]:
    """The open segment's rows in order, of one row group after the other."""
    for group in range(file.num_row_groups) if segment.groups is None else segment.groups:
        yield from file.iter_batches(rows, [group], columns=columns, use_threads=False)


@contextmanager
def reading(path: Place) -> Iterator[None]:
    """Whatever the Parquet library says about a damaged file, in one sentence."""
    try:
        yield
    except (pa.ArrowException, OSError, ValueError, KeyError, MemoryError, OverflowError) as why:
        said = str(why).splitlines()[0] if str(why) else type(why).__name__
        raise TraceFormatError(f"{path} is damaged or cut: {said[:200]}") from None
