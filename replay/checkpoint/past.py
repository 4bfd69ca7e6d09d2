"""What evidence needs of traces that are gone: single rows, and which event last touched a page.

Bounded: a replay that goes on may lack an event of a chain, and says so; no verdict needs one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from replay.checkpoint.pages import BEFORE, LastTouched
from replay.engine.kept import Kept, State
from tracekit.store import arrow_schema

__all__ = ("MOST_ROWS", "SORTS", "Asked", "Past", "first_of")

MOST_ROWS = 1 << 18
"""Rows that are kept."""
MOST_FOUND = 1 << 16
SORTS = ("map", "attr")

_SCHEMA = arrow_schema()
Asked = tuple[str, int, int, int]
"""Sort, first byte, end, and the event before which it must lie."""


class Past:
    """Of a replay that begins: nothing.

    ``touched``: by sort the last event that touched each page.  ``found``: what an earlier replay
    looked up, with the answer.  ``held``: by sort and event, the last events before that one that
    touched pages of something in hand.  ``by_event``: by sort, whether the kernel's own events
    told.
    """

    def __init__(self) -> None:
        self.by_event = dict.fromkeys(SORTS, False)
        self.touched = {sort: LastTouched() for sort in SORTS}
        self.found: dict[Asked, int] = {}
        self.held: dict[tuple[str, int], LastTouched] = {}
        self._rows = _SCHEMA.empty_table()

    def tell_by(self, by_event: Mapping[str, bool]) -> None:
        """How events are looked up from now on; what was told otherwise is not asked for again."""
        for sort in SORTS:
            if self.by_event[sort] != by_event[sort]:
                self.touched[sort] = LastTouched()
                self.found = {asked: n for asked, n in self.found.items() if asked[0] != sort}
                self.held = {key: last for key, last in self.held.items() if key[0] != sort}
        self.by_event = dict(by_event)

    def keep(self, found: Mapping[Asked, int], rows: pa.Table) -> None:
        """Beside what is known, what was looked up now; and these rows from now on."""
        self.found = {**self.found, **{asked: n for asked, n in found.items() if n != BEFORE}}
        self._rows = rows

    def rows(self, seqs: Any) -> pa.Table:
        """Those of the events that were kept, in order."""
        if not len(self._rows) or not len(seqs):
            return self._rows.slice(0, 0)
        return self._rows.take(pa.array(np.flatnonzero(np.isin(self.seqs, seqs))))

    def events(self, name: str) -> pa.Table:
        """The events of one type that were kept."""
        if not len(self._rows):
            return self._rows
        import pyarrow.compute as pc

        return self._rows.filter(pc.equal(self._rows.column("event").cast(pa.utf8()), name))

    @property
    def seqs(self) -> Any:
        """The numbers of the events that were kept."""
        return self._rows.column("seq").to_numpy()

    def look_up(self, asked: Asked) -> int:
        """The last event of a sort that touches a range, before some event; -1: there is none."""
        known = self.found.get(asked)
        if known is not None:
            return known
        sort, lo, hi, before = asked
        seq = self.touched[sort].last_in(lo, hi)
        if seq < before:
            return seq
        held = self.held.get((sort, before))
        return held.last_in(lo, hi) if held and held.lo <= lo and hi <= held.hi else BEFORE

    def kept_state(self) -> State:
        """As it is kept."""
        asked = list(self.found.items())[-MOST_FOUND:]
        return {
            "by_event": dict(self.by_event),
            "touched": {sort: touched.kept_state() for sort, touched in self.touched.items()},
            "found": np.array(
                [[SORTS.index(s), lo, hi, before, seq] for (s, lo, hi, before), seq in asked],
                np.int64,
            ).reshape(-1, 5),
            "held": [
                {"sort": sort, "before": before, "touched": last.kept_state()}
                for (sort, before), last in self.held.items()
            ],
            "rows": len(self._rows),
            "columns": dict(_columns(self._rows)),
        }

    @classmethod
    def restored(cls, kept: Kept) -> Past:
        """From what was kept.

        :raises TraceFormatError: that cannot be
        """
        past = cls()
        for sort in SORTS:
            past.by_event[sort] = kept.part("by_event").boolean(sort)
            past.touched[sort] = LastTouched.restored(kept.part("touched").part(sort))
        found = kept.array("found", None, 5)
        kept.indices("found", found[:, 0], len(SORTS))
        for sort, lo, hi, before, seq in found.tolist():
            past.found[SORTS[sort], lo, hi, before] = seq
        for part in kept.parts("held"):
            part.check(part.text("sort") in SORTS, "sort")
            key = (part.text("sort"), part.integer("before"))
            past.held[key] = LastTouched.restored(part.part("touched"))
        count = kept.integer("rows", 0, MOST_ROWS)
        columns = kept.part("columns")
        past._rows = pa.table(
            [_restored_column(columns, field, count) for field in _SCHEMA], schema=_SCHEMA
        )
        kept.check((np.diff(past.seqs) > 0).all(), "rows")
        return past


def _columns(table: pa.Table) -> Iterator[tuple[str, State]]:
    """The columns that hold anything: numbers by their bits, text by its place in a list."""
    for field in table.schema:
        column = table.column(field.name)
        if len(table) == column.null_count:
            continue
        one = column.combine_chunks()
        state: State = {"null": np.asarray(one.is_null()).astype(np.uint8)}
        if pa.types.is_dictionary(field.type):
            one = one.cast(pa.utf8()).dictionary_encode()
            state["texts"] = one.dictionary.to_pylist()
            values = np.asarray(one.indices.fill_null(0))
        else:
            values = np.asarray(one.fill_null(0))
        yield field.name, {**state, "values": values.astype(np.int64)}


def _restored_column(columns: Kept, field: pa.Field, count: int) -> pa.Array:
    if not columns.has(field.name):
        columns.check(field.nullable or not count, field.name)
        return pa.nulls(count, field.type)
    kept = columns.part(field.name)
    null = kept.array("null", count, dtype=np.uint8).astype(bool)
    values = kept.array("values", count)
    kept.check(field.nullable or not null.any(), "null")
    if pa.types.is_dictionary(field.type):
        texts = kept.texts("texts")
        kept.check(texts and len(texts) < 1 << 31, "texts")
        kept.indices("values", values, len(texts))
        places = pa.array(values.astype(np.int32), mask=null)
        return pa.DictionaryArray.from_arrays(places, pa.array(texts, pa.utf8())).cast(field.type)
    dtype = np.dtype(field.type.to_pandas_dtype())
    narrow = values.astype(dtype)
    kept.check((narrow.astype(np.int64) == values).all(), "values")
    return pa.array(narrow, field.type, mask=null)


def first_of(needed: Iterable[Iterable[int]]) -> set[int]:
    """The first :data:`MOST_ROWS` of event numbers; the most important first."""
    chosen: set[int] = set()
    for some in needed:
        for seq in some:
            if len(chosen) >= MOST_ROWS:
                return chosen
            if seq >= 0:
                chosen.add(seq)
    return chosen
