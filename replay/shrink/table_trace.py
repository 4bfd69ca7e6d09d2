"""A trace that is a table in memory: what a candidate is while it is tried, and not written."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from tracekit.store import Manifest, Place, Trace, TraceWriter, arrow_schema

if TYPE_CHECKING:
    import polars as pl

__all__ = ("TableTrace",)

_SCHEMA = arrow_schema()


class TableTrace(Trace):
    """Rows of a trace as a trace of their own, exactly as it would be if it were written.

    ``table``: all declared columns, in the order of time.  ``seq`` becomes 0, 1, 2 and so on, and
    the manifest counts what is there, as :meth:`TraceWriter.finish` does; everything else that it
    says of the host, the clock and what was recorded stays.
    """

    def __init__(self, table: pa.Table, manifest: Manifest, path: Place) -> None:
        assert table.schema.names == _SCHEMA.names
        rows = table.num_rows
        at = _SCHEMA.get_field_index("seq")
        self.table = table.set_column(at, _SCHEMA.field(at), pa.array(np.arange(rows)))
        self.path = path
        words = table.column("event").cast(pa.utf8()).combine_chunks()
        counted: dict[str, int] = {
            v["values"]: v["counts"] for v in words.value_counts().to_pylist()
        }
        lost = counted.get("trace.lost", 0)
        times = table.column("ts_ns")
        self.manifest = replace(
            manifest,
            rows=rows,
            first_seq=0,
            events=dict(sorted(counted.items())),
            span_ns=(times[0].as_py(), times[rows - 1].as_py()) if rows else None,
            lost_events=_lost(table) if lost else 0,
            loss_marks=min(manifest.loss_marks, lost),
            lost_unknown=manifest.lost_unknown and lost > 0,
        )

    def batches(
        self, columns: Sequence[str] | None = None, rows: int = 1 << 16
    ) -> Iterator[pa.RecordBatch]:
        """As :meth:`Trace.batches`."""
        table = self.table if columns is None else self.table.select(list(columns))
        yield from table.combine_chunks().to_batches(rows)

    def rows(self, seqs: Iterable[int], columns: Sequence[str] | None = None) -> pa.Table:
        """As :meth:`Trace.rows`."""
        wanted = np.unique(np.fromiter(seqs, dtype=np.int64))
        wanted = wanted[(wanted >= 0) & (wanted < self.table.num_rows)]
        names = [n for n in _SCHEMA.names if columns is None or n in {"seq", *columns}]
        return self.table.select(names).take(pa.array(wanted))

    def write(self, path: Path) -> Manifest:
        """Put it into a Parquet file that appears when it is complete; returns what it says.

        :raises TracekitError: the file cannot be written
        """
        with TraceWriter(path) as writer:
            for batch in self.table.drop_columns(["seq"]).combine_chunks().to_batches():
                writer.write(batch)
            return writer.finish(self.manifest)

    def _scan(self, columns: list[str]) -> pl.LazyFrame:
        import polars as pl

        frame = pl.from_arrow(self.table.select(columns))
        assert isinstance(frame, pl.DataFrame)
        return frame.lazy()


def _lost(table: pa.Table) -> int:
    """How many events its marks of loss say were lost."""
    import pyarrow.compute as pc

    marks = table.select(["event", "count"]).filter(
        pc.equal(table.column("event").cast(pa.utf8()), "trace.lost")
    )
    return sum(n for n in marks.column("count").to_pylist() if n is not None)
