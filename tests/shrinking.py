"""Whether a small trace is what shrinking promises: the same finding, and none without a frame."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from replay.shrink import Options, Shrunk, TableTrace
from replay.shrink.frames import COLUMNS, frames_of
from tracekit.findings import Finding
from tracekit.store import Trace

__all__ = ("assert_minimal", "shown", "without_one")


def shown(trace: Trace, finding: Finding, options: Options) -> Finding | None:
    """The same finding of this trace, by its id."""
    found = options.run(trace, (finding.code,)).findings
    return next((f for f in found if f.id == finding.id), None)


def without_one(trace: TableTrace) -> Iterator[TableTrace]:
    """The trace without each of its frames."""
    frames = frames_of(trace.batches(COLUMNS))
    for frame in np.unique(frames):
        rows = pa.array(np.flatnonzero(frames != frame))
        yield TableTrace(trace.table.take(rows), trace.manifest, trace.path)


def assert_minimal(shrunk: Shrunk) -> None:
    """It shows the finding, by code and cause, and does not without any one of its frames."""
    again = shown(shrunk.trace, shrunk.original, shrunk.options)
    assert again is not None
    assert (again.code, again.cause) == (shrunk.original.code, shrunk.original.cause)
    for less in without_one(shrunk.trace):
        assert shown(less, shrunk.original, shrunk.options) is None, less.table.num_rows
