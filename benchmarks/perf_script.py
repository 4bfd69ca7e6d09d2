"""tracekit's import against ``perf script``: ``python -m benchmarks.perf_script [N [RUNS]]``.

The recording: ``perf record`` of a process that calls ioctl() N times on this machine, two events a
call; it needs the right to record tracepoints.  Whole processes: user + system CPU seconds, medians
of three, interleaved.  Every event that perf tells must be in the trace.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.figures import say, skipped
from benchmarks.processes import measured, ours

CALLS = 500_000
RUNS = 3
EVENTS = ("syscalls:sys_enter_ioctl", "syscalls:sys_exit_ioctl")
LOAD = """
import fcntl, os, sys
file = os.open(os.devnull, os.O_RDONLY)
for _ in range(int(sys.argv[1])):
    fcntl.ioctl(file, 0x5451)
"""


def main() -> None:
    """Record, and print both."""
    calls = int(sys.argv[1]) if len(sys.argv) > 1 else CALLS
    runs = int(sys.argv[2]) if len(sys.argv) > 2 else RUNS
    if (perf := shutil.which("perf")) is None:
        skipped("perf is not installed")
        return
    with tempfile.TemporaryDirectory() as folder:
        recording, out = Path(folder) / "perf.data", Path(folder) / "t.parquet"
        words = [word for event in EVENTS for word in ("-e", event)]
        words = [perf, "record", "-q", "-m", "1024", "-c", "1", *words, "-o", str(recording)]
        load = [sys.executable, "-c", LOAD, str(calls)]
        done = subprocess.run([*words, *load], capture_output=True, text=True, check=False)
        if done.returncode:
            lines = done.stderr.strip().splitlines() or ["it fails"]
            skipped(f"perf cannot record here: {lines[0].strip()}")
            return
        compare(perf, recording, out, runs)


def compare(perf: str, recording: Path, out: Path, runs: int) -> None:
    """Measure both on this recording."""
    from tracekit.store import open_trace

    ask = ours("import", str(recording), "-o", str(out))
    measured(ask)  # the first run may have to compile
    mine, other = [], []
    for _ in range(runs):
        mine.append(measured(ask).cpu)
        other.append(measured([perf, "script", "-i", str(recording)]).cpu)
    told = subprocess.run(
        [perf, "script", "-i", str(recording), "-F", "event"], capture_output=True, check=True
    )
    events, rows = told.stdout.count(b"\n"), open_trace(out).manifest.events
    found = sum(rows.get(name, 0) for name in ("ioctl.entered", "ioctl.returned"))
    assert found == events, f"perf tells {events:,} events, the trace has {found:,}"
    cpu, theirs = statistics.median(mine), statistics.median(other)
    print(f"a perf.data of {events:,} events")
    print(f"  tracekit import    {cpu:.2f} s CPU, {events / cpu / 1e6:.2f} M events/s")
    print(f"  perf script        {theirs:.2f} s CPU, {theirs / cpu:.2f} times as much")
    name = f"perf.data of {events:,} events"
    say(f"{name}: import", events / cpu / 1e6, "M events/s", runs=runs, shown=True)
    say(f"{name}: perf script", events / theirs / 1e6, "M events/s", runs=runs, shown=True)
    say(f"{name}: CPU of perf script / that of import", theirs / cpu, "x", runs=runs, shown=True)


if __name__ == "__main__":
    main()
