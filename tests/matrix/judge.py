"""One made trace, replayed, and what was found of what is in it."""

from __future__ import annotations

import tempfile
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from replay import run
from tracekit.findings import Occurrence, Outcome, ReplayResult, Severity
from tracekit.store import open_trace
from tracekit.synth.defects import Defects
from tracekit.synth.generate import generate
from tracekit.synth.truth import Truth, Violation

__all__ = ("KNOWN", "KNOWN_UNDER_LOSS", "NOT_COMPARED", "SMALL", "Case", "Score", "is_same",
           "judged", "make", "score")  # fmt: skip

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
NOT_COMPARED: dict[str, tuple[str, str]] = {}
"""By workload: a code that is wrong there, and why."""
KNOWN: dict[tuple[str, str], tuple[str, str]] = {}
"""By fault and workload: a code whose false alarms there have a known cause, and that."""
KNOWN_UNDER_LOSS: dict[str, str] = {}
"""By code: why it is wrong about correct traces that lost events."""


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
    """``found`` and ``missed``: planted violations by code; ``false``: found ones that are none,
    ``known`` how many of these have a known cause (:data:`KNOWN`) and are not among them.

    ``undecided``: by code, why (correct traces).  ``struck``: the fault found something to strike.
    """

    case: str = ""
    events: int = 0
    struck: bool = True
    found: Counter[str] = field(default_factory=Counter)
    missed: list[str] = field(default_factory=list)
    false: list[str] = field(default_factory=list)
    known: int = 0
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
    out = Score(str(case), truth.events)
    for outcome in result.outcomes:
        compare(truth, outcome, out)
        compared = outcome.code not in NOT_COMPARED.get(case.workload, ())[:1]
        if case.fault is None and compared and outcome.judged.undecided:
            out.undecided[outcome.code] = dict(outcome.judged.reasons)
    return out


def compare(truth: Truth, outcome: Outcome, out: Score) -> None:
    """What one check found beside what was planted of its code."""
    if outcome.code in NOT_COMPARED.get(truth.scenario, ())[:1]:
        return
    left = [
        (f.severity.value, f.vm.pid, o)
        for f in outcome.findings
        if f.severity is not Severity.NOTE
        for o in f.occurrences
    ]
    for planted in (v for v in truth.violations if v.code == outcome.code):
        same = [one for one in left if is_same(planted, *one)]
        if same:
            left.remove(same[0])
            out.found[planted.code] += 1
        else:
            out.missed.append(f"{planted.code} {planted}")
    if outcome.code in KNOWN.get((str(truth.fault), truth.scenario), ())[:1]:
        out.known += len(left)
        return
    out.false += [f"{outcome.code} {severity} {one}" for severity, _, one in left]


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
