"""TK901: the recorder dropped events."""

from __future__ import annotations

from pathlib import Path

import pytest
from judging import judge, notes

from tracekit.findings import Severity, Verdict

SETUP = "0us vmm create-vm\n2us vmm set-iommu\n5us vmm map 0x0+64K\n"


def test_finds_every_mark_of_the_kernel(tmp_path: Path) -> None:
    outcome = judge(SETUP + "lost cpu0 10us..20us\nlost cpu1 30us..40us\n50us vmm run", tmp_path)
    (finding,) = outcome["TK901"].findings
    assert finding.severity is Severity.NOTE
    assert finding.title == "an unknown number of events was lost in 2 places"
    spans = [(o.from_ns, o.until_ns) for o in finding.occurrences]
    assert spans == [(10_000, 20_000), (30_000, 40_000)]


def test_holds_when_nothing_was_lost(tmp_path: Path) -> None:
    outcome = judge(SETUP + "50us vmm run", tmp_path)["TK901"]
    assert (outcome.verdict, outcome.findings) == (Verdict.HELD, ())


def test_holds_when_something_was_lost_because_a_note_is_no_violation(tmp_path: Path) -> None:
    outcomes = judge(SETUP + "lost cpu0 10us..20us\n50us vmm run", tmp_path)
    assert notes(outcomes) == {"TK901"}
    assert outcomes["TK901"].verdict is Verdict.HELD


def test_not_checked_without_anything_is_every_other_check(tmp_path: Path) -> None:
    # the recording itself can always be judged; what was lost makes others unable to
    outcomes = judge(
        SETUP + "20us vmm private 0x0+64K\nlost cpu0 24us..28us\n30us vmm run", tmp_path
    )
    assert outcomes["TK901"].judged.decided == 1
    assert outcomes["TK101"].verdict is Verdict.NOT_CHECKED
    assert judge("0us vmm log", tmp_path)["TK901"].verdict is Verdict.HELD


def test_one_finding_for_one_cause(tmp_path: Path) -> None:
    marks = "\n".join(f"lost cpu{i % 4} {10 * i}us..{10 * i + 5}us" for i in range(1, 151))
    (finding,) = judge(f"{SETUP}{marks}\n9ms vmm run", tmp_path)["TK901"].findings
    assert (finding.count, len(finding.occurrences)) == (150, 100)


@pytest.mark.parametrize("mark", ["0us..0us", "50us..50us", "10us..60us"])
def test_boundary_of_a_hole_at_the_edges_of_the_trace(mark: str, tmp_path: Path) -> None:
    (finding,) = judge(f"{SETUP}lost cpu0 {mark}\n50us vmm run", tmp_path)["TK901"].findings
    assert finding.title == "an unknown number of events was lost in 1 place"


def test_boundary_of_two_holes_that_overlap(tmp_path: Path) -> None:
    outcomes = judge(
        SETUP
        + """
        lost cpu0 10us..40us
        lost cpu1 20us..60us
        50us  vmm  private 0x0+4K
        55us  vmm  run
        70us  vmm  private 0x1000+4K
        """,
        tmp_path,
    )
    assert outcomes["TK901"].findings[0].count == 2
    # nothing is judged while one of them lasts
    assert outcomes["TK101"].findings == ()
