"""How fast traces are made: ``python -m benchmarks.synth [N]``.

The whole process ``tracekit generate SCENARIO -o OUT --events N``: its CPU time, the best of three
runs, and the memory that it needed at its largest.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pyarrow.parquet as pq

SCENARIOS = ("dma-ring", "parallel-vcpus")
RUNS = 3


def measured(scenario: str, events: int, out: Path) -> tuple[int, float, int]:
    """Events made, seconds of CPU, and the largest size in MiB, of one process."""
    command = [sys.executable, "-m", "tracekit", "generate", scenario, "-o", str(out)]
    child = subprocess.Popen([*command, "--events", str(events)], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"error: tracekit generate {scenario} failed")
    return pq.read_metadata(out).num_rows, usage.ru_utime + usage.ru_stime, usage.ru_maxrss >> 10


def main() -> None:
    """Print events a second of CPU, and memory, for each scenario."""
    events = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000_000
    with tempfile.TemporaryDirectory() as folder:
        for scenario in SCENARIOS:
            runs = [measured(scenario, events, Path(folder, "x.parquet")) for _ in range(RUNS)]
            made, cpu, size = min(runs, key=lambda run: run[1])
            print(
                f"{scenario:<15} {made:,} events in {cpu:.2f} s of CPU: "
                f"{made / cpu / 1e6:.2f} M events/s, at most {size} MiB"
            )


if __name__ == "__main__":
    main()
