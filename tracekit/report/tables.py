"""A trace's rows as CSV or Arrow IPC, batch by batch: memory does not grow with the trace."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
from pyarrow import csv

from tracekit.events import COLUMNS, ColumnType
from tracekit.report.escape import visible
from tracekit.store import Trace

__all__ = ("write_arrow", "write_csv")

_TEXT = {c.name for c in COLUMNS if c.type is ColumnType.TEXT}
_FORMULA = ("=", "+", "-", "@")


def write_csv(trace: Trace, out: Path, progress: Callable[[int], None]) -> None:
    """All rows and columns, with a line of names; null is an empty field.

    Text is made harmless: control characters are spelled out, and what a spreadsheet would take
    for a formula begins with an apostrophe.

    :raises TraceFormatError: the trace breaks off or is damaged
    """
    done = 0
    with csv.CSVWriter(str(out), _schema()) as writer:
        for batch in _plain(trace, _harmless):
            writer.write_batch(batch)
            done += batch.num_rows
            progress(done)


def write_arrow(trace: Trace, out: Path, progress: Callable[[int], None]) -> None:
    """All rows and columns as an Arrow IPC file (Feather V2), zstd; text exactly as recorded.

    :raises TraceFormatError: the trace breaks off or is damaged
    """
    done = 0
    options = pa.ipc.IpcWriteOptions(compression="zstd")
    with pa.ipc.new_file(str(out), _schema(), options=options) as writer:
        for batch in _plain(trace, lambda text: text):
            writer.write_batch(batch)
            done += batch.num_rows
            progress(done)


def _schema() -> pa.Schema:
    types = {c.name: pa.string() if c.name in _TEXT else c.type.value for c in COLUMNS}
    return pa.schema(list(types.items()))


def _plain(trace: Trace, cleaned: Callable[[str], str]) -> Iterator[pa.RecordBatch]:
    """Batches without dictionaries, whose words each go through ``cleaned`` once."""
    schema = _schema()
    for batch in trace.batches():
        arrays = []
        for name, array in zip(batch.schema.names, batch.columns, strict=True):
            if name in _TEXT:
                words = array.dictionary.to_pylist()
                array = pa.array([w and cleaned(w) for w in words], pa.string()).take(array.indices)
            arrays.append(array)
        yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def _harmless(text: str) -> str:
    shown = visible(text)
    return f"'{shown}" if shown.startswith(_FORMULA) else shown
