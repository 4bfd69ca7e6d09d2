"""How fast this machine's memory is, for comparison: ``python -m benchmarks.bandwidth [MIB]``.

numpy copies an array that no cache holds; what is read and what is written both count.  The first
touch of memory costs more than to use it again.  CPU time (user and system), medians of five.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

import numpy as np

from benchmarks.figures import say
from benchmarks.processes import MIB

RUNS = 5


def main() -> None:
    """Print both."""
    size = (int(sys.argv[1]) if len(sys.argv) > 1 else 256) * MIB
    source = np.arange(size // 8)
    target = np.zeros_like(source)
    again = timed(lambda: np.copyto(target, source))
    fresh = timed(lambda: source.copy())
    assert (target == source).all()
    for name, seconds in (("memory used again", again), ("fresh memory", fresh)):
        speed = 2 * size / seconds / 1e9
        print(f"numpy copies into {name}: {speed:.1f} GB/s")
        say(f"limit, numpy copies into {name}", speed, "GB/s", runs=RUNS, shown=True)


def timed(work: Callable[[], object]) -> float:
    """Median of CPU seconds."""
    work()
    seconds = []
    for _ in range(RUNS):
        start = time.process_time()
        work()
        seconds.append(time.process_time() - start)
    return statistics.median(seconds)


if __name__ == "__main__":
    main()
