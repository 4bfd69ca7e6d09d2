"""Commands and processes: their CPU time, and the memory that they needed at their largest."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = (
    "MIB",
    "ROOT",
    "TRACES",
    "Cost",
    "long_recording",
    "measured",
    "once",
    "ours",
    "own_peak",
)

ROOT = Path(__file__).resolve().parent.parent
TRACES = os.environ.get("TRACEKIT_TRACES")
LONG = "long/trace-long-type1-buggy-7.3.4-tracekit-lab.dat"
MIB = 1 << 20
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
ENVIRONMENT.pop("PYTHONDONTWRITEBYTECODE", None)  # a second start finds what the first compiled


@dataclass(frozen=True)
class Cost:
    """Of one process: seconds of CPU (user and system) and of wall time, MiB at its largest."""

    cpu: float
    wall: float
    peak: float


def ours(*words: str) -> list[str]:
    """A command of tracekit."""
    return [sys.executable, "-m", "tracekit", *words]


def long_recording() -> Path | None:
    """The long recording of ``$TRACEKIT_TRACES``, if it is there."""
    path = Path(TRACES or "", LONG)
    return path if TRACES and path.is_file() else None


def measured(words: Sequence[str], *, alike: Sequence[int] = (0,)) -> Cost:
    """Run a command, its output thrown away.

    :param alike: exit statuses that are no failure
    :raises SystemExit: it fails
    """
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _STARTER, *words],
        capture_output=True,
        text=True,
        check=True,
        env=ENVIRONMENT,
    )
    status, cpu, wall, peak = map(float, done.stdout.split())
    if os.waitstatus_to_exitcode(int(status)) not in alike:
        raise SystemExit(f"error: {' '.join(words[:4])} ... failed")
    return Cost(cpu, wall, peak / 1024)


# The memory of a process counts from before its exec(): that of the process which started it.  So
# this is done from one that is small.
_STARTER = """
import os, sys, time
began = time.perf_counter()
child = os.fork()
if not child:
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)
    os.dup2(null, 2)
    os.execvp(sys.argv[1], sys.argv[1:])
_, status, usage = os.wait4(child, 0)
print(status, usage.ru_utime + usage.ru_stime, time.perf_counter() - began, usage.ru_maxrss)
"""


def own_peak() -> float:
    """MiB that this process needed at its largest, since its exec()."""
    found = re.search(r"^VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text(), re.M)
    assert found is not None
    return int(found[1]) / 1024


def once(file: str, *words: str) -> float:
    """What a benchmark prints last when it is called with ``--once`` and these words."""
    command = [sys.executable, file, "--once", *words]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=ENVIRONMENT)
    return float(done.stdout.split()[-1])
