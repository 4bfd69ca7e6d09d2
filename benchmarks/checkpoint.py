"""A trace cut in half and taken up again: the size of the checkpoint, and what it costs.

Usage: python -m benchmarks.checkpoint TRACE

Prints the size of the file after the first half, and CPU time (user and system, best of three) of
the whole trace, of each half alone, of the first half with a checkpoint, of writing and reading the
file, and of the second half from it.  Checks that the second half then says what the whole says.
"""

from __future__ import annotations

import resource
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

if __name__ == "__main__":  # else this file's folder, where the package "replay" is another file
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

RUNS = 3


def main() -> int:
    """Run the benchmark; 0 if the halves say what the whole says."""
    import pyarrow as pa

    from replay import Checkpoint, run
    from replay.shrink.table_trace import TableTrace
    from tracekit.store import open_trace

    trace = open_trace(sys.argv[1])
    table = pa.Table.from_batches(list(trace.batches())).unify_dictionaries().combine_chunks()
    half = len(table) // 2
    whole, first, second = (
        TableTrace(part, trace.manifest, trace.path)
        for part in (table, table.slice(0, half), table.slice(half))
    )
    known = trace.manifest.events
    run(whole)
    states: list[Checkpoint] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "state"
        print(f"{len(table):,} events, cut after {half:,}")
        _say("the whole trace", lambda: run(whole))
        _say("the first half", lambda: run(first, recorded=known))
        _say(
            "the first half, with a checkpoint",
            lambda: run(first, recorded=known, checkpoint=states.append),
        )
        _say("writing it", lambda: states[-1].save(path))
        print(f"{'its size':36}{path.stat().st_size:>12,} bytes")
        _say("reading it", lambda: Checkpoint.load(path))
        state = Checkpoint.load(path)
        _say("the second half alone", lambda: run(second))
        _say("the second half, from it", lambda: run(second, since=state))
        good = run(second, since=state).findings == run(whole).findings
    print("the findings of both halves are", "those" if good else "NOT those", "of the whole")
    return int(not good)


def _say(what: str, do: Callable[[], object]) -> None:
    times = []
    for _ in range(RUNS):
        before = _cpu()
        do()
        times.append(_cpu() - before)
    print(f"{what:36}{min(times):>12.3f} s")


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    sys.exit(main())
