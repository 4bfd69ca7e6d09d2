"""Several readers of the same events, each on a core of its own where there are enough."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import pyarrow as pa

__all__ = ("THREADS", "feed_all")

THREADS = "TRACEKIT_THREADS"
"""Variable of the environment; 1: this replay shall have one processor, as others run beside it."""

Taker = Callable[[pa.RecordBatch], None]


def feed_all(
    batches: Iterable[pa.RecordBatch],
    takers: Sequence[Taker],
    *,
    threads: bool,
    taken: Callable[[int], None] | None = None,
) -> None:
    """Hand every batch to every taker, in order; ``taken`` is told the rows so far.

    With ``threads``, more than one processor, and no 1 in :data:`THREADS`, the takers work at the
    same time while the next batch is read: never more than two batches are held, and all have taken
    one before the next.  That pays for takers that let go of the interpreter, as compiled ones do.

    :raises Exception: whatever a taker or the batches raise, after the others took that batch
    """
    rows = 0
    alone = os.environ.get(THREADS) == "1" or len(os.sched_getaffinity(0)) < 2
    if alone or not threads:
        for batch in batches:
            for take in takers:
                take(batch)
            rows += batch.num_rows
            if taken is not None:
                taken(rows)
        return
    with ThreadPoolExecutor(len(takers)) as pool:
        under_way: list[Future[None]] = []
        for batch in batches:
            for future in under_way:
                future.result()
            if taken is not None and under_way:
                taken(rows)
            under_way = [pool.submit(take, batch) for take in takers]
            rows += batch.num_rows
        for future in under_way:
            future.result()
    if taken is not None:
        taken(rows)
