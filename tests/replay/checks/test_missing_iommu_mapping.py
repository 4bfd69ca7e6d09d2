"""TK104: memory became shared and its device cannot reach it."""

from __future__ import annotations

from pathlib import Path

import pytest
from judging import alarms, judge, said

from tracekit.findings import Verdict

BEFORE = """
    0us   vmm  create-vm
    1us   vmm  memory
    2us   vmm  set-iommu
"""
SETUP = (
    BEFORE
    + """
    5us   vmm  map 0x100000+64K
    8us   vmm  private 0x100000+64K
    10us  vmm  unmap 0x100000+64K
    12us  vmm  punch 0x100000+64K
    14us  vmm  run
"""
)
SLOT = (
    BEFORE
    + """
    3us   vmm  slot 0 0x0+1M
    4us   vmm  private 0x0+1M
    8us   vmm  shared 0x0+64K
    10us  vmm  map 0x0+64K
    14us  vmm  run
"""
)


@pytest.mark.parametrize("over", ["run", "enter", "exit-thread"])
def test_finds_what_is_not_mapped_when_the_conversion_is_over(over: str, tmp_path: Path) -> None:
    outcomes = judge(
        f"{SETUP}20us vmm shared 0x100000+64K\n30us vmm {over}\n40us vmm map 0x100000+64K", tmp_path
    )
    assert alarms(outcomes) == {"TK104": ["error certain 0x100000+64K"]}
    (finding,) = outcomes["TK104"].findings
    assert finding.title == "64 KiB of shared guest memory was mapped too late for a device"
    (occurrence,) = finding.occurrences
    assert 20_000 < occurrence.from_ns < 21_000
    assert occurrence.until_ns == 41_000


def test_finds_the_half_that_was_not_mapped(tmp_path: Path) -> None:
    outcomes = judge(
        SETUP + "20us vmm shared 0x100000+64K\n22us vmm map 0x100000+32K\n30us vmm run", tmp_path
    )
    assert alarms(outcomes) == {"TK104": ["error certain 0x108000+32K"]}
    (finding,) = outcomes["TK104"].findings
    assert finding.title == "32 KiB of shared guest memory is not mapped for a device"


def test_finds_pages_of_a_slot_that_its_container_holds_in_full(tmp_path: Path) -> None:
    outcomes = judge(SLOT + "20us vmm shared 0x20000+64K\n30us vmm run", tmp_path)
    assert alarms(outcomes) == {"TK104": ["error certain 0x20000+64K"]}


def test_finds_that_another_thread_converts_it_back(tmp_path: Path) -> None:
    outcomes = judge(
        SETUP + "20us vmm shared 0x100000+64K\n25us vmm2 private 0x100000+64K\n30us vmm run",
        tmp_path,
    )
    assert alarms(outcomes) == {"TK104": ["error certain 0x100000+64K"]}


def test_finds_a_late_map_as_likely(tmp_path: Path) -> None:
    text = SETUP + "20us vmm shared 0x100000+64K\n3ms vmm map 0x100000+64K\n4ms vmm run"
    assert alarms(judge(text, tmp_path)) == {"TK104": ["warning likely 0x100000+64K"]}
    assert alarms(judge(text, tmp_path, grace_ns=5_000_000)) == {}


def test_finds_what_another_threads_map_may_excuse_as_possible(tmp_path: Path) -> None:
    # nothing says when, between its entry and its return, the map took effect
    outcomes = judge(
        SETUP
        + "20us vmm shared 0x100000+64K\n22us vmm2 map 0x100000+64K for=20us silent\n30us vmm run",
        tmp_path,
    )
    assert alarms(outcomes) == {"TK104": ["warning possible 0x100000+64K"]}


HOLDS = {
    "qemu's order": SETUP + "20us vmm shared 0x100000+64K\n22us vmm map 0x100000+64K each=4K",
    "block by block": SETUP
    + "20us vmm shared 0x100000+8K\n22us vmm map 0x100000+4K\n24us vmm map 0x101000+4K",
    "another thread maps": SETUP + "20us vmm shared 0x100000+64K\n22us vmm2 map 0x100000+64K",
    "within the grace": SETUP + "20us vmm shared 0x100000+64K\n1ms vmm map 0x100000+64K",
    "refused": SETUP + "20us vmm shared 0x100000+64K ret=-12",
    "no change": SETUP + "20us vmm shared 0x900000+64K no-op",
    "taken back": SETUP + "20us vmm shared 0x100000+64K\n22us vmm private 0x100000+64K",
    "never mapped before, in no slot": SETUP
    + "20us vmm private 0x900000+64K\n22us vmm shared 0x900000+64K",
    "a slot that its container does not hold": SETUP
    + "16us vmm slot 1 0x800000+1M\n18us vmm private 0x900000+64K\n20us vmm shared 0x900000+64K",
    "a slot held in part": BEFORE
    + "3us vmm slot 0 0x0+1M\n5us vmm map 0x0+64K\n8us vmm private 0x20000+64K\n9us vmm run\n"
    "20us vmm shared 0x20000+64K",
    "the container is closed": SETUP + "18us vmm close 8\n20us vmm shared 0x100000+64K",
    "firmware unmaps and maps all of it": BEFORE
    + "5us vmm map 0x0+1M\n8us vmm unmap 0x0+1M\n6ms vmm map 0x0+1M\n7ms vmm unmap 0x0+1M",
    "unmapped for good before it was private": BEFORE
    + "5us vmm map 0x0+64K\n8us vmm unmap 0x0+64K\n10us vmm run\n12us vmm private 0x0+64K\n"
    "20us vmm shared 0x0+64K",
}


@pytest.mark.parametrize("case", HOLDS)
def test_holds_when_it_is_mapped_or_nobody_wants_it(case: str, tmp_path: Path) -> None:
    outcomes = judge(f"{HOLDS[case]}\n9ms vmm run", tmp_path, grace_ns=20_000_000)
    assert alarms(outcomes) == {}


def test_not_checked_without_attribute_changes(tmp_path: Path) -> None:
    outcome = judge(BEFORE + "5us vmm map 0x0+64K\n30us vmm run", tmp_path)["TK104"]
    assert (outcome.verdict, outcome.findings) == (Verdict.NOT_CHECKED, ())
    assert "no_event:kvm.vm_ioctl" in outcome.judged.reasons


def test_not_checked_without_the_mappings_before_the_recording(tmp_path: Path) -> None:
    outcome = judge(
        "5us vmm map 0x900000+4K\n20us vmm shared 0x100000+64K\n30us vmm run", tmp_path
    )["TK104"]
    assert (outcome.verdict, outcome.findings) == (Verdict.NOT_CHECKED, ())
    assert outcome.judged.reasons == {"late_start": 1}


def test_not_checked_without_what_a_loss_took(tmp_path: Path) -> None:
    outcome = judge(
        SETUP + "20us vmm shared 0x100000+64K\nlost cpu0 22us..25us\n30us vmm run", tmp_path
    )["TK104"]
    assert (outcome.verdict, outcome.findings) == (Verdict.NOT_CHECKED, ())
    assert outcome.judged.reasons == {"loss": 1}


def test_not_checked_without_arguments(tmp_path: Path) -> None:
    outcome = judge(SETUP + "20us vmm shared 0x100000+64K bare\n30us vmm run", tmp_path)["TK104"]
    assert (outcome.verdict, outcome.findings) == (Verdict.NOT_CHECKED, ())
    assert outcome.judged.reasons == {"unknown_arguments": 1}


def test_one_finding_for_one_cause(tmp_path: Path) -> None:
    calls = "\n".join(
        f"{20 + 10 * i}us vmm shared {0x100000 + 0x2000 * i:#x}+4K\n{25 + 10 * i}us vmm run"
        for i in range(8)
    )
    (finding,) = judge(f"{SETUP}{calls}", tmp_path)["TK104"].findings
    assert finding.count == 8
    assert finding.title == "32 KiB of shared guest memory is not mapped for a device"


def test_one_finding_for_one_cause_in_each_container_that_held_it(tmp_path: Path) -> None:
    outcomes = judge(
        BEFORE
        + """
        3us   vmm  set-iommu fd=21
        5us   vmm  map 0x0+64K
        6us   vmm  map 0x0+64K fd=21
        10us  vmm  private 0x0+64K
        12us  vmm  unmap 0x0+64K
        14us  vmm  unmap 0x0+64K fd=21
        16us  vmm  run
        20us  vmm  shared 0x0+64K
        22us  vmm  map 0x0+64K
        30us  vmm  run
        """,
        tmp_path,
    )
    (finding,) = outcomes["TK104"].findings
    assert finding.container == 0xFFFF_0001 + 16 * (21 - 8)


@pytest.mark.parametrize("page", [0x0, 0x3FFFF000, 0xFFFFFFFFFF000])
def test_boundary_of_one_block_first_and_last_of_what_a_vm_has(page: int, tmp_path: Path) -> None:
    outcomes = judge(
        f"""
        0us   vmm  create-vm
        2us   vmm  set-iommu
        5us   vmm  map {page:#x}+4K at=0x7f0000000000
        8us   vmm  private {page:#x}+4K
        10us  vmm  unmap {page:#x}+4K
        14us  vmm  run
        20us  vmm  shared {page:#x}+4K
        30us  vmm  run
        """,
        tmp_path,
    )
    assert alarms(outcomes) == {"TK104": [f"error certain {page:#x}+4K"]}


def test_boundary_of_two_events_at_the_same_time(tmp_path: Path) -> None:
    shared = "20us vmm shared 0x100000+64K for=0us\n"
    mapped, run = "20us vmm map 0x100000+64K for=0us\n", "20us vmm run for=0us\n"
    assert alarms(judge(SETUP + shared + mapped + run, tmp_path)) == {}
    outcomes = judge(SETUP + shared + run + mapped, tmp_path)
    assert alarms(outcomes) == {"TK104": ["error certain 0x100000+64K"]}


def test_boundary_of_a_trace_that_ends_in_the_conversion(tmp_path: Path) -> None:
    start = SETUP + "20us vmm shared 0x100000+64K\n"
    soon = judge(start + "500us other log", tmp_path)["TK104"]
    assert (soon.verdict, soon.findings) == (Verdict.NOT_CHECKED, ())
    assert soon.judged.reasons == {"trace_end": 1}
    late = judge(start + "5ms other log", tmp_path)
    assert alarms(late) == {"TK104": ["warning likely 0x100000+64K"]}


def test_boundary_of_the_grace(tmp_path: Path) -> None:
    start = SETUP + "20us vmm shared 0x100000+64K\n"
    assert alarms(judge(start + "1021us vmm map 0x100000+64K\n1030us vmm run", tmp_path)) == {}
    late = judge(start + "1021001ns vmm map 0x100000+64K\n1030us vmm run", tmp_path)
    assert alarms(late) == {"TK104": ["warning likely 0x100000+64K"]}


@pytest.mark.parametrize("size", ["4K", "0xffffffffffffffff", "0"])
def test_boundary_at_the_end_of_64_bits(size: str, tmp_path: Path) -> None:
    outcomes = judge(
        SETUP + f"18us vmm shared 0xfffffffffffff000+{size} ret=-12\n20us vmm shared 0x100000+4K\n"
        "30us vmm run",
        tmp_path,
    )
    assert said(outcomes["TK104"]) == ["error certain 0x100000+4K"]
