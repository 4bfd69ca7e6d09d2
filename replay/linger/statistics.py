"""How long sockets waited in close(), and what became of their bytes, by process and port."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from replay.linger.closing import Kind
from replay.linger.run import judge_lingering

if TYPE_CHECKING:
    import polars as pl

    from tracekit.store import Trace

__all__ = ("WAITED_BELOW_MS", "linger_statistics")

WAITED_BELOW_MS = (1, 10, 100, 1_000, 10_000)
"""Upper ends of the histogram's classes; the last class has none."""


def linger_statistics(trace: Trace, *, model: str | None = None) -> pl.DataFrame:
    """One row a process and port: closes, how many lingered, how long they waited, what was lost.

    The port is the lower of both ends', which is the server's as a rule.  ``waited`` counts the
    closes in the classes of :data:`WAITED_BELOW_MS`.  ``dropped`` bytes are those that the peer
    threw away or never got.
    """
    import polars as pl

    closes = [c for c in judge_lingering(trace, model=model).closings if c.kind is Kind.CLOSE]
    rows = pl.DataFrame(
        {
            "pid": [c.pid or c.tid for c in closes],
            "port": [
                min(c.local[1], c.peer[1]) if c.local and c.peer else None for c in closes
            ],
            "lingering": [bool(c.may_linger) for c in closes],
            "waited_ns": [c.waited_ns for c in closes],
            "bytes": [c.bytes for c in closes],
            "dropped": [c.thrown_away or max(c.unsent_at_end or 0, 0) for c in closes],
        },
        schema={
            "pid": pl.Int64, "port": pl.Int64, "lingering": pl.Boolean, "waited_ns": pl.Int64,
            "bytes": pl.Int64, "dropped": pl.Int64,
        },
    )  # fmt: skip
    limits = [0, *(ms * 1_000_000 for ms in WAITED_BELOW_MS), 1 << 62]
    waited = pl.col("waited_ns")
    classes = [
        ((waited >= low) & (waited < high)).sum().cast(pl.Int64) for low, high in pairwise(limits)
    ]
    return (
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
