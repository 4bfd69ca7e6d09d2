"""TK103: a page was mapped for a device while it was private."""

from __future__ import annotations

from pathlib import Path

import pytest
from judging import alarms, judge, said

from tracekit.findings import Verdict

SETUP = """
    0us   vmm  create-vm
    1us   vmm  memory
    2us   vmm  set-iommu
    5us   vmm  private 0x0+16M
"""


def test_finds_a_map_before_the_change_to_shared(tmp_path: Path) -> None:
    outcomes = judge(
        SETUP + "20us vmm map 0x200000+64K each=4K\n40us vmm shared 0x200000+64K\n60us vmm run",
        tmp_path,
    )
    assert alarms(outcomes) == {"TK103": ["error certain 0x200000+64K"]}
    (finding,) = outcomes["TK103"].findings
    assert finding.title == "64 KiB was mapped for a device while private"
    (occurrence,) = finding.occurrences
    # from the first map's effect to the commit to shared
    assert 20_000 < occurrence.from_ns < 21_000
    assert occurrence.until_ns is not None
    assert 40_000 < occurrence.until_ns < 41_000


def test_finds_a_map_that_no_change_to_shared_follows(tmp_path: Path) -> None:
    outcomes = judge(SETUP + "20us vmm map 0x200000+64K\n60us vmm run", tmp_path)
    assert alarms(outcomes) == {"TK103": ["error certain 0x200000+64K"]}
    assert outcomes["TK103"].findings[0].occurrences[0].until_ns is None
    gone = judge(
        SETUP + "20us vmm map 0x200000+64K\n40us vmm unmap 0x200000+64K\n60us vmm run", tmp_path
    )
    assert gone["TK103"].findings[0].occurrences[0].until_ns == 41_000


def test_finds_only_the_pages_that_were_private(tmp_path: Path) -> None:
    outcomes = judge(
        SETUP + "20us vmm shared 0x200000+64K\n40us vmm map 0x1fe000+72K\n60us vmm run", tmp_path
    )
    assert said(outcomes["TK103"]) == ["error certain 0x1fe000+8K"]


def test_finds_an_entry_that_nothing_translates(tmp_path: Path) -> None:
    outcomes = judge(SETUP + "20us vmm map 0x200000+64K silent\n60us vmm run", tmp_path)
    assert alarms(outcomes) == {"TK103": ["error certain 0x200000+64K"]}
    # without an effect that is shown, it counts from the call's entry
    assert outcomes["TK103"].findings[0].occurrences[0].from_ns == 20_000


def test_finds_a_map_of_what_another_thread_makes_private_once_more(tmp_path: Path) -> None:
    outcomes = judge(
        SETUP
        + """
        10us  vmm   private 0x100000+8K
        20us  vmm   private 0x100000+8K for=30us
        45us  vmm2  map 0x100000+4K
        60us  vmm   run
        """,
        tmp_path,
    )
    assert said(outcomes["TK103"]) == ["error certain 0x100000+4K"]


def test_finds_what_another_threads_conversion_may_excuse_as_possible(tmp_path: Path) -> None:
    # without a hook at the commit, the change may have come before the map or after it
    outcomes = judge(
        """
        0us   vmm   create-vm
        2us   vmm   set-iommu
        5us   vmm   private 0x0+16M no-post
        20us  vmm   map 0x200000+64K for=20us
        30us  vmm2  shared 0x200000+64K for=20us no-post
        60us  vmm   run
        """,
        tmp_path,
    )
    assert alarms(outcomes) == {"TK103": ["warning possible 0x200000+64K"]}


def test_finds_as_possible_what_any_change_during_the_map_may_excuse(tmp_path: Path) -> None:
    # the second change is of another page; the first one overlaps the map all the same
    outcomes = judge(
        """
        0us     vmm   create-vm
        2us     vmm   set-iommu
        10us    vmm   private 0x101000+4K for=2ms
        1010us  vmm2  map 0x101000+4K for=2ms silent
        2011us  vmm   private 0x104000+4K
        4000us  vmm   run
        """,
        tmp_path,
    )
    assert said(outcomes["TK103"]) == ["warning possible 0x101000+4K"]


HOLDS = {
    "qemu's order": "20us vmm shared 0x200000+64K\n40us vmm map 0x200000+64K",
    "never private": "20us vmm map 0x1000000+64K",
    "refused": "20us vmm map 0x200000+64K ret=-12",
    "shared by another thread": "20us vmm2 shared 0x200000+64K\n40us vmm map 0x200000+64K",
    "the page before": "20us vmm shared 0x0+4K\n30us vmm map 0x0+4K",
    "the page after": "20us vmm map 0x1000000+4K",
    "unmapped and shared in between": (
        "20us vmm shared 0x0+4K\n30us vmm map 0x0+4K\n40us vmm private 0x0+4K\n"
        "50us vmm unmap 0x0+4K\n60us vmm shared 0x0+4K\n70us vmm map 0x0+4K"
    ),
    "only the address changes": "20us vmm map 0x200000+64K flags=4 silent",
    "the change back failed half-way": (
        "20us vmm shared 0x0+4K\n30us vmm private 0x0+4K ret=-12\n40us vmm map 0x0+4K"
    ),
}


@pytest.mark.parametrize("case", HOLDS)
def test_holds_when_the_page_was_shared(case: str, tmp_path: Path) -> None:
    # one more correct map, so that there is something to judge
    more = "100us vmm map 0x2000000+4K\n120us vmm run"
    outcomes = judge(f"{SETUP}{HOLDS[case]}\n{more}", tmp_path)
    assert alarms(outcomes) == {}
    assert outcomes["TK103"].verdict is Verdict.HELD


def test_not_checked_without_attribute_changes(tmp_path: Path) -> None:
    outcome = judge("2us vmm set-iommu\n20us vmm map 0x0+4K\n30us vmm run", tmp_path)["TK103"]
    assert (outcome.verdict, outcome.findings) == (Verdict.NOT_CHECKED, ())
    assert "no_event:kvm.attributes" in outcome.judged.reasons


def test_not_checked_without_what_a_loss_took(tmp_path: Path) -> None:
    outcome = judge(
        SETUP + "lost cpu0 10us..15us\n20us vmm map 0x200000+64K\n60us vmm run", tmp_path
    )["TK103"]
    assert (outcome.verdict, outcome.findings) == (Verdict.NOT_CHECKED, ())
    assert sum(outcome.judged.reasons.values()) == 1


def test_not_checked_without_the_attributes_before_the_recording(tmp_path: Path) -> None:
    outcome = judge("5us vmm private 0x0+1M\n20us vmm map 0x200000+64K\n60us vmm run", tmp_path)[
        "TK103"
    ]
    assert (outcome.verdict, outcome.findings) == (Verdict.NOT_CHECKED, ())
    assert outcome.judged.reasons == {"late_start": 1}


def test_not_checked_without_arguments(tmp_path: Path) -> None:
    outcome = judge(SETUP + "20us vmm map 0x200000+64K bare silent\n60us vmm run", tmp_path)
    assert outcome["TK103"].findings == ()
    assert outcome["TK103"].verdict is Verdict.NOT_CHECKED


def test_one_finding_for_one_cause(tmp_path: Path) -> None:
    # one run of maps of 4 KiB is one occurrence; two runs are two of one finding
    run = "\n".join(f"{20 + 2 * i}us vmm map {0x1000 * i:#x}+4K" for i in range(16))
    outcomes = judge(f"{SETUP}{run}\n90us vmm run\n95us vmm map 0x10000+4K\n99us vmm run", tmp_path)
    assert said(outcomes["TK103"]) == ["error certain 0x0+64K", "error certain 0x10000+4K"]
    (finding,) = outcomes["TK103"].findings
    assert finding.count == 2


def test_one_finding_for_one_cause_not_a_second_of_another_check(tmp_path: Path) -> None:
    # it is not also stale, until its page is converted again
    outcomes = judge(
        SETUP + "20us vmm map 0x0+4K\n30us vmm private 0x0+4K no-op\n60us vmm run", tmp_path
    )
    assert alarms(outcomes) == {"TK103": ["error certain 0x0+4K"]}


@pytest.mark.parametrize("page", [0x0, 0x3FFFF000, 0xFFFFFFFFFF000])
def test_boundary_of_one_block_first_and_last_of_what_a_vm_has(page: int, tmp_path: Path) -> None:
    outcomes = judge(
        f"""
        0us   vmm  create-vm
        2us   vmm  set-iommu
        5us   vmm  private {page:#x}+4K
        20us  vmm  map {page:#x}+4K at=0x7f0000000000
        """,
        tmp_path,
    )
    assert alarms(outcomes) == {"TK103": [f"error certain {page:#x}+4K"]}


def test_boundary_of_two_events_at_the_same_time(tmp_path: Path) -> None:
    shared, mapped = "20us vmm shared 0x0+4K for=0us\n", "20us vmm map 0x0+4K for=0us\n"
    assert alarms(judge(SETUP + shared + mapped + "30us vmm run", tmp_path)) == {}
    outcomes = judge(SETUP + mapped + shared + "30us vmm run", tmp_path)
    assert alarms(outcomes) == {"TK103": ["error certain 0x0+4K"]}


def test_boundary_of_a_trace_that_ends_in_the_map(tmp_path: Path) -> None:
    # an effect was seen, but the kernel may still take it back
    outcome = judge(SETUP + "20us vmm map 0x0+4K no-exit", tmp_path)["TK103"]
    assert (outcome.verdict, outcome.findings) == (Verdict.NOT_CHECKED, ())


@pytest.mark.parametrize("size", ["4K", "0xffffffffffffffff", "0"])
def test_boundary_at_the_end_of_64_bits(size: str, tmp_path: Path) -> None:
    call = f"0xfffffffffffff000+{size} ret=-22 at=0x1000"
    outcomes = judge(
        SETUP + f"10us vmm map {call}\n15us vmm private {call}\n20us vmm map 0x0+4K", tmp_path
    )
    assert said(outcomes["TK103"]) == ["error certain 0x0+4K"]
