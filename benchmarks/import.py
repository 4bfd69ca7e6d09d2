"""tracekit's import against ``trace-cmd report``, on the same recording in one run.

Whole processes: user + system CPU seconds, medians of three, interleaved; peak memory; rows written
per event read.  ``trace-cmd`` writes its text to /dev/null, tracekit Parquet to a temporary folder.

Example: python benchmarks/import.py RECORDING.dat
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import sys
import tempfile
from pathlib import Path

DEFAULT = "long/trace-long-type1-buggy-7.3.4-tracekit-lab.dat"
LEAST_ROWS = 0.95
MOST_MEMORY_MIB = 400
ROOT = Path(__file__).resolve().parent.parent


def measured(words: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """CPU seconds and peak resident MiB of a command, whose output goes to /dev/null.

    :raises SystemExit: it fails
    """
    child = os.fork()
    if not child:
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        try:
            os.execvpe(words[0], words, environment)
        except OSError as error:
            print(f"error: cannot run {words[0]}: {error.strerror}", file=sys.stderr)
            os._exit(127)
    _, status, usage = os.wait4(child, 0)
    if status:
        raise SystemExit(f"error: {' '.join(words[:3])} ... failed")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def command() -> list[str]:
    """How ``tracekit import`` is called; as a library where the command is not there."""
    if (ROOT / "tracekit" / "__main__.py").is_file():
        return [sys.executable, "-m", "tracekit", "import"]
    call = (
        "import sys, pathlib, tracekit.importers as i;"
        "i.import_files([pathlib.Path(sys.argv[1])], pathlib.Path(sys.argv[3]))"
    )
    return [sys.executable, "-c", call]


def counts(trace: Path) -> tuple[int, int]:
    """Rows written and events read, by the trace's own manifest."""
    sys.path.insert(0, str(ROOT))
    from tracekit.store import open_trace

    manifest = open_trace(trace).manifest
    return manifest.rows, sum(entry.count for entry in manifest.recorded)


def main() -> int:
    """Measure, print, and return 1 if a target is missed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    folder = os.environ.get("TRACEKIT_TRACES")
    parser.add_argument("recording", nargs="?", type=Path)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="figures as one JSON object")
    options = parser.parse_args()
    recording = options.recording or (Path(folder) / DEFAULT if folder else None)
    if recording is None or not recording.is_file():
        print("skipped: no recording given, and TRACEKIT_TRACES has none")
        return 0
    if shutil.which("trace-cmd") is None:
        print("skipped: trace-cmd is not installed")
        return 0
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    ours: list[float] = []
    theirs: list[float] = []
    memory: list[float] = []
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary) / "t.parquet"
        ask = [*command(), str(recording), "-o", str(out)]
        measured(ask, environment)  # the first run may have to compile
        for _ in range(options.runs):
            seconds, peak = measured(ask, environment)
            ours.append(seconds)
            memory.append(peak)
            theirs.append(measured(["trace-cmd", "report", str(recording)], environment)[0])
        rows, events = counts(out)
        size = out.stat().st_size
    mine, other = statistics.median(ours), statistics.median(theirs)
    figures = {
        "events_read": events,
        "rows_written": rows,
        "rows_per_event": round(rows / max(events, 1), 4),
        "tracekit_cpu_s": round(mine, 3),
        "trace_cmd_cpu_s": round(other, 3),
        "ratio": round(mine / other, 3),
        "million_events_per_cpu_s": round(events / mine / 1e6, 2),
        "peak_mib": round(max(memory)),
        "parquet_bytes": size,
    }
    if options.json:
        print(json.dumps(figures))
    else:
        print(f"{recording.name}: {events:,} events read, {rows:,} rows written")
        print(f"  rows / events      {rows / max(events, 1):.2%}  (at least {LEAST_ROWS:.0%})")
        print(f"  tracekit import    {mine:.2f} s CPU, {events / mine / 1e6:.2f} M events/s")
        print(f"  trace-cmd report   {other:.2f} s CPU")
        print(f"  ratio              {mine / other:.2f}  (below 1)")
        print(f"  peak memory        {max(memory):.0f} MiB  (at most {MOST_MEMORY_MIB})")
        print(f"  Parquet            {size / 1e6:.1f} MB")
    held = rows >= LEAST_ROWS * events and mine < other and max(memory) <= MOST_MEMORY_MIB
    return 0 if held else 1


if __name__ == "__main__":
    raise SystemExit(main())
