"""How long sockets waited in close(), and what became of their bytes, by process and port."""

from __future__ import annotations

from array import array
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from replay.linger.closing import Closing, Kind
from replay.linger.run import judge_lingering

if TYPE_CHECKING:
    import polars as pl

    from tracekit.store import Trace

__all__ = ("WAITED_BELOW_MS", "linger_statistics", "linger_summary")

WAITED_BELOW_MS = (1, 10, 100, 1_000, 10_000)
"""Upper ends of the histogram's classes; the last class has none."""


def linger_statistics(trace: Trace, *, model: str | None = None) -> pl.DataFrame:
    """The table of :func:`linger_summary`."""
    return linger_summary(trace, model=model)[0]


def linger_summary(
    trace: Trace, *, model: str | None = None
) -> tuple[pl.DataFrame, dict[str, int]]:
    """Every close by process and port, and how often two sources of one fact disagreed.

    One row a process and port: closes, how many lingered, how long they waited, what was lost.

    The port is the lower of both ends', which is the server's as a rule.  ``waited`` counts the
    closes in the classes of :data:`WAITED_BELOW_MS`.  ``dropped`` bytes are those that the peer
    threw away or never got.
    """
    import polars as pl

    pids, ports, lingering, waits, sizes, lost = (array("q") for _ in range(6))

    def take(one: Closing) -> None:
        if one.kind is not Kind.CLOSE:
            return
        pids.append(one.pid or one.tid)
        ports.append(min(one.local[1], one.peer[1]) if one.local and one.peer else -1)
        lingering.append(bool(one.may_linger))
        waits.append(one.waited_ns)
        sizes.append(one.bytes)
        lost.append(one.thrown_away or max(one.unsent_at_end or 0, 0))

    judged = judge_lingering(trace, model=model, each=take)
    columns = {
        "pid": pids, "port": ports, "lingering": lingering, "waited_ns": waits, "bytes": sizes,
        "dropped": lost,
    }  # fmt: skip
    rows = pl.DataFrame({name: np.frombuffer(a, np.int64) for name, a in columns.items()})
    rows = rows.with_columns(pl.when(pl.col("port") >= 0).then(pl.col("port")).alias("port"))
    limits = [0, *(ms * 1_000_000 for ms in WAITED_BELOW_MS), 1 << 62]
    waited = pl.col("waited_ns")
    classes = [
        ((waited >= low) & (waited < high)).sum().cast(pl.Int64) for low, high in pairwise(limits)
    ]
    table = (
        rows.group_by("pid", "port")
        .agg(
            pl.len().cast(pl.Int64).alias("closes"),
            pl.col("lingering").sum().cast(pl.Int64),
            waited.median().cast(pl.Int64).alias("waited_median_ns"),
            waited.max().alias("waited_max_ns"),
            pl.concat_list(classes).alias("waited"),
            pl.col("bytes").sum(),
            pl.col("dropped").sum(),
        )
        .sort("pid", "port")
    )
    return table, judged.disagreements
