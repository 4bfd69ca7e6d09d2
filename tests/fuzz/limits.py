"""Bounds of one input: CPU time, which the kernel of the machine keeps, and memory.

Time is the process's own: a timer of the kernel ends the process, in whatever code it is, after
faulthandler said where that was.  Memory is the most of it that was resident, asked for after every
input and forgotten before the next (``/proc/self/clear_refs``).  Address space is no measure: numba
and Arrow reserve much that they never touch; a limit on it stands only against what would harm the
machine, so high that nothing sound comes near.
"""

from __future__ import annotations

import faulthandler
import os
import re
import resource
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import IO

__all__ = ("CPU_SECONDS", "MEMORY_BYTES", "Memory", "keep_limits", "start_timer", "stop_timer")

CPU_SECONDS = float(os.environ.get("TRACEKIT_FUZZ_CPU_SECONDS", "10"))
MEMORY_BYTES = int(os.environ.get("TRACEKIT_FUZZ_MEMORY_MIB", "1024")) << 20
_DATA_BYTES = 6 << 30
_STATUS = Path("/proc/self/status")


def keep_limits() -> None:
    """Once in a process."""
    resource.setrlimit(resource.RLIMIT_DATA, (_DATA_BYTES, _DATA_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    faulthandler.enable(sys.stderr)
    faulthandler.register(signal.SIGPROF, sys.stderr, all_threads=False, chain=True)


def start_timer() -> None:
    """The next input may begin."""
    signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)


def stop_timer() -> None:
    """It was in time."""
    signal.setitimer(signal.ITIMER_PROF, 0)


class Memory:
    """The most resident memory since :meth:`forget`."""

    def __init__(self) -> None:
        self._clear: IO[str] | None = None
        with suppress(OSError):
            self._clear = open("/proc/self/clear_refs", "w")  # noqa: SIM115

    def forget(self) -> None:
        """Begin anew, where the kernel lets us; else the most is that of the whole process."""
        if self._clear is not None:
            self._clear.write("5")
            self._clear.flush()

    def most(self) -> int:
        """In bytes."""
        found = re.search(r"VmHWM:\s+(\d+) kB", _STATUS.read_text())
        if found is None:
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10
        return int(found[1]) << 10
