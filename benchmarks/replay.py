"""Replay of a recorded trace through ``replay.run``, the function behind the command.

Usage: python benchmarks/replay.py [TRACE.parquet | RECORDING.dat]

Prints events per second of CPU time (user and system, median of five runs in one process, after one
that pays for imports and compiled code) and peak memory of fresh processes over a quarter of the
trace and over all of it.  Checks that every run finds the same violations.  Without an argument:
the long recording of ``$TRACEKIT_TRACES``.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

if __name__ == "__main__":
    sys.path.pop(0)  # this file's folder, where the package "replay" would be this file


def main() -> int:
    """Run the benchmark; 0 if the results are sane."""
    if len(sys.argv) == 3 and sys.argv[1] == "--once":
        return once(Path(sys.argv[2]))
    with tempfile.TemporaryDirectory() as folder:
        trace = the_trace(Path(folder))
        if trace is None:
            print("skipped: no trace given, and $TRACEKIT_TRACES has no long recording")
            return 0
        quarter = slice_of(trace, Path(folder) / "quarter.parquet", 4)
        events, seconds, errors = timed(trace)
        print(f"events               {events:,}")
        print(f"errors found         {dict(sorted(errors.items()))}")
        print(f"CPU a run            {seconds:.3f} s")
        print(f"events/s of CPU      {events / seconds / 1e6:.2f} M")
        small, large = peak_mb(quarter), peak_mb(trace)
        print(f"peak RSS, a quarter  {small:.0f} MB")
        print(
            f"peak RSS, the whole  {large:.0f} MB ({large / small:.2f}x at four times the events)"
        )
    return 0


def the_trace(folder: Path) -> Path | None:
    """The Parquet trace to replay, imported first if it is a recording."""
    given = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    if given is None:
        found = sorted(Path(os.environ.get("TRACEKIT_TRACES", ".")).glob("long/*.dat"))
        if not found:
            return None
        given = found[0]
    if given.suffix != ".dat":
        return given
    from tracekit.importers import import_files

    out = folder / "trace.parquet"
    import_files([given], out)
    return out


def slice_of(trace: Path, out: Path, part: int) -> Path:
    """The first 1/``part`` of a trace as a trace of its own."""
    from tracekit.store import TraceWriter, open_trace

    whole = open_trace(trace)
    left = whole.manifest.rows // part
    with TraceWriter(out) as writer:
        for batch in whole.batches():
            piece = batch.slice(0, left)
            left -= piece.num_rows
            if piece.num_rows:
                writer.write(piece.drop_columns(["seq"]))
        writer.finish(whole.manifest)
    return out


def timed(path: Path) -> tuple[int, float, Counter[str]]:
    """Events, median CPU seconds of a run, and errors found by code."""
    from replay import run
    from tracekit.findings import Severity
    from tracekit.store import open_trace

    seconds, seen = [], None
    for _ in range(6):
        trace = open_trace(path)
        start = time.process_time()
        result = run(trace)
        seconds.append(time.process_time() - start)
        errors: Counter[str] = Counter()
        for finding in result.findings:
            if finding.severity is Severity.ERROR:
                errors[finding.code] += finding.count
        assert seen is None or seen == errors, "two runs differ"
        seen = errors
    assert seen is not None
    return result.trace.events, statistics.median(seconds[1:]), seen


def once(path: Path) -> int:
    """Replay in this process and print its peak memory in KiB."""
    from replay import run
    from tracekit.store import open_trace

    run(open_trace(path), compiled=True)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
    return 0


def peak_mb(path: Path) -> float:
    """Peak memory of a process that replays the trace."""
    command = [sys.executable, __file__, "--once", str(path)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(done.stdout.split()[-1]) / 1024


if __name__ == "__main__":
    raise SystemExit(main())
