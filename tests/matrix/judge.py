"""One made trace, replayed, and what was found of what is in it."""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

import polars as pl

from replay import run
from tracekit.findings import Confidence, Occurrence, Outcome, ReplayResult, Severity
from tracekit.store import Trace, open_trace
from tracekit.synth.defects import Defects
from tracekit.synth.generate import generate
from tracekit.synth.truth import Truth, Violation

__all__ = ("SMALL", "Case", "Score", "is_same", "judged", "make", "score")

UNMAP_DMA = 0x3B72

SMALL: dict[str, dict[str, str]] = {
    "dma-ring": {"ring": "512KiB", "buffer": "32KiB"},
    "two-vms": {"memory": "512KiB", "buffer": "16KiB"},
    "several-containers": {"memory": "512KiB", "buffer": "16KiB"},
    "in-place": {"memory": "512KiB", "buffer": "32KiB"},
    "parallel-vcpus": {"memory": "1MiB", "buffer": "16KiB", "vcpus": "3"},
    "mixed-sizes": {"largest": "64KiB"},
    "hugetlb": {"memory": "2MiB", "buffer": "16KiB"},
    "tdx-boot": {"memory": "4MiB", "bounce": "128KiB"},
    "snp-boot": {"memory": "4MiB", "bounce": "128KiB"},
    "reboot": {"memory": "4MiB", "bounce": "64KiB"},
    "device-hotplug": {"memory": "512KiB", "buffer": "16KiB", "rounds": "2"},
    "memory-hotplug": {"memory": "256KiB", "device": "16MiB", "requests": "8"},
    "migration-start": {"memory": "512KiB", "rounds": "2"},
    "balloon": {"memory": "1MiB", "rounds": "3"},
}
"""Parameters that make the smallest traces in which everything of the scenario happens."""


@dataclass(frozen=True)
class Case:
    """What is made.  ``lose``: share of the events."""

    workload: str
    seed: int
    generation: str
    backend: str
    fault: str | None = None
    lose: float = 0.0
    events: int = 300

    def __str__(self) -> str:
        lost = f" --lose {self.lose:.1%}" if self.lose else ""
        broken = f" --fault {self.fault}" if self.fault else ""
        small = "".join(f" --set {k}={v}" for k, v in SMALL.get(self.workload, {}).items())
        return (
            f"{self.workload} --seed {self.seed} --generation {self.generation}"
            f" --backend {self.backend} --events {self.events}{small}{broken}{lost}"
        )


@dataclass
class Score:
    """``found`` and ``missed``: planted violations by code; ``false``: found ones that are none.

    ``possible``: found, but as a warning, because what would make them certain was not said yet.
    ``undecided``: by code, why (correct traces).  ``struck``: the fault found something to strike.
    """

    case: str = ""
    events: int = 0
    struck: bool = True
    found: Counter[str] = field(default_factory=Counter)
    missed: list[str] = field(default_factory=list)
    false: list[str] = field(default_factory=list)
    possible: list[str] = field(default_factory=list)
    undecided: dict[str, dict[str, int]] = field(default_factory=dict)


def make(case: Case, out: Path) -> Truth:
    """Write a case's trace, and the truth beside it."""
    truth = generate(
        case.workload, out, seed=case.seed, events=case.events, generation=case.generation,
        backend=case.backend, fault=case.fault, parameters=SMALL.get(case.workload),
        defects=Defects(seed=case.seed, lose=case.lose) if case.lose else None,
    )  # fmt: skip
    assert isinstance(truth, Truth)
    return truth


def judged(case: Case, folder: Path) -> tuple[Truth, ReplayResult]:
    """The truth about a case, and what the replay says of it."""
    out = folder / "x.parquet"
    truth = make(case, out)
    result = run(
        open_trace(out), generation=case.generation, in_place=truth.in_place, compiled=False
    )
    return truth, result


def score(case: Case) -> Score:
    """Make it, replay it, compare: code, severity, VM, range and interval."""
    with tempfile.TemporaryDirectory(prefix="tracekit-matrix-") as place:
        truth, result = judged(case, Path(place))
        trace = open_trace(Path(place) / "x.parquet")
        out = Score(str(case), truth.events)
        for outcome in result.outcomes:
            compare(truth, outcome, trace, out)
            if case.fault is None and outcome.judged.undecided:
                out.undecided[outcome.code] = dict(outcome.judged.reasons)
    return out


def compare(truth: Truth, outcome: Outcome, trace: Trace, out: Score) -> None:
    """What one check found beside what was planted of its code."""
    left = [
        (f.severity.value, f.vm.pid, o)
        for f in outcome.findings
        if f.severity is not Severity.NOTE
        for o in f.occurrences
    ]
    for planted in (v for v in truth.violations if v.code == outcome.code):
        same = [one for one in left if is_same(planted, *one)]
        doubtful = replace(planted, severity="warning")
        less = [] if same else [one for one in left if is_same(doubtful, *one)]
        if same:
            left.remove(same[0])
            out.found[planted.code] += 1
        elif less and an_unmap_had_begun(trace, less[0][2]):
            left.remove(less[0])
            out.found[planted.code] += 1
            out.possible.append(f"{planted.code} {planted}")
        else:
            out.missed.append(f"{planted.code} {planted}")
    out.false += [f"{outcome.code} {severity} {one}" for severity, _, one in left]


def an_unmap_had_begun(trace: Trace, found: Occurrence) -> bool:
    """Whether a violation cannot be certain: when it was decided, another thread's unmap had begun
    of which nobody had said yet what it unmaps.

    Between the system call's entry and its probe is a microsecond, in which a guest may be entered.
    """
    if found.confidence is not Confidence.POSSIBLE:
        return False
    decided = max((row.seq for row in found.chain if row.what == "run" and row.seq), default=-1)
    calls = trace.scan().filter(pl.col("seq") <= decided).select("seq", "tid", "event", "cmd")
    last: dict[int, tuple[str, int]] = {}
    for seq, tid, event, cmd in calls.collect().iter_rows():
        if seq == decided:
            break
        last[tid] = (event, cmd)
    return ("ioctl.entered", UNMAP_DMA) in last.values()


def is_same(planted: Violation, severity: str, pid: int | None, found: Occurrence) -> bool:
    """Whether this is that violation, on its range, with both moments within their calls."""
    address = found.iova if found.gpa is None else found.gpa
    if (severity, address, found.size) != (planted.severity, planted.gpa, planted.size):
        return False
    if pid is not None and pid != planted.vm:
        return False
    if planted.code == "TK201":
        return _is_within(planted, found)
    if not planted.from_ns[0] <= found.from_ns <= planted.from_ns[1]:
        return False
    if planted.until_ns is None or found.until_ns is None:
        return planted.until_ns is None and found.until_ns is None
    return planted.until_ns[0] <= found.until_ns <= planted.until_ns[1]


def _is_within(planted: Violation, found: Occurrence) -> bool:
    """A divergence lies within its conversion; where in it is the model's word."""
    assert planted.until_ns is not None
    last = found.from_ns if found.until_ns is None else found.until_ns
    return planted.from_ns[0] <= found.from_ns and last <= planted.until_ns[1]
