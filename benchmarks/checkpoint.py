"""A trace cut in half and taken up again: the size of the checkpoint, and what it costs.

Usage: python -m benchmarks.checkpoint [TRACE.parquet | RECORDING.dat]

Prints the size of the file after the first half, and seconds of CPU time (user and system, median
of five runs in one process, after one that pays for imports and compiled code) of each half alone,
of the first half with a checkpoint, of writing and reading the file, and of the second half from
it.  Checks that every run of the second half from it says what the whole says.  Without an
argument: the long recording of ``$TRACEKIT_TRACES``.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

if __name__ == "__main__":  # else this file's folder, where the package "replay" is another file
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.figures import say, skipped
from benchmarks.processes import long_recording
from benchmarks.replay import the_trace

if TYPE_CHECKING:
    from replay.shrink.table_trace import TableTrace

RUNS = 5
T = TypeVar("T")


def main() -> int:
    """Run the benchmark; 0 if the halves say what the whole says."""
    given = Path(sys.argv[1]) if len(sys.argv) > 1 else long_recording()
    if given is None:
        skipped("no trace given, and $TRACEKIT_TRACES has no long recording")
        return 0
    from replay import Checkpoint, run

    with tempfile.TemporaryDirectory() as folder:
        whole, first, second = halves(the_trace(given, Path(folder)))
        path, known = Path(folder) / "state", whole.manifest.events
        states: list[Checkpoint] = []
        findings = run(whole).findings
        _, plain = timed("the first half", lambda: run(first, recorded=known))
        _, kept = timed(
            "the first half, with a checkpoint",
            lambda: run(first, recorded=known, checkpoint=states.append),
        )
        _, writing = timed("writing it", lambda: states[-1].save(path))
        size = path.stat().st_size
        print(f"{'its size':36}{size:>12,} bytes")
        (state, *_), reading = timed("reading it", lambda: Checkpoint.load(path))
        _, alone = timed("the second half alone", lambda: run(second))
        results, on = timed("the second half, from it", lambda: run(second, since=state))
    assert all(r.findings == findings for r in results), "the halves do not say what the whole says"
    say("checkpoint, the file after half of the recording", size / 1e3, "KB")
    say("checkpoint, writing the file", writing * 1e3, "ms", runs=RUNS)
    say("checkpoint, reading the file", reading * 1e3, "ms", runs=RUNS)
    say("replay of the first half, with a checkpoint / without", kept / plain, "x", runs=RUNS)
    say("replay of the second half, from a checkpoint / alone", on / alone, "x", runs=RUNS)
    return 0


def halves(path: Path) -> tuple[TableTrace, TableTrace, TableTrace]:
    """A trace in memory, its first and its second half."""
    import pyarrow as pa

    from replay.shrink.table_trace import TableTrace
    from tracekit.store import open_trace

    trace = open_trace(path)
    table = pa.Table.from_batches(list(trace.batches())).unify_dictionaries().combine_chunks()
    half = len(table) // 2
    print(f"{len(table):,} events, cut after {half:,}")
    whole, first, second = (
        TableTrace(part, trace.manifest, trace.path)
        for part in (table, table.slice(0, half), table.slice(half))
    )
    return whole, first, second


def timed(what: str, do: Callable[[], T]) -> tuple[list[T], float]:
    """What each run gave, and the median of their CPU seconds."""
    seconds, given = [], []
    for _ in range(1 + RUNS):
        start = time.process_time()
        given.append(do())
        seconds.append(time.process_time() - start)
    cpu = statistics.median(seconds[1:])
    print(f"{what:36}{cpu:>12.3f} s", flush=True)
    return given, cpu


if __name__ == "__main__":
    raise SystemExit(main())
