"""Writes one trace, or one segment of one, as a Parquet file that appears when it is complete."""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from pathlib import Path
from types import TracebackType

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tracekit.errors import TraceFormatError, TracekitError
from tracekit.events import COLUMNS, ColumnType
from tracekit.store.footer import seal_footer
from tracekit.store.manifest import KEY, Manifest
from tracekit.store.schema import arrow_schema, batch_schema

__all__ = ("ROW_GROUP_ROWS", "TraceWriter")

ROW_GROUP_ROWS = 128 << 10

# Times and numbers run in small steps, and so do the addresses of one call's pages: differences.
# The other columns hold few distinct values: dictionaries, which took less than half as much room
# on 2.58 M rows of a recording with many conversions.  Addresses as split bytes are still smaller,
# and few readers take integers so.
_ADDRESSES = ("iova", "paddr", "gpa", "vaddr", "offset")
_DELTA = ("ts_ns", "seq", "until_ns", *_ADDRESSES)
# Addresses repeat in patterns that zstd finds; of differences of times and of numbers of a
# dictionary there is little left to find, and lz4 is read and written in a tenth less time.
_DICTIONARY = [c.name for c in COLUMNS if c.name not in _DELTA]
# By time and number a reader finds its row groups.  Of the others every group has nearly the same
# least and greatest value, and to find those was a sixth of the time.
_STATISTICS = ["ts_ns", "seq"]


class TraceWriter:
    """Takes time-ordered batches, gives each row its ``seq``, writes ``path`` by an atomic rename.

    A context manager: leaving it without :meth:`finish`, or by an exception, leaves nothing behind.

    :param first_seq: where a later segment of a trace goes on counting
    """

    def __init__(self, path: Path, *, first_seq: int = 0) -> None:
        self._path = Path(path)
        self._first_seq = first_seq
        self._schema = arrow_schema()
        self._batch_schema = batch_schema()
        self._seq_at = self._schema.get_field_index("seq")
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_rows = 0
        self._first_ns: int | None = None
        self._last_ns = -(1 << 63)
        self._events: dict[str, int] = {}
        self._writer: pq.ParquetWriter | None = None
        self.rows = 0

    def __enter__(self) -> TraceWriter:
        folder = self._path.parent
        if self._path.is_dir():
            raise TracekitError(f"cannot write {self._path}: it is a directory")
        try:
            handle, name = tempfile.mkstemp(
                prefix=f".{self._path.name[:100]}.", suffix=".part", dir=folder
            )
        except OSError as why:
            raise TracekitError(f"cannot write {self._path}: {why.strerror}") from None
        self._temporary = Path(name)
        # mkstemp makes the file unreadable for others; give it the mode a plain open() would.
        mask = os.umask(0)
        os.umask(mask)
        os.fchmod(handle, 0o666 & ~mask)
        os.close(handle)
        self._writer = pq.ParquetWriter(
            name,
            self._schema,
            compression={c.name: "zstd" if c.name in _ADDRESSES else "lz4" for c in COLUMNS},
            compression_level=dict.fromkeys(_ADDRESSES, 1),
            use_dictionary=_DICTIONARY,
            column_encoding=dict.fromkeys(_DELTA, "DELTA_BINARY_PACKED"),
            write_statistics=_STATISTICS,
            write_page_checksum=True,
            write_batch_size=1 << 16,
        )
        return self

    def write(self, batch: pa.RecordBatch) -> None:
        """Append rows.  Columns as :func:`batch_schema`: all of a trace's but ``seq``."""
        assert self._writer is not None, "used outside its with block"
        if batch.num_rows == 0:
            return
        assert batch.schema.names == self._batch_schema.names, batch.schema.names
        assert batch.schema.types == self._batch_schema.types, batch.schema.types
        self._check_time(batch.column("ts_ns"))
        self._count_events(batch.column("event"))
        first = self._first_seq + self.rows
        columns = list(batch.columns)
        columns.insert(self._seq_at, pa.array(np.arange(first, first + batch.num_rows)))
        self._waiting.append(pa.RecordBatch.from_arrays(columns, schema=self._schema))
        self._waiting_rows += batch.num_rows
        self.rows += batch.num_rows
        if self._waiting_rows >= ROW_GROUP_ROWS:
            self._flush(last=False)

    def finish(self, manifest: Manifest) -> Manifest:
        """Close the file and put it in its place.

        ``rows``, ``first_seq``, ``events`` and ``span_ns`` become what was written; see the result.

        :raises TracekitError: the file cannot be written, or the manifest could not be read again
        """
        assert self._writer is not None, "used outside its with block, or finished twice"
        span = None if self._first_ns is None else (self._first_ns, self._last_ns)
        manifest = replace(
            manifest,
            rows=self.rows,
            first_seq=self._first_seq,
            events=dict(sorted(self._events.items())),
            span_ns=span,
        )
        said = manifest.to_json()
        try:
            Manifest.from_json(said, self._path)
        except TraceFormatError as why:
            raise TracekitError(
                f"cannot write {self._path}: what the recording says of itself, or its probes,"
                f" is more than a trace holds ({why.message.partition(': ')[2]})"
            ) from None
        self._flush(last=True)
        self._writer.add_key_value_metadata({KEY: said.encode()})
        self._writer.close()
        self._writer = None
        try:
            seal_footer(self._temporary)
            os.replace(self._temporary, self._path)
        except OSError as why:
            self._temporary.unlink(missing_ok=True)
            raise TracekitError(f"cannot write {self._path}: {why.strerror}") from None
        return manifest

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._writer is None:
            return
        try:
            self._writer.close()
        except (OSError, pa.ArrowException):
            pass  # a full disk, which the exception on its way says already
        finally:
            self._writer = None
            self._temporary.unlink(missing_ok=True)

    def _check_time(self, column: pa.Array) -> None:
        assert column.null_count == 0, "ts_ns is never null"
        times = column.to_numpy()
        assert int(times[0]) >= self._last_ns, "batches are not in time order"
        assert bool((times[1:] >= times[:-1]).all()), "rows are not in time order"
        if self._first_ns is None:
            self._first_ns = int(times[0])
        self._last_ns = int(times[-1])

    def _count_events(self, column: pa.DictionaryArray) -> None:
        assert column.null_count == 0, "event is never null"
        counts = np.bincount(column.indices.to_numpy(), minlength=len(column.dictionary))
        for name, count in zip(column.dictionary.to_pylist(), counts.tolist(), strict=False):
            if count:
                self._events[name] = self._events.get(name, 0) + count

    def _flush(self, *, last: bool) -> None:
        """Write full row groups; the rest waits, unless there is no more to come."""
        if not self._waiting_rows:
            return
        assert self._writer is not None
        table = pa.Table.from_batches(self._waiting)
        whole = table.num_rows if last else table.num_rows - table.num_rows % ROW_GROUP_ROWS
        rest = table.slice(whole)
        # One dictionary for the whole group: where it changes, Parquet gives up on dictionaries.
        ready = table.slice(0, whole).unify_dictionaries()
        try:
            self._writer.write_table(ready, row_group_size=ROW_GROUP_ROWS)
        except OSError as why:
            raise TracekitError(
                f"cannot write {self._path}: {why.strerror or str(why).splitlines()[0]}"
            ) from None
        self._waiting = rest.to_batches()
        self._waiting_rows = rest.num_rows


assert {c.name for c in COLUMNS if c.type is ColumnType.TEXT} <= set(_DICTIONARY)
