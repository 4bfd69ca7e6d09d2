"""Tries inputs in a process of its own, so that a crash or a limit ends only that.

``python -m fuzz.worker SEED STATUS FINDINGS`` takes orders on standard input, a line each: ``TARGET
FIRST CASES SECONDS``, inputs from number FIRST on, until CASES of them or SECONDS of time are used
up (0: no such end).  It answers each with a line of JSON.  The file STATUS says which input is
being tried; what found something is kept in the folder FINDINGS.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tempfile
import time
import traceback
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

from fuzz import limits
from fuzz.define import COMPILED, Case, Target

__all__ = ("case_of", "keep", "main", "signature", "try_case")

DEEP = 4
"""One input of so many is also tried deeply."""
WARM = 12
"""Inputs that are enough to have every kernel compiled."""
MAX_KEPT = 5
"""Inputs kept of one kind of finding."""


def _target(name: str) -> Target:
    if name.startswith("faulty-"):
        from fuzz.faulty import FAULTY

        return FAULTY[name]
    from fuzz.targets import TARGETS

    return TARGETS[name]


def case_of(target: str, seed: int, number: int) -> Case:
    """The input with that number: always the same one."""
    case = _target(target).make(Random(f"{target} {seed} {number}"))
    return replace(case, deep=number % DEEP == 0)


def keep(case: Case, folder: Path) -> None:
    """Put an input where it can be looked at."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    case.write(folder)
    said = {"inputs": case.inputs, "options": case.options}
    (folder / "case.json").write_text(json.dumps(said, default=str))


def try_case(target: str, case: Case, folder: Path) -> str:
    """What came of an input, in an empty folder."""
    for path in folder.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    case.write(folder)
    return _target(target).check(case, folder)


def signature(error: BaseException) -> str:
    """Where an exception came from, to tell one kind from another."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [f for f in frames if "/tracekit/" in f.filename or "/replay/" in f.filename]
    place = (ours or frames)[-1]
    said = str(error).splitlines()[:1] if isinstance(error, AssertionError) else []
    what = re.sub(r"[0-9]+", "N", "".join(said))[:80]
    where = f"{Path(place.filename).name}:{place.lineno} {place.name}"
    return f"{type(error).__name__} in {where}" + (f" ({what})" if what else "")


@dataclass
class _Tally:
    """What came of the inputs of one order."""

    outcomes: Counter[str] = field(default_factory=Counter)
    found: dict[str, dict[str, Any]] = field(default_factory=dict)
    slowest: tuple[float, int] = (0.0, -1)
    largest: tuple[int, int] = (0, -1)


class _Worker:
    def __init__(self, seed: int, status: str, findings: Path, folder: Path) -> None:
        self._seed = seed
        self._status = os.open(status, os.O_RDWR | os.O_CREAT, 0o644)
        self._findings = findings
        self._folder = folder
        self._memory = limits.Memory()

    def follow(self, target: str, first: int, cases: int, seconds: float) -> dict[str, Any]:
        """Carry out an order."""
        self._prepare(target, first)
        tally = _Tally()
        number, began = first, time.monotonic()
        while not (cases and number >= first + cases):
            if seconds and time.monotonic() - began >= seconds:
                break
            self._try(target, number, tally)
            number += 1
        return {"next": number, **vars(tally)}

    def _prepare(self, target: str, first: int) -> None:
        """Read seeds, import libraries and compile kernels, before any clock is read."""
        os.pwrite(self._status, str(first).ljust(64).encode(), 0)
        for number in range(first, first + (WARM if COMPILED else 1)):
            case = case_of(target, self._seed, number)
            if not COMPILED:
                limits.start_timer()
            with suppress(Exception):  # it is tried again
                try_case(target, replace(case, deep=True), self._folder)
            limits.stop_timer()

    def _try(self, target: str, number: int, tally: _Tally) -> None:
        case = case_of(target, self._seed, number)
        os.pwrite(self._status, f"{number} {time.process_time():.1f}".ljust(64).encode(), 0)
        self._memory.forget()
        cpu, kind, text = time.process_time(), "", ""
        limits.start_timer()
        try:
            outcome = try_case(target, case, self._folder)
        except Exception as error:
            limits.stop_timer()
            outcome, kind = "finding", signature(error)
            text = "".join(traceback.format_exception(error))[-3000:]
        limits.stop_timer()
        most = self._memory.most()
        tally.slowest = max(tally.slowest, (time.process_time() - cpu, number))
        tally.largest = max(tally.largest, (most, number))
        if not kind and most > limits.MEMORY_BYTES:
            outcome, kind, text = "finding", "too much memory", f"{most >> 20} MiB"
        tally.outcomes[outcome] += 1
        if kind:
            entry = tally.found.setdefault(kind, {"count": 0, "cases": [], "text": text})
            entry["count"] += 1
            if len(entry["cases"]) < MAX_KEPT:
                entry["cases"].append(number)
                keep(case, self._findings / f"{target}-{self._seed}-{number}")


def main(arguments: list[str]) -> None:
    """See the module."""
    seed, status, findings = arguments
    limits.keep_limits()
    # Beside STATUS, where it is cleared away when this process dies.
    with tempfile.TemporaryDirectory(dir=Path(status).parent) as place:
        worker = _Worker(int(seed), status, Path(findings), Path(place))
        for line in sys.stdin:
            target, first, cases, seconds = line.split()
            print(json.dumps(worker.follow(target, int(first), int(cases), float(seconds))))
            sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
