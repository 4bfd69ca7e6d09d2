"""How long the commands take to start, the second time: ``python -m benchmarks.start [RUNS]``.

Whole processes: CPU (user and system) and wall time, medians of five, after one that pays for what
is compiled once.  ``tracekit --help``, and the replay of the small recording that is in the tests.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.figures import say
from benchmarks.processes import ROOT, measured, ours

SMALL = ROOT / "tests/data/traces/kvm/trace-fmt-default-7.3.4-tracekit-lab.dat"
RUNS = 5


def main() -> None:
    """Print both."""
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else RUNS
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "small.parquet"
        measured(ours("import", str(SMALL), "-o", str(trace)))
        cpu, wall = start("tracekit --help", ours("--help"), runs)
        say("tracekit --help: CPU", cpu, "s", runs=runs, most=0.10, stretch=0.06)
        say("tracekit --help: wall", wall, "s", runs=runs)
        # 1: the recording is of a host with faults
        name = "tracekit replay, a small trace"
        cpu, wall = start(name, ours("replay", str(trace)), runs, status=1)
        say(f"{name}: CPU", cpu, "s", runs=runs)
        say(f"{name}: wall", wall, "s", runs=runs, most=1.0, stretch=0.6)


def start(name: str, words: list[str], runs: int, *, status: int = 0) -> tuple[float, float]:
    """CPU and wall time of one command, which must end with this status."""
    measured(words, alike=(status,))
    costs = [measured(words, alike=(status,)) for _ in range(runs)]
    cpu, wall = (statistics.median(getattr(c, what) for c in costs) for what in ("cpu", "wall"))
    print(f"{name}: {cpu:.3f} s of CPU, {wall:.3f} s", flush=True)
    return cpu, wall


if __name__ == "__main__":
    main()
