"""tracekit's import against ``trace-cmd report``, on the same recording in one run.

Usage: python -m benchmarks.import [RECORDING.dat] [--times N]

Whole processes: user + system CPU seconds, medians of three, interleaved; rows written per event
read; bytes of Parquet an event; peak memory, and that with the recording ten times over.
``trace-cmd`` writes its text to /dev/null, tracekit Parquet to a temporary folder.  Exit status 1
if events are missing.  Without an argument: the long recording of ``$TRACEKIT_TRACES``.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.figures import say, skipped
from benchmarks.longer import recording_times
from benchmarks.processes import MIB, long_recording, measured, ours

LEAST_ROWS = 0.9
MOST_MEMORY_MB = 300
MOST_GROWTH = 1.1
MANY = 1_000_000
"""Events from which on the bytes of one are of interest: below, what every trace has weighs."""


def counts(trace: Path) -> tuple[int, int, int]:
    """Rows written and events read, by the trace's own manifest; and what it spans."""
    from tracekit.store import open_trace

    manifest = open_trace(trace).manifest
    begin, end = manifest.span_ns or (0, 0)
    return manifest.rows, sum(entry.count for entry in manifest.recorded), end - begin


def main() -> int:
    """Measure, print, and return 1 if events are missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recording", nargs="?", type=Path)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--times", type=int, default=10, help="for the memory of a longer one")
    options = parser.parse_args()
    recording = options.recording or long_recording()
    if recording is None or not recording.is_file():
        skipped("no recording given, and $TRACEKIT_TRACES has no long one")
        return 0
    peer = shutil.which("trace-cmd")
    mine: list[float] = []
    other: list[float] = []
    peaks: list[float] = []
    with tempfile.TemporaryDirectory() as temporary:
        out, many = Path(temporary) / "t.parquet", Path(temporary) / "many.dat"
        ask = ours("import", str(recording), "-o", str(out))
        measured(ask)  # the first run may have to compile
        for _ in range(options.runs):
            cost = measured(ask)
            mine.append(cost.cpu)
            peaks.append(cost.peak)
            if peer:
                other.append(measured([peer, "report", str(recording)]).cpu)
        rows, events, span_ns = counts(out)
        size = out.stat().st_size
        recording_times(recording, many, options.times, span_ns)
        long = measured(ours("import", str(many), "-o", str(out))).peak * MIB / 1e6
        more = counts(out)[0]
    cpu, peak = statistics.median(mine), max(peaks) * MIB / 1e6
    share, growth, runs = rows / max(events, 1), long / peak, options.runs
    print(f"{recording.name}: {events:,} events read, {rows:,} rows written")
    print(f"  rows / events      {share:.2%}  (at least {LEAST_ROWS:.0%})")
    print(f"  tracekit import    {cpu:.2f} s CPU, {events / cpu / 1e6:.2f} M events/s")
    say("import, rows per event", share, "", least=LEAST_ROWS)
    say("import", events / cpu / 1e6, "M events/s", runs=runs, least=2.5, stretch=4)
    if other:
        theirs = statistics.median(other)
        print(f"  trace-cmd report   {theirs:.2f} s CPU, {theirs / cpu:.2f} times as much")
        speed = events / theirs / 1e6
        name = "trace-cmd report of the same recording"
        say(name, speed, "M events/s", runs=runs, shown=True)
        say("CPU of trace-cmd report / that of import", theirs / cpu, "x", runs=runs, least=5)
    else:
        skipped("trace-cmd is not installed")
    print(f"  Parquet            {size / 1e6:.1f} MB, {size / rows:.2f} bytes an event")
    if rows >= MANY:
        say("import, Parquet", size / rows, "bytes an event", most=4, stretch=3)
    print(f"  peak memory        {peak:.0f} MB  (at most {MOST_MEMORY_MB})")
    print(f"  {options.times} times as long  {long:.0f} MB, {growth:.2f} times as much")
    say("import, peak memory", peak, "MB", runs=runs, most=MOST_MEMORY_MB, stretch=250)
    name = f"import, peak memory with {options.times} times the events / with the recording"
    say(name, growth, "x", most=MOST_GROWTH, stretch=1.05)
    return 0 if share >= LEAST_ROWS and more == options.times * rows else 1


if __name__ == "__main__":
    raise SystemExit(main())
