"""Several readers take the same batches, in order, whether beside each other or in turn."""

from __future__ import annotations

import os
import threading
import time

import pyarrow as pa
import pytest

from replay.side_by_side import THREADS, feed_all


def batches(count: int) -> list[pa.RecordBatch]:
    return [pa.RecordBatch.from_pydict({"n": [i] * (i + 1)}) for i in range(count)]


@pytest.mark.parametrize("threads", [False, True])
def test_every_reader_takes_every_batch_in_order(threads: bool) -> None:
    seen: list[list[int]] = [[], []]

    def slow(batch: pa.RecordBatch) -> None:
        time.sleep(0.001)
        seen[0].append(batch.num_rows)

    told: list[int] = []
    feed_all(
        batches(5),
        [slow, lambda b: seen[1].append(b.num_rows)],
        threads=threads,
        taken=told.append,
    )
    assert seen == [[1, 2, 3, 4, 5]] * 2
    assert told == [1, 3, 6, 10, 15]


def test_readers_work_at_the_same_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each waits for the other within a batch, which only two threads can do."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    both = threading.Barrier(2, timeout=20)
    feed_all(batches(3), [lambda _: both.wait() and None] * 2, threads=True)
    assert not both.broken


def test_on_one_processor_readers_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0})
    here = threading.get_ident()
    used: set[int] = set()
    feed_all(batches(2), [lambda _: used.add(threading.get_ident())] * 2, threads=True)
    assert used == {here}


def test_beside_other_replays_readers_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setenv(THREADS, "1")
    here = threading.get_ident()
    used: set[int] = set()
    feed_all(batches(2), [lambda _: used.add(threading.get_ident())] * 2, threads=True)
    assert used == {here}


@pytest.mark.parametrize("threads", [False, True])
def test_what_a_reader_raises_comes_through_and_it_takes_no_more(threads: bool) -> None:
    taken: list[int] = []

    def fails(batch: pa.RecordBatch) -> None:
        taken.append(batch.num_rows)
        if batch.num_rows == 2:
            raise ValueError("enough")

    with pytest.raises(ValueError, match="enough"):
        feed_all(batches(4), [fails], threads=threads)
    assert taken == [1, 2]


@pytest.mark.parametrize("threads", [False, True])
def test_what_the_batches_raise_comes_through(threads: bool) -> None:
    def broken() -> object:
        yield from batches(2)
        raise OSError("cut")

    taken: list[int] = []
    with pytest.raises(OSError, match="cut"):
        feed_all(broken(), [lambda b: taken.append(b.num_rows)], threads=threads)  # type: ignore[arg-type]
    assert taken == [1, 2]
