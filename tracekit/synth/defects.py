"""What is wrong with a recording rather than with the host, as changes of its batches."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from tracekit.errors import UnknownNameError, UsageError
from tracekit.events import EVENT_TYPES
from tracekit.store import batch_schema

__all__ = ("Defects", "Losses")

Batches = Iterable[pa.RecordBatch]
BURST = 200
"""Mean number of events that are lost together."""


@dataclass
class Losses:
    """What was lost: events, and the marks that say so."""

    events: int = 0
    marks: int = 0


@dataclass(frozen=True, kw_only=True)
class Defects:
    """``late_start_ns``: nothing of so long after the first event.  ``end_ns``: nothing later than
    so long after it.  ``lose``: share of the events, lost in bursts on one CPU and marked.
    ``skew_ns``: every second CPU's clock is ahead by so much.  ``without``: event types that were
    not recorded.
    """

    seed: int = 0
    late_start_ns: int = 0
    end_ns: int | None = None
    lose: float = 0.0
    skew_ns: int = 0
    without: Collection[str] = ()
    losses: Losses = field(default_factory=Losses)

    def __post_init__(self) -> None:
        for name in self.without:
            if name not in EVENT_TYPES:
                raise UnknownNameError("event type", name, EVENT_TYPES)
        if not 0 <= self.lose < 1:
            raise UsageError("the share of lost events is at least 0 and less than 1")
        if self.late_start_ns < 0 or self.skew_ns < 0 or (self.end_ns or 0) < 0:
            raise UsageError("durations are not negative")

    def said(self) -> list[str]:
        """Each of them in words."""
        out = []
        if self.late_start_ns:
            out.append(f"begins {self.late_start_ns} ns late")
        if self.end_ns is not None:
            out.append(f"ends {self.end_ns} ns after its beginning")
        if self.lose:
            out.append(f"loses {self.lose:g} of its events")
        if self.skew_ns:
            out.append(f"odd CPUs are {self.skew_ns} ns ahead")
        out += [f"without {name}" for name in sorted(self.without)]
        return out

    def applied(self, batches: Batches) -> Iterator[pa.RecordBatch]:
        """The batches with these defects, in time order."""
        if self.without:
            batches = _without(batches, list(self.without))
        if self.skew_ns:
            batches = _skewed(batches, self.skew_ns)
        if self.late_start_ns or self.end_ns is not None:
            batches = _cut(batches, self.late_start_ns, self.end_ns)
        if self.lose:
            batches = _lossy(batches, self.lose, np.random.PCG64((self.seed, 1)), self.losses)
        yield from batches


def _without(batches: Batches, names: list[str]) -> Iterator[pa.RecordBatch]:
    wanted = pa.array(names)
    for batch in batches:
        kept = batch.filter(pc.invert(pc.is_in(batch.column("event").cast(pa.utf8()), wanted)))
        if kept.num_rows:
            yield kept


def _cut(batches: Batches, late_ns: int, end_ns: int | None) -> Iterator[pa.RecordBatch]:
    first: int | None = None
    for batch in batches:
        ts = batch.column("ts_ns").to_numpy()
        if first is None:
            first = int(ts[0])
        begin = int(np.searchsorted(ts, first + late_ns))
        end = len(ts) if end_ns is None else int(np.searchsorted(ts, first + end_ns, "right"))
        if begin < end:
            yield batch.slice(begin, end - begin)
        if end < len(ts):
            return


def _skewed(batches: Batches, skew_ns: int) -> Iterator[pa.RecordBatch]:
    held: pa.Table | None = None
    for batch in batches:
        latest = int(batch.column("ts_ns")[-1].as_py())
        ts = batch.column("ts_ns").to_numpy() + skew_ns * (batch.column("cpu").to_numpy() % 2)
        columns = [pa.array(ts) if n == "ts_ns" else batch.column(n) for n in batch.schema.names]
        moved = pa.table(columns, schema=batch.schema)
        table = moved if held is None else pa.concat_tables([held, moved])
        order = np.argsort(table.column("ts_ns").to_numpy(), kind="stable")
        table = table.take(pa.array(order)).unify_dictionaries().combine_chunks()
        # What comes later is not earlier than this batch's last event.
        ready = int(np.searchsorted(table.column("ts_ns").to_numpy(), latest, "right"))
        yield from table.slice(0, ready).to_batches()
        held = table.slice(ready)
    if held is not None:
        yield from held.to_batches()


def _lossy(
    batches: Batches, share: float, bits: np.random.PCG64, losses: Losses
) -> Iterator[pa.RecordBatch]:
    """Bursts on one CPU at a time; a mark stands after the last event before its hole.

    A burst has an event of its CPU on either side in the same batch: a hole that nothing follows
    would not be known to a reader of the ring buffer either.
    """
    chance = np.random.Generator(bits)
    owed = 0.0
    for batch in batches:
        owed += share * batch.num_rows
        cpus = batch.column("cpu").to_numpy()
        ts = batch.column("ts_ns").to_numpy()
        keep = np.ones(len(ts), bool)
        marks: list[tuple[int, int, int, int]] = []
        tries = 0
        while owed >= 1 and tries < 4 + 4 * owed / BURST:
            tries += 1
            at = int(chance.integers(0, len(ts)))
            mine = at + np.flatnonzero(cpus[at:] == cpus[at])
            wanted = min(1 + int(chance.exponential(BURST)), round(owed), len(mine) - 2)
            if wanted < 1 or not keep[mine[: wanted + 2]].all():
                continue
            keep[mine[1 : wanted + 1]] = False
            marks.append((at, int(ts[mine[wanted + 1]]), wanted, int(cpus[at])))
            owed -= wanted
            losses.events += wanted
            losses.marks += 1
        yield _marked(batch, keep, sorted(marks))


def _marked(
    batch: pa.RecordBatch, keep: npt.NDArray[np.bool_], marks: list[tuple[int, int, int, int]]
) -> pa.RecordBatch:
    """The kept rows, with each mark (after which row, until when, how many, CPU)."""
    if not marks:
        return batch
    schema = batch_schema()
    ts = batch.column("ts_ns")
    said = [
        {
            "ts_ns": ts[at].as_py(), "cpu": cpu, "event": "trace.lost", "until_ns": until,
            "count": count,
        }
        for at, until, count, cpu in marks
    ]  # fmt: skip
    arrays = [pa.array([row.get(f.name) for row in said], f.type) for f in schema]
    rows = pa.Table.from_arrays(arrays, schema=schema)
    table = pa.concat_tables([pa.Table.from_batches([batch]).filter(pa.array(keep)), rows])
    places = np.concatenate([np.flatnonzero(keep), [m[0] + 0.5 for m in marks]])
    order = np.argsort(places, kind="stable")
    (whole,) = table.unify_dictionaries().take(pa.array(order)).combine_chunks().to_batches()
    return whole
