"""Keeps a worker busy, notices when it dies or stands still, and sums up what it says."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from fuzz.limits import CPU_SECONDS

__all__ = ("HEADING", "Summary", "Workers")

TESTS = Path(__file__).parents[1]
STILL_SECONDS = float(os.environ.get("TRACEKIT_FUZZ_STILL_SECONDS", "60"))
"""A worker that neither gets on nor uses CPU time for so long is ended."""


@dataclass
class Summary:
    """What came of one target's inputs.

    ``found``: kinds of findings, each with its ``count``, the numbers of some inputs (``cases``)
    and a traceback (``text``).  ``slowest``: seconds of CPU time and number; ``largest``: bytes.
    """

    target: str
    outcomes: Counter[str] = field(default_factory=Counter)
    found: dict[str, dict[str, Any]] = field(default_factory=dict)
    slowest: tuple[float, int] = (0.0, -1)
    largest: tuple[int, int] = (0, -1)

    @property
    def tried(self) -> int:
        """How many."""
        return sum(self.outcomes.values())

    def add(self, said: dict[str, Any]) -> None:
        """What a worker said, or another summary's content."""
        self.outcomes.update(said["outcomes"])
        self.slowest = max(self.slowest, tuple(said["slowest"]))
        self.largest = max(self.largest, tuple(said["largest"]))
        for name, one in said["found"].items():
            known = self.found.setdefault(name, {"count": 0, "cases": [], "text": one["text"]})
            known["count"] += one["count"]
            known["cases"] += one["cases"]

    def row(self) -> str:
        """A line of the table."""
        one = self.outcomes
        return (
            f"{self.target:<12} {self.tried:>9,} {one['read']:>9,} {one['refused']:>9,}"
            f" {one['finding']:>8,} {self.largest[0] >> 20:>8,} {self.slowest[0]:>9.2f}"
            f" {self.slowest[1]:>11}"
        )

    def findings(self) -> str:
        """Every kind of finding, with how to try it again."""
        return "\n".join(
            f"{self.target}: {name}: {one['count']} times, inputs {one['cases']}\n{one['text']}"
            for name, one in self.found.items()
        )


HEADING = (
    f"{'target':<12} {'inputs':>9} {'read':>9} {'refused':>9} {'findings':>8}"
    f" {'most MiB':>8} {'slowest s':>9} {'its number':>11}"
)


class Workers:
    """One worker after the other, as they die.  A context manager."""

    def __init__(self, *, seed: int, keep: Path) -> None:
        """``keep``: where inputs that found something are put."""
        self._seed = seed
        self._keep = keep
        self._place = tempfile.TemporaryDirectory(prefix="tracekit-fuzz-")
        self._status = Path(self._place.name) / "status"
        self._errors = Path(self._place.name) / "stderr"
        self._worker: subprocess.Popen[str] | None = None

    def __enter__(self) -> Workers:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._worker is not None:
            assert self._worker.stdin is not None
            self._worker.stdin.close()
            try:
                self._worker.wait(10)
            except subprocess.TimeoutExpired:
                self._worker.kill()
                self._worker.wait()
            self._forget()
        self._place.cleanup()

    def fuzz(self, target: str, *, first: int = 0, cases: int = 0, seconds: float = 0) -> Summary:
        """Try ``cases`` inputs of a target, or as many as ``seconds`` are enough for."""
        assert cases or seconds
        summary = Summary(target)
        end = first + cases if cases else 0
        began = time.monotonic()
        while True:
            left = seconds - (time.monotonic() - began) if seconds else 0.0
            if (seconds and left <= 0) or (end and first >= end):
                return summary
            first = self._order(summary, first, end - first if end else 0, left)

    def _order(self, summary: Summary, first: int, cases: int, seconds: float) -> int:
        """Have a worker try some inputs; the number of the next one."""
        worker = self._worker or self._started()
        assert worker.stdin is not None
        self._status.write_text("")  # the worker has it open
        print(f"{summary.target} {first} {cases} {seconds:.3f}", file=worker.stdin, flush=True)
        line = self._answer(worker)
        if line:
            said = json.loads(line)
            summary.add(said)
            return int(said["next"])
        worker.wait()
        self._forget()
        return self._died(summary, first, worker.returncode)

    def _started(self) -> subprocess.Popen[str]:
        self._keep.mkdir(parents=True, exist_ok=True)
        with self._errors.open("w") as errors:
            self._worker = subprocess.Popen(
                [
                    sys.executable, "-m", "fuzz.worker", str(self._seed), str(self._status),
                    str(self._keep),
                ],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
                env={**os.environ, "PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent}"},
                cwd=self._place.name,
            )  # fmt: skip
        return self._worker

    def _forget(self) -> None:
        assert self._worker is not None
        for pipe in (self._worker.stdin, self._worker.stdout):
            assert pipe is not None
            pipe.close()
        self._worker = None

    def _answer(self, worker: subprocess.Popen[str]) -> str:
        """What it answers; empty: it is dead, if need be by our hand."""
        assert worker.stdout is not None
        before = None
        while not select.select([worker.stdout], [], [], STILL_SECONDS)[0]:
            now = self._status.read_text(), _cpu_ticks(worker.pid)
            if now == before:
                worker.kill()
            before = now
        return worker.stdout.readline()

    def _died(self, summary: Summary, first: int, code: int) -> int:
        """Note what the worker died of."""
        at, errors = self._status.read_text().split(), self._errors.read_text()
        if not at:
            raise RuntimeError(f"{summary.target}: no input could be tried\n{errors}")
        number = int(at[0])
        slow = code == -signal.SIGPROF
        how = {
            -signal.SIGPROF: f"more than {CPU_SECONDS:g} s of CPU time",
            -signal.SIGKILL: "no end, and no use of CPU time either",
        }.get(code, f"the process ended by {signal.Signals(-code).name if code < 0 else code}")
        places = [line.strip() for line in errors.splitlines() if line.strip().startswith("File ")]
        ours = next((p for p in places if "/tracekit/" in p or "/replay/" in p), "")
        one = {"count": 1, "cases": [number], "text": errors[-3000:]}
        summary.add(
            {
                # Of what the dead one did before, only the number is known.
                "outcomes": {"finding": 1, "not told": number - first},
                "found": {f"{how}{': ' + ours if ours else ''}": one},
                "slowest": (CPU_SECONDS if slow else 0.0, number),
                "largest": (0, -1),
            }
        )
        return number + 1


def _cpu_ticks(pid: int) -> str:
    """CPU time of a process, user's and system's."""
    try:
        return " ".join(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13])
    except OSError:
        return ""
