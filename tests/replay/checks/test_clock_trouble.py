"""TK902: times of the recording that cannot be relied on."""

from __future__ import annotations

from pathlib import Path

import pytest
from judging import judge, said

from tracekit.findings import Severity, Verdict

SETUP = "0us vmm create-vm\n2us vmm set-iommu\n5us vmm map 0x0+64K\n"


def test_finds_time_that_runs_back(tmp_path: Path) -> None:
    outcome = judge(SETUP + "clock-back cpu0 50us said=20us\n60us vmm run", tmp_path)["TK902"]
    (finding,) = outcome.findings
    assert finding.severity is Severity.WARNING
    assert finding.title == "time ran back by up to 30.0 us inside one CPU's buffer"
    # a warning: the check held
    assert outcome.verdict is Verdict.HELD


def test_holds_when_time_only_runs_forward(tmp_path: Path) -> None:
    outcome = judge(SETUP + "5us vmm run\n5us vmm run\n60us vmm run", tmp_path)["TK902"]
    assert (outcome.verdict, outcome.findings) == (Verdict.HELD, ())


def test_not_checked_without_anything_is_never(tmp_path: Path) -> None:
    # the recording itself can always be judged, also one that holds nothing of VFIO
    assert judge("0us other log", tmp_path)["TK902"].judged.decided == 1


def test_one_finding_for_one_cause(tmp_path: Path) -> None:
    marks = "\n".join(f"clock-back cpu0 {10 + i}us said={9 + i}us" for i in range(149))
    last = "clock-back cpu1 300us said=100us"
    (finding,) = judge(f"{SETUP}{marks}\n{last}\n900us vmm run", tmp_path)["TK902"].findings
    assert (finding.count, len(finding.occurrences)) == (150, 100)
    assert finding.title == "time ran back by up to 200.0 us inside one CPU's buffer"


@pytest.mark.parametrize("said_at", ["50us", "0us", "49999ns"])
def test_boundary_of_how_far_it_ran_back(said_at: str, tmp_path: Path) -> None:
    (finding,) = judge(f"{SETUP}clock-back cpu0 50us said={said_at}\n60us vmm run", tmp_path)[
        "TK902"
    ].findings
    (occurrence,) = finding.occurrences
    assert occurrence.until_ns == 50_000


def test_boundary_of_a_violation_around_it(tmp_path: Path) -> None:
    # the recorded order of each CPU is kept, so what it shows is still found
    outcomes = judge(
        SETUP + "20us vmm private 0x0+64K\nclock-back cpu0 25us said=10us\n30us vmm run", tmp_path
    )
    assert said(outcomes["TK101"]) == ["error certain 0x0+64K"]
