"""One finding as often as wanted: the same mistake in conversion after conversion."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
from judging import events_of

from tracekit.store import Manifest, TraceWriter, open_trace, write_events
from tracekit.store.schema import batch_schema

__all__ = ("write_often",)

_STORY = """
    0us   vmm  create-vm
    1us   vmm  memory
    2us   vmm  set-iommu
    10us  vmm  shared 0x100000+4K
    11us  vmm  map 0x100000+4K
    12us  vmm  run
    20us  vmm  private 0x100000+4K
    21us  vmm  run
    22us  vmm  unmap 0x100000+4K
    23us  vmm  run
"""
_FIRST_US, _CYCLE_US = 10, 20
_AT_ONCE = 1000


def write_often(path: Path, count: int) -> int:
    """A trace in which a page's mapping outlives its conversion ``count`` times; its events."""
    one = path.with_name(f"{path.name}.one")
    write_events(one, events_of(_STORY), Manifest(host="a", kernel="7.3"))
    schema = batch_schema()
    (batch,) = open_trace(one).batches(schema.names)
    one.unlink()
    times = batch.column("ts_ns").to_numpy()
    begin = int(np.searchsorted(times, _FIRST_US * 1000))
    cycle = batch.slice(begin)
    with TraceWriter(path) as writer:
        writer.write(batch.slice(0, begin))
        for first in range(0, count, _AT_ONCE):
            numbers = np.arange(first, min(first + _AT_ONCE, count))
            writer.write(_repeated(cycle, schema, numbers * _CYCLE_US * 1000))
        writer.finish(Manifest(host="a", kernel="7.3"))
    return len(open_trace(path))


def _repeated(cycle: pa.RecordBatch, schema: pa.Schema, later: np.ndarray) -> pa.RecordBatch:
    """The cycle once for each of those times in ns after the first."""
    rows = np.tile(np.arange(len(cycle)), len(later))
    taken = cycle.take(pa.array(rows))
    times = taken.column("ts_ns").to_numpy() + np.repeat(later, len(cycle))
    arrays = [
        pa.array(times) if name == "ts_ns" else column
        for name, column in zip(schema.names, taken.columns, strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
