"""Losses that no page shows, as rows: what a recorder read in a buffer's statistics now and then.

A buffer that may not overwrite refuses events, and nested interrupts lose some: the kernel only
counts both.  Who reads the counts often knows the interval.  The rows go between the decoded ones.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from tracekit.errors import ImportFormatError
from tracekit.ftrace.columns import ARROW_SCHEMA

__all__ = ("Loss", "between", "in_order", "loss_rows", "parse_losses")

MAX_LOSSES = 1 << 20
_LINE = re.compile(r"(\d{1,5}) (\d{1,18}) (\d{1,18}) (-1|\d{1,18})")


@dataclass(frozen=True, kw_only=True)
class Loss:
    """Events of one CPU that were lost in an interval.  ``count`` -1: nobody counted them."""

    cpu: int
    from_ns: int
    until_ns: int
    count: int


def parse_losses(text: str, where: str) -> list[Loss]:
    """Lines ``CPU FROM_NS UNTIL_NS COUNT``.

    :raises ImportFormatError: a line is something else
    """
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        match = _LINE.fullmatch(line)
        if match is None or number > MAX_LOSSES or int(match[2]) > int(match[3]):
            raise ImportFormatError(f"{where} line {number} is not CPU FROM_NS UNTIL_NS COUNT")
        cpu, begin, end, count = (int(word) for word in match.groups())
        found.append(Loss(cpu=cpu, from_ns=begin, until_ns=end, count=count))
    return found


def loss_rows(losses: Iterable[Loss]) -> pa.RecordBatch | None:
    """``trace.lost`` rows in time order; ``None`` for none."""
    ordered = sorted(losses, key=lambda loss: (loss.from_ns, loss.cpu))
    if not ordered:
        return None
    filled = {
        "ts_ns": [loss.from_ns for loss in ordered],
        "cpu": [loss.cpu for loss in ordered],
        "until_ns": [loss.until_ns for loss in ordered],
        "count": [loss.count if loss.count >= 0 else None for loss in ordered],
    }
    arrays = []
    for field in ARROW_SCHEMA:
        if field.name == "event":
            names = pa.array(["trace.lost"], pa.utf8())
            which = pa.array([0] * len(ordered), pa.int32())
            arrays.append(pa.DictionaryArray.from_arrays(which, names))
        elif field.name in filled:
            arrays.append(pa.array(filled[field.name], field.type))
        else:
            arrays.append(pa.nulls(len(ordered), field.type))
    return pa.RecordBatch.from_arrays(arrays, schema=ARROW_SCHEMA)


def between(
    held: pa.RecordBatch | None, batches: Iterable[pa.RecordBatch]
) -> Iterator[pa.RecordBatch]:
    """Batches in time order with the rows of ``held``, also in order, between theirs.

    Of one time, the rows of ``held`` come first.
    """
    for batch in batches:
        if not batch.num_rows:
            continue
        if held is None or _first(held) > _last(batch):
            yield batch
            continue
        both = in_order([held, batch])
        cut = int(np.searchsorted(both.column("ts_ns").to_numpy(), _last(batch), "right"))
        yield both.slice(0, cut)
        held = both.slice(cut) if cut < both.num_rows else None
    if held is not None:
        yield held


def in_order(pieces: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    """The rows of some batches, at least one, in time order; of one time, in the batches' order."""
    table = pa.Table.from_batches(pieces).unify_dictionaries().combine_chunks()
    order = pa.array(np.argsort(table.column("ts_ns").to_numpy(), kind="stable"))
    (batch,) = table.take(order).combine_chunks().to_batches()
    return batch


def _first(batch: pa.RecordBatch) -> int:
    return int(batch.column("ts_ns")[0].as_py())


def _last(batch: pa.RecordBatch) -> int:
    return int(batch.column("ts_ns")[batch.num_rows - 1].as_py())
