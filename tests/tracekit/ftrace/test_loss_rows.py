"""Losses that no page shows stand between the other rows, in order of time."""

from __future__ import annotations

import pyarrow as pa
import pytest

from tracekit.errors import ImportFormatError
from tracekit.ftrace.loss_rows import Loss, between, loss_rows, parse_losses


def rows(*times: int, cpu: int = 9) -> pa.RecordBatch:
    batch = loss_rows(Loss(cpu=cpu, from_ns=t, until_ns=t, count=1) for t in times)
    assert batch is not None
    return batch


def shown(batches: list[pa.RecordBatch]) -> list[tuple[int, int]]:
    return [(r["ts_ns"], r["cpu"]) for b in batches for r in b.to_pylist()]


def test_rows_say_where_when_and_how_many() -> None:
    batch = loss_rows(parse_losses("1 50 60 -1\n0 10 20 7\n", "losses"))
    assert batch is not None
    first, second = batch.to_pylist()
    assert (first["event"], first["cpu"], first["ts_ns"], first["until_ns"], first["count"]) == (
        "trace.lost", 0, 10, 20, 7,
    )  # fmt: skip
    assert (second["cpu"], second["count"], second["source"], second["tid"]) == (
        1,
        None,
        None,
        None,
    )
    assert loss_rows([]) is None


@pytest.mark.parametrize(
    ("held", "found"),
    [
        ((), [(1, 0), (5, 0), (5, 0), (9, 0)]),
        ((0,), [(0, 9), (1, 0), (5, 0), (5, 0), (9, 0)]),
        ((5,), [(1, 0), (5, 9), (5, 0), (5, 0), (9, 0)]),
        ((2, 7, 20, 30), [(1, 0), (2, 9), (5, 0), (5, 0), (7, 9), (9, 0), (20, 9), (30, 9)]),
    ],
)
def test_batches_keep_their_order(held: tuple[int, ...], found: list[tuple[int, int]]) -> None:
    batches = [rows(1, 5, cpu=0), rows(5, cpu=0).slice(1), rows(5, 9, cpu=0)]
    ready = list(between(rows(*held) if held else None, batches))
    times = [t for t, _ in shown(ready)]
    assert times == sorted(times)
    assert sorted(shown(ready)) == sorted(found)


@pytest.mark.parametrize(
    "line", ["", "1 2 3", "x 1 2 3", "0 5 4 1", "0 1 2 -2", "0 1 2 3 4", "9" * 99]
)
def test_a_line_that_is_something_else_is_an_error(line: str) -> None:
    with pytest.raises(ImportFormatError, match="losses line 2 is not CPU FROM_NS UNTIL_NS COUNT"):
        parse_losses(f"0 1 2 3\n{line}\n", "losses")
