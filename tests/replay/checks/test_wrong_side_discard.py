"""TK110: a conversion threw away the side that the guest uses now."""

from __future__ import annotations

from pathlib import Path

import pytest
from judging import alarms, judge, notes, said

from tracekit.findings import Confidence, Severity, Verdict

SETUP = """
    0us   vmm  create-vm
    1us   vmm  memory
    2us   vmm  set-iommu
    3us   vmm  slot 0 0x0+1M gmem
    5us   vmm  private 0x80000+64K
    6us   vmm  punch 0x80000+64K
    8us   vmm  run
"""


def test_finds_guest_memory_punched_in_a_conversion_to_private(tmp_path: Path) -> None:
    outcomes = judge(
        SETUP + "20us vmm private 0x0+64K\n24us vmm punch-private 0x0+64K\n30us vmm run", tmp_path
    )
    assert alarms(outcomes) == {"TK110": ["error certain 0x0+64K"]}
    (finding,) = outcomes["TK110"].findings
    assert finding.title == "64 KiB was discarded on the side that the guest uses"
    (occurrence,) = finding.occurrences
    assert (occurrence.from_ns, occurrence.until_ns, occurrence.iova) == (24_000, 25_000, None)


@pytest.mark.parametrize("call", ["punch", "remove"])
def test_finds_shared_backing_discarded_in_a_conversion_to_shared(
    call: str, tmp_path: Path
) -> None:
    outcomes = judge(
        SETUP + f"20us vmm shared 0x80000+64K\n24us vmm {call} 0x80000+64K\n30us vmm run", tmp_path
    )
    assert alarms(outcomes) == {"TK110": ["error certain 0x80000+64K"]}


def test_finds_it_behind_the_offset_of_a_slot_in_its_guest_memfd(tmp_path: Path) -> None:
    outcomes = judge(
        """
        0us   vmm  create-vm
        3us   vmm  slot 0 0x100000000+1M gmem=7 goff=0x400000
        20us  vmm  private 0x100000000+64K
        24us  vmm  punch-private 0x408000+4K
        30us  vmm  run
        """,
        tmp_path,
    )
    assert alarms(outcomes) == {"TK110": ["error certain 0x100008000+4K"]}


def test_finds_it_without_the_descriptor_if_only_one_can_be_meant(tmp_path: Path) -> None:
    outcomes = judge(
        """
        0us   vmm  create-vm
        1us   vmm  create-gmem 0x0+1M
        3us   vmm  slot 0 0x0+1M gmem untold
        20us  vmm  private 0x0+64K
        24us  vmm  punch-private 0x0+64K
        30us  vmm  run
        """,
        tmp_path,
    )
    assert alarms(outcomes) == {"TK110": ["error certain 0x0+64K"]}


def test_finds_as_possible_what_came_when_the_conversion_was_over(tmp_path: Path) -> None:
    outcomes = judge(
        SETUP + "20us vmm private 0x0+64K\n5ms vmm punch-private 0x0+64K\n6ms vmm run", tmp_path
    )
    (finding,) = outcomes["TK110"].findings
    assert (finding.severity, finding.confidence) == (Severity.WARNING, Confidence.POSSIBLE)


def test_finds_as_a_note_that_both_sides_hold_memory(tmp_path: Path) -> None:
    outcomes = judge(
        SETUP
        + "20us vmm map 0x0+64K\n24us vmm private 0x0+64K\n26us vmm unmap 0x0+64K\n30us vmm run",
        tmp_path,
    )
    assert alarms(outcomes) == {}
    assert said(outcomes["TK110"]) == ["note likely 0x0+64K"]
    (finding,) = outcomes["TK110"].findings
    assert finding.title == "64 KiB became private and its shared side was not discarded"


HOLDS = {
    "qemu's order to private": "20us vmm private 0x0+64K\n24us vmm punch 0x0+64K",
    "qemu's order to shared": "20us vmm shared 0x80000+64K\n24us vmm punch-private 0x80000+64K",
    "other pages of the guest_memfd": (
        "20us vmm private 0x0+64K\n22us vmm punch 0x0+64K\n24us vmm punch-private 0x90000+64K"
    ),
    "other shared pages": "20us vmm shared 0x80000+64K\n24us vmm punch 0x90000+64K",
    "another thread's balloon": "20us vmm shared 0x80000+64K\n24us vmm2 punch 0x80000+64K",
    "after the guest ran": (
        "20us vmm shared 0x80000+64K\n24us vmm run\n26us vmm punch 0x80000+64K"
    ),
    "without a conversion": "20us vmm punch 0x0+64K\n24us vmm punch-private 0x0+64K",
    "refused": (
        "20us vmm private 0x0+64K\n22us vmm punch 0x0+64K\n24us vmm punch-private 0x0+64K ret=-95"
    ),
    "the conversion was refused": (
        "20us vmm private 0x0+64K ret=-12\n24us vmm punch-private 0x0+64K"
    ),
    "a slot without guest_memfd": (
        "12us vmm slot 1 0x200000+1M\n20us vmm shared 0x200000+64K\n24us vmm punch 0x200000+64K"
    ),
}


@pytest.mark.parametrize("case", HOLDS)
def test_holds_when_the_other_side_goes(case: str, tmp_path: Path) -> None:
    outcomes = judge(f"{SETUP}{HOLDS[case]}\n90us vmm run", tmp_path)
    assert alarms(outcomes) == {}
    assert "TK110" not in notes(outcomes)
    assert outcomes["TK110"].verdict is Verdict.HELD


def test_holds_when_huge_pages_are_not_discarded(tmp_path: Path) -> None:
    outcomes = judge(
        """
        0us   vmm  create-vm
        1us   vmm  memory huge
        2us   vmm  set-iommu
        3us   vmm  slot 0 0x0+4M gmem
        10us  vmm  map 0x0+2M
        14us  vmm  private 0x0+2M
        16us  vmm  unmap 0x0+2M
        20us  vmm  run
        30us  vmm  punch 0x200000+2M
        """,
        tmp_path,
    )
    assert said(outcomes["TK110"]) == []


def test_not_checked_without_slots(tmp_path: Path) -> None:
    outcome = judge(
        """
        0us   vmm  create-vm
        1us   vmm  memory
        20us  vmm  private 0x0+64K
        24us  vmm  punch-private 0x0+64K
        30us  vmm  run
        """,
        tmp_path,
    )["TK110"]
    assert (outcome.verdict, outcome.findings) == (Verdict.NOT_CHECKED, ())
    assert outcome.judged.reasons == {"unknown_backing": 1}


def test_not_checked_without_discards(tmp_path: Path) -> None:
    outcome = judge(
        "0us vmm create-vm\n3us vmm slot 0 0x0+1M gmem\n20us vmm private 0x0+64K\n30us vmm run",
        tmp_path,
    )["TK110"]
    assert (outcome.verdict, outcome.findings) == (Verdict.NOT_CHECKED, ())
    assert outcome.judged.reasons == {"no_event:fallocate.entered": 1}


def test_not_checked_without_the_side_that_a_loss_made_unknown(tmp_path: Path) -> None:
    outcome = judge(
        SETUP + "20us vmm private 0x0+64K\nlost cpu0 22us..23us\n24us vmm punch-private 0x0+64K",
        tmp_path,
    )["TK110"]
    assert outcome.findings == ()


def test_not_checked_without_arguments(tmp_path: Path) -> None:
    outcome = judge(
        SETUP + "20us vmm private 0x0+64K bare\n24us vmm punch-private 0x0+64K\n30us vmm run",
        tmp_path,
    )["TK110"]
    assert outcome.findings == ()


def test_one_finding_for_one_cause(tmp_path: Path) -> None:
    calls = "\n".join(
        f"{20 + 10 * i}us vmm private {0x2000 * i:#x}+4K\n"
        f"{24 + 10 * i}us vmm punch-private {0x2000 * i:#x}+4K\n{26 + 10 * i}us vmm run"
        for i in range(6)
    )
    (finding,) = judge(SETUP + calls, tmp_path)["TK110"].findings
    assert finding.count == 6
    assert finding.title == "24 KiB was discarded on the side that the guest uses"


@pytest.mark.parametrize("page", [0x0, 0xFF000])
def test_boundary_of_one_block_first_and_last_of_the_slot(page: int, tmp_path: Path) -> None:
    outcomes = judge(
        SETUP + f"20us vmm private {page:#x}+4K\n24us vmm punch-private {page:#x}+4K\n30us vmm run",
        tmp_path,
    )
    assert alarms(outcomes) == {"TK110": [f"error certain {page:#x}+4K"]}


def test_boundary_of_the_last_block_that_a_vm_can_have(tmp_path: Path) -> None:
    outcomes = judge(
        """
        0us   vmm  create-vm
        3us   vmm  slot 0 0xffffffffff000+4K gmem at=0x7f0000000000
        20us  vmm  private 0xffffffffff000+4K
        24us  vmm  punch-private 0x0+4K
        30us  vmm  run
        """,
        tmp_path,
    )
    assert alarms(outcomes) == {"TK110": ["error certain 0xffffffffff000+4K"]}


def test_boundary_where_the_discard_is_larger_than_the_conversion(tmp_path: Path) -> None:
    outcomes = judge(
        SETUP + "20us vmm private 0x4000+4K\n24us vmm punch-private 0x0+64K\n30us vmm run", tmp_path
    )
    assert alarms(outcomes) == {"TK110": ["error certain 0x4000+4K"]}


def test_boundary_of_two_events_at_the_same_time(tmp_path: Path) -> None:
    private, punch = "20us vmm private 0x0+4K for=0us\n", "20us vmm punch-private 0x0+4K for=0us\n"
    outcomes = judge(SETUP + private + punch + "30us vmm run", tmp_path)
    assert alarms(outcomes) == {"TK110": ["error certain 0x0+4K"]}
    run = "20us vmm run for=0us\n"
    assert alarms(judge(SETUP + private + run + punch + "30us vmm run", tmp_path)) == {}


def test_boundary_of_a_trace_that_ends_in_the_discard(tmp_path: Path) -> None:
    outcome = judge(
        SETUP + "20us vmm private 0x0+4K\n24us vmm punch-private 0x0+4K no-exit", tmp_path
    )
    # whether it succeeded is not known
    assert outcome["TK110"].findings == ()


@pytest.mark.parametrize("span", ["0x7ffffffffffff000+4K", "0x0+0x7fffffffffffffff"])
def test_boundary_at_the_end_of_64_bits(span: str, tmp_path: Path) -> None:
    outcomes = judge(
        SETUP + f"20us vmm private 0x0+4K\n24us vmm punch-private {span} ret=-22\n30us vmm run",
        tmp_path,
    )
    assert alarms(outcomes) == {}
