"""A trace cut into pieces that are replayed one after the other, each from the state before it."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Sequence
from dataclasses import fields, is_dataclass
from itertools import pairwise
from typing import Any

import pyarrow as pa

from replay import run
from replay.checkpoint import Checkpoint
from replay.shrink.table_trace import TableTrace
from tracekit.findings import ReplayResult
from tracekit.store import Trace

__all__ = ("chained", "cuts_of", "differences", "shards", "table_of", "together")


class _InPieces(TableTrace):
    """A whole trace that is read in the pieces into which it could be cut, as segments are."""

    cuts: Sequence[int] = ()

    def batches(
        self, columns: Sequence[str] | None = None, rows: int = 1 << 16
    ) -> Iterator[pa.RecordBatch]:
        table = self.table if columns is None else self.table.select(list(columns))
        for a, b in pairwise([0, *self.cuts, len(self.table)]):
            yield from table.slice(a, b - a).combine_chunks().to_batches(rows)


def table_of(trace: Trace) -> pa.Table:
    """All rows of a trace."""
    batches = [pa.RecordBatch.from_arrays(b.columns, names=b.schema.names) for b in trace.batches()]
    return pa.Table.from_batches(batches).unify_dictionaries().combine_chunks()


def cuts_of(trace: Trace, count: int, seed: object) -> list[int]:
    """Places at which to cut a trace, somewhere in it."""
    places = range(1, len(trace))
    return sorted(random.Random(str(seed)).sample(places, min(count, len(places))))


def shards(trace: Trace, cuts: Sequence[int]) -> list[TableTrace]:
    """The pieces, each a trace of its own whose events are numbered from 0."""
    table = table_of(trace)
    return [
        TableTrace(table.slice(a, b - a), trace.manifest, trace.path)
        for a, b in pairwise([0, *cuts, len(table)])
    ]


def together(trace: Trace, cuts: Sequence[int], **options: Any) -> ReplayResult:
    """What is found when the trace is whole; it is read in pieces, and is one."""
    options = {"compiled": False, **options}
    whole = _InPieces(table_of(trace), trace.manifest, trace.path)
    whole.cuts = cuts
    return run(whole, **options)


def chained(
    trace: Trace, cuts: Sequence[int], recorded: Collection[str] | None = None, **options: Any
) -> ReplayResult:
    """What the last piece's replay says, each having gone on from the file of the one before.

    ``recorded``: event types that every piece is told of; all that the trace has if None.
    """
    options = {"compiled": False, **options}
    known = trace.manifest.events if recorded is None else recorded
    files: list[bytes] = []
    for piece in shards(trace, cuts):
        result = run(
            piece,
            since=Checkpoint.from_bytes(files[-1]) if files else None,
            checkpoint=lambda state: files.append(state.to_bytes()),
            recorded=known,
            gap_ns=1 << 63,
            **options,
        )
    return result


def differences(one: object, two: object, place: str = "") -> list[str]:
    """Where two results differ, in words short enough for a failing test."""
    if one == two:
        return []
    if type(one) is type(two) and is_dataclass(one):
        pairs = [(f".{f.name}", getattr(one, f.name), getattr(two, f.name)) for f in fields(one)]
    elif isinstance(one, tuple) and isinstance(two, tuple) and len(one) == len(two):
        pairs = [(f"[{i}]", a, b) for i, (a, b) in enumerate(zip(one, two, strict=True))]
    else:
        return [f"{place}: {one!r} and not {two!r}"[:500]]
    return [text for name, a, b in pairs for text in differences(a, b, place + name)]
