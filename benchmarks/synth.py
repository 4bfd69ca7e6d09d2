"""How fast traces are made: ``python -m benchmarks.synth [N [RUNS]]``.

The whole process ``tracekit generate SCENARIO -o OUT --events N``: its CPU time, the median of
three runs, and the memory that it needed at its largest.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import pyarrow.parquet as pq

from benchmarks.figures import say
from benchmarks.processes import measured, ours

SCENARIOS = ("dma-ring", "parallel-vcpus")
RUNS = 3


def main() -> None:
    """Print events a second of CPU, and memory, for each scenario."""
    events = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000_000
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "x.parquet")
        runs = int(sys.argv[2]) if len(sys.argv) > 2 else RUNS
        for scenario in SCENARIOS:
            words = ours("generate", scenario, "-o", str(out), "--events", str(events))
            costs = [measured(words) for _ in range(runs)]
            cpu, peak = statistics.median(c.cpu for c in costs), max(c.peak for c in costs)
            made = pq.read_metadata(out).num_rows
            assert made >= 0.9 * events, f"{made:,} events instead of {events:,}"
            print(
                f"{scenario:<15} {made:,} events in {cpu:.2f} s of CPU: "
                f"{made / cpu / 1e6:.2f} M events/s, at most {peak:.0f} MiB",
                flush=True,
            )
            say(f"generate {scenario}", made / cpu / 1e6, "M events/s", runs=runs)


if __name__ == "__main__":
    main()
