"""TK111: with in-place conversion, the pages were mapped when they changed sides."""

from __future__ import annotations

from pathlib import Path

import pytest
from judging import alarms, events_of, judge, said

from replay import run
from tracekit.errors import UsageError
from tracekit.findings import Verdict
from tracekit.store import open_trace, write_events

SETUP = """
    0us   vmm  create-vm
    1us   vmm  memory
    2us   vmm  set-iommu
    5us   vmm  map 0x0+64K
"""
QEMUS_ORDER = SETUP + "20us vmm private 0x0+64K\n24us vmm unmap 0x0+64K\n30us vmm run"


def test_finds_what_was_unmapped_after_the_change_to_private(tmp_path: Path) -> None:
    outcomes = judge(QEMUS_ORDER, tmp_path, in_place=True)
    assert alarms(outcomes) == {"TK111": ["error certain 0x0+64K"]}
    (finding,) = outcomes["TK111"].findings
    assert finding.title == "64 KiB was still mapped for a device when it became private"
    (occurrence,) = finding.occurrences
    assert 20_000 < occurrence.from_ns < 21_000
    assert occurrence.until_ns == 25_000


def test_finds_what_was_mapped_before_the_change_to_shared(tmp_path: Path) -> None:
    outcomes = judge(
        SETUP
        + "10us vmm private 0x100000+4K\n20us vmm map 0x100000+4K\n24us vmm shared 0x100000+4K\n"
        "30us vmm run",
        tmp_path,
        in_place=True,
    )
    assert alarms(outcomes) == {
        "TK103": ["error certain 0x100000+4K"],
        "TK111": ["error certain 0x100000+4K"],
    }
    (finding,) = outcomes["TK111"].findings
    assert finding.title == "4 KiB was mapped for a device before it became shared"


def test_finds_what_another_threads_unmap_may_excuse_as_possible(tmp_path: Path) -> None:
    outcomes = judge(
        SETUP + "18us vmm2 unmap 0x0+64K for=20us\n20us vmm private 0x0+64K\n40us vmm run",
        tmp_path,
        in_place=True,
    )
    assert said(outcomes["TK111"]) == ["warning possible 0x0+64K"]
    # one that began after the change took effect excuses nothing
    later = judge(
        SETUP + "20us vmm private 0x0+64K for=20us\n39us vmm2 unmap 0x0+64K for=5us\n50us vmm run",
        tmp_path,
        in_place=True,
    )
    assert said(later["TK111"]) == ["error certain 0x0+64K"]


HOLDS = {
    "unmapped first": "20us vmm unmap 0x0+64K\n24us vmm private 0x0+64K",
    "mapped afterwards": (
        "10us vmm private 0x100000+64K\n20us vmm shared 0x100000+64K\n24us vmm map 0x100000+64K"
    ),
    "rolled back": "20us vmm private 0x0+64K\n24us vmm shared 0x0+64K",
    "refused, as an in-place conversion of a pinned page is": "20us vmm private 0x0+64K ret=-11",
    "no change": "20us vmm private 0x100000+64K\n24us vmm private 0x100000+64K no-op",
    "another page": "20us vmm private 0x10000+4K",
}


@pytest.mark.parametrize("case", HOLDS)
def test_holds_when_nothing_was_mapped_at_the_change(case: str, tmp_path: Path) -> None:
    outcomes = judge(f"{SETUP}{HOLDS[case]}\n90us vmm run", tmp_path, in_place=True)
    assert said(outcomes["TK111"]) == []
    assert outcomes["TK111"].verdict is Verdict.HELD


def test_not_checked_without_the_option(tmp_path: Path) -> None:
    # a trace does not say that conversion was in place
    assert "TK111" not in judge(QEMUS_ORDER, tmp_path)
    path = tmp_path / "t.parquet"
    write_events(path, events_of(QEMUS_ORDER))
    with pytest.raises(UsageError, match="in-place"):
        run(open_trace(path), only=["in-place-order"])


def test_not_checked_without_attribute_changes(tmp_path: Path) -> None:
    outcome = judge("0us vmm log\n5us end", tmp_path, in_place=True)["TK111"]
    assert (outcome.verdict, outcome.findings) == (Verdict.NOT_CHECKED, ())
    assert "no_event:kvm.vm_ioctl" in outcome.judged.reasons


def test_not_checked_without_the_mappings_before_the_recording(tmp_path: Path) -> None:
    outcome = judge("20us vmm private 0x0+64K\n30us vmm run", tmp_path, in_place=True)["TK111"]
    assert (outcome.verdict, outcome.findings) == (Verdict.NOT_CHECKED, ())
    assert outcome.judged.reasons["late_start"] == 1


def test_not_checked_without_what_a_loss_took(tmp_path: Path) -> None:
    outcome = judge(
        SETUP
        + "lost cpu0 10us..12us\n20us vmm private 0x0+64K\n24us vmm unmap 0x0+64K\n30us vmm run",
        tmp_path,
        in_place=True,
    )["TK111"]
    assert outcome.findings == ()
    assert outcome.judged.undecided == 1


def test_not_checked_without_arguments(tmp_path: Path) -> None:
    outcome = judge(
        SETUP + "20us vmm private 0x0+64K bare\n24us vmm unmap 0x0+64K\n30us vmm run",
        tmp_path,
        in_place=True,
    )["TK111"]
    assert outcome.findings == ()
    assert outcome.judged.reasons == {"unknown_arguments": 1}


def test_one_finding_for_one_cause(tmp_path: Path) -> None:
    calls = "\n".join(
        f"{30 + 10 * i}us vmm private {0x2000 * i:#x}+4K\n"
        f"{34 + 10 * i}us vmm unmap {0x2000 * i:#x}+4K\n{36 + 10 * i}us vmm run"
        for i in range(8)
    )
    setup = "0us vmm create-vm\n2us vmm set-iommu\n" + "\n".join(
        f"{4 + 2 * i}us vmm map {0x2000 * i:#x}+4K" for i in range(8)
    )
    (finding,) = judge(f"{setup}\n{calls}", tmp_path, in_place=True)["TK111"].findings
    assert finding.count == 8


@pytest.mark.parametrize("page", [0x0, 0x3FFFF000, 0xFFFFFFFFFF000])
def test_boundary_of_one_block_first_and_last_of_what_a_vm_has(page: int, tmp_path: Path) -> None:
    outcomes = judge(
        f"""
        0us   vmm  create-vm
        2us   vmm  set-iommu
        5us   vmm  map {page:#x}+4K at=0x7f0000000000
        20us  vmm  private {page:#x}+4K
        24us  vmm  unmap {page:#x}+4K
        30us  vmm  run
        """,
        tmp_path,
        in_place=True,
    )
    assert alarms(outcomes) == {"TK111": [f"error certain {page:#x}+4K"]}


def test_boundary_of_two_events_at_the_same_time(tmp_path: Path) -> None:
    private, unmap = "20us vmm private 0x0+64K for=0us\n", "20us vmm unmap 0x0+64K for=0us\n"
    run_ = "30us vmm run"
    outcomes = judge(SETUP + private + unmap + run_, tmp_path, in_place=True)
    assert alarms(outcomes) == {"TK111": ["error certain 0x0+64K"]}
    assert alarms(judge(SETUP + unmap + private + run_, tmp_path, in_place=True)) == {}


def test_boundary_of_a_trace_that_ends_before_the_unmap(tmp_path: Path) -> None:
    # TK101 cannot say yet; in place it was wrong at the commit, whatever comes
    outcomes = judge(SETUP + "20us vmm private 0x0+64K\n25us other log", tmp_path, in_place=True)
    assert outcomes["TK101"].verdict is Verdict.NOT_CHECKED
    assert said(outcomes["TK111"]) == ["error certain 0x0+64K"]
    assert outcomes["TK111"].findings[0].occurrences[0].until_ns is None


def test_boundary_of_a_trace_that_ends_before_the_unmap_is_decided_at_once(tmp_path: Path) -> None:
    judged = judge(SETUP + "20us vmm private 0x0+64K\n25us other log", tmp_path, in_place=True)[
        "TK111"
    ].judged
    assert (judged.decided, judged.undecided) == (2, 0)
