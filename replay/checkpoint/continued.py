"""A trace as what came after other traces: its numbers go on, and rows of before are there."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from replay.checkpoint.past import Past
from tracekit.store import Manifest, Trace, arrow_schema

if TYPE_CHECKING:
    import polars as pl

__all__ = ("ContinuedTrace",)

_SCHEMA = arrow_schema()


class ContinuedTrace(Trace):
    """The later part of a trace whose earlier part is gone, but for the rows in ``past``.

    ``manifest`` is of both parts.  ``recorded``: event types that count as recorded although none
    came.  ``batches`` and ``scan`` give the later part alone; ``rows`` and ``events`` also what was
    kept of the earlier one.  ``first``: the number of the later part's first event.
    """

    def __init__(
        self, trace: Trace, before: Manifest | None, past: Past, recorded: Collection[str]
    ) -> None:
        own = trace.manifest
        manifest = own if before is None else before.merged(own)
        events = {**dict.fromkeys(sorted(recorded), 1), **manifest.events}
        self.path = trace.path
        self.manifest = replace(manifest, events=events)
        self.first = own.first_seq if before is None else before.first_seq + before.rows
        self.past = past
        self._trace = trace
        self._shift = self.first - own.first_seq

    def scan(self) -> pl.LazyFrame:
        """Every row of the later part."""
        return self._shifted(self._trace.scan())

    def events(self, name: str) -> pl.LazyFrame:
        """The events of one type: those of before that were kept, and all later ones."""
        import polars as pl

        later = self._shifted(self._trace.events(name))
        columns = later.collect_schema().names()
        before = self.past.events(name)
        if not before.num_rows:
            return later
        frame = pl.from_arrow(before.select(columns))
        assert isinstance(frame, pl.DataFrame)
        return pl.concat([frame.lazy(), later], how="vertical_relaxed")

    def of_type(
        self,
        name: str,
        columns: Sequence[str],
        keep: Callable[[pa.RecordBatch], pa.Array] | None = None,
    ) -> pa.Table:
        """Columns of the events of one type as :meth:`events` tells them, text as plain text.

        ``keep``: which of them, of each piece.  For a few of many: what a replay needs of them is
        not worth the 50 MB that polars takes.
        """
        needed = list(dict.fromkeys(("seq", "event", *columns)))
        types = [_SCHEMA.field(column).type for column in columns]
        schema = pa.schema(
            (column, pa.utf8() if pa.types.is_dictionary(kind) else kind)
            for column, kind in zip(columns, types, strict=True)
        )
        before = self.past.events(name).select(needed).combine_chunks().to_batches()
        found = []
        for batch in chain(before, self.batches(needed)):
            words = batch.column("event").dictionary.to_pylist()
            if name not in words:
                continue
            codes = np.asarray(batch.column("event").indices)
            part = batch.take(pa.array(np.flatnonzero(codes == words.index(name))))
            part = part if keep is None else part.filter(keep(part))
            if len(part):
                found.append(pa.table([part.column(c) for c in columns], columns).cast(schema))
        return pa.concat_tables(found) if found else schema.empty_table()

    def batches(
        self, columns: Sequence[str] | None = None, rows: int = 1 << 16
    ) -> Iterator[pa.RecordBatch]:
        """The later part in pieces."""
        for batch in self._trace.batches(columns, rows):
            place = batch.schema.get_field_index("seq") if self._shift else -1
            if place >= 0:
                numbers = pa.array(batch.column(place).to_numpy() + self._shift)
                arrays = [numbers if i == place else a for i, a in enumerate(batch.columns)]
                batch = pa.RecordBatch.from_arrays(arrays, names=batch.schema.names)
            yield batch

    def rows(self, seqs: Iterable[int], columns: Sequence[str] | None = None) -> pa.Table:
        """Single events by number, also those of before that were kept."""
        wanted = np.unique(np.fromiter(seqs, dtype=np.int64))
        table = self._trace.rows(wanted[wanted >= self.first] - self._shift, columns)
        if self._shift and len(table):
            place = table.schema.get_field_index("seq")
            numbers = pa.array(table.column(place).to_numpy() + self._shift)
            table = table.set_column(place, table.schema.field(place), numbers)
        before = self.past.rows(wanted[wanted < self.first]).select(table.schema.names)
        return pa.concat_tables([before.cast(table.schema), table]) if len(before) else table

    def _shifted(self, frame: pl.LazyFrame) -> pl.LazyFrame:
        import polars as pl

        return frame.with_columns(pl.col("seq") + self._shift) if self._shift else frame
