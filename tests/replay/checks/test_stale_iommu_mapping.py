"""TK101: a mapping that outlived its page's conversion to private."""

from __future__ import annotations

from pathlib import Path

import pytest
from judging import alarms, judge, said

from tracekit.findings import Verdict

SETUP = """
    0us   vmm  create-vm
    1us   vmm  memory
    2us   vmm  set-iommu
"""


def test_tells_a_page_once_that_two_conversions_make_private(tmp_path: Path) -> None:
    outcomes = judge(
        SETUP
        + """
        5us   vmm  map 0x100000+64K
        8us   vmm  private 0x101000+4K
        10us  vmm  private 0x100000+12K
        12us  vmm  run
        14us  vmm  iommu-unmap 0x100000+64K
        """,
        tmp_path,
    )
    (finding,) = outcomes["TK101"].findings
    told = sorted((o.iova or 0, o.size or 0, o.until_ns) for o in finding.occurrences)
    assert told == [(a, 4096, 14_000) for a in (0x100000, 0x101000, 0x102000)]


def test_finds_the_half_that_was_not_unmapped(tmp_path: Path) -> None:
    outcomes = judge(
        SETUP
        + """
        5us   vmm  map 0x100000+1M
        8us   vmm  map 0x200000+1M
        20us  vmm  private 0x100000+2M
        30us  vmm  unmap 0x100000+1M
        40us  vmm  punch 0x100000+2M
        60us  vmm  unmap 0x200000+1M
        80us  vmm  run
        """,
        tmp_path,
    )
    assert said(outcomes["TK101"]) == ["error certain 0x200000+1M"]
    (finding,) = outcomes["TK101"].findings
    assert finding.title == (
        "1 MiB of private guest memory stayed mapped for a device after its conversion"
    )
    (occurrence,) = finding.occurrences
    # from the commit (the post hook) to the late unmap's return
    assert 20_000 < occurrence.from_ns < 21_000
    assert occurrence.until_ns == 61_000
    # the discard under the live mapping is a finding of its own, beside this one
    assert finding.related == tuple(f.id for f in outcomes["TK102"].findings)


@pytest.mark.parametrize(
    "over",
    ["punch 0x100000+64K", "run", "enter", "exit-thread", "private 0x100000+4K", "remove 0x0+2M"],
)
def test_finds_what_is_still_mapped_when_the_conversion_is_over(over: str, tmp_path: Path) -> None:
    outcomes = judge(
        SETUP + f"5us vmm map 0x100000+64K\n20us vmm private 0x100000+64K\n30us vmm {over}",
        tmp_path,
    )
    expected = "0x100000+4K" if over.startswith("private") else "0x100000+64K"
    assert said(outcomes["TK101"]) == [f"error certain {expected}"]
    assert outcomes["TK101"].verdict is Verdict.VIOLATED


def test_finds_that_another_thread_converts_it_again(tmp_path: Path) -> None:
    outcomes = judge(
        SETUP
        + """
        5us   vmm   map 0x100000+64K
        20us  vmm   private 0x100000+64K
        30us  vmm2  shared 0x104000+4K
        40us  vmm   unmap 0x100000+64K
        50us  vmm   run
        """,
        tmp_path,
    )
    assert alarms(outcomes) == {"TK101": ["error certain 0x104000+4K"]}


@pytest.mark.parametrize("idle", ["1100us", "50ms"])
def test_finds_a_late_unmap_as_likely(idle: str, tmp_path: Path) -> None:
    text = (
        SETUP + f"5us vmm map 0x0+64K\n20us vmm private 0x0+64K\n{idle} vmm unmap 0x0+64K\n60ms end"
    )
    outcomes = judge(text, tmp_path)
    assert alarms(outcomes) == {"TK101": ["warning likely 0x0+64K"]}
    (finding,) = outcomes["TK101"].findings
    assert finding.title == "64 KiB of private guest memory was unmapped for a device late"
    assert outcomes["TK101"].verdict is Verdict.HELD
    assert alarms(judge(text, tmp_path, grace_ns=100_000_000)) == {}


def test_finds_what_only_one_order_would_excuse_as_possible(tmp_path: Path) -> None:
    outcomes = judge(
        SETUP
        + """
        5us   vmm   map 0x0+64K
        20us  vmm   private 0x0+64K
        25us  vmm2  unmap 0x0+64K for=20us
        30us  vmm   run
        """,
        tmp_path,
    )
    assert alarms(outcomes) == {"TK101": ["warning possible 0x0+64K"]}


def test_finds_what_was_mapped_in_entries_nobody_translates(tmp_path: Path) -> None:
    # an emulated device: entries without IOMMU events; a page is live from its MAP call on
    outcomes = judge(
        SETUP + "5us vmm map 0x0+64K silent\n20us vmm private 0x0+64K\n30us vmm run", tmp_path
    )
    assert alarms(outcomes) == {"TK101": ["error certain 0x0+64K"]}


HOLDS = {
    "qemu's": "20us vmm private 0x0+64K\n30us vmm unmap 0x0+64K\n40us vmm punch 0x0+64K",
    "unmap first": "20us vmm unmap 0x0+64K\n30us vmm private 0x0+64K\n40us vmm punch 0x0+64K",
    "another thread unmaps in time": "20us vmm private 0x0+64K\n30us vmm2 unmap 0x0+64K",
    "rolled back": "20us vmm private 0x0+64K\n30us vmm shared 0x0+64K no-exit",
    "refused": "20us vmm private 0x0+64K ret=-12",
    "not for this page": "20us vmm private 0x10000+64K",
    "no change": "20us vmm private 0x10000+64K\n30us vmm private 0x10000+64K no-op",
    "within the grace": "20us vmm private 0x0+64K\n1ms vmm unmap 0x0+64K",
    "the private side is populated": (
        "20us vmm private 0x0+64K\n25us vmm populate-private 0x0+64K\n30us vmm unmap 0x0+64K"
    ),
    "another page's discard": (
        "20us vmm private 0x0+64K\n25us vmm punch 0x10000+64K\n30us vmm unmap 0x0+64K"
    ),
    "the address space forgets a shared file's pages, the file does not": (
        "20us vmm private 0x0+64K\n25us vmm madvise 0x0+64K\n30us vmm unmap 0x0+64K"
    ),
    "a log is written in between": (
        "20us vmm private 0x0+64K\n25us vmm log\n30us vmm unmap 0x0+64K"
    ),
    "each page in its own calls": "\n".join(
        f"{20 + 4 * i}us vmm unmap {0x1000 * i:#x}+4K\n{22 + 4 * i}us vmm private "
        f"{0x1000 * i:#x}+4K"
        for i in range(16)
    ),
}


@pytest.mark.parametrize("case", HOLDS)
def test_holds_when_it_was_unmapped_in_the_conversion(case: str, tmp_path: Path) -> None:
    maps = "5us vmm map 0x0+64K"
    if case.startswith("each"):
        maps = "\n".join(f"{4 + i}us vmm map {0x1000 * i:#x}+4K" for i in range(16))
    outcomes = judge(f"{SETUP}{maps}\n{HOLDS[case]}\n2ms vmm run", tmp_path)
    assert alarms(outcomes) == {}
    judged = outcomes["TK101"].judged
    # a call that was refused, or one that the same thread took back, was no conversion to judge
    assert judged.decided or case == "refused"
    assert judged.undecided == 0


def test_not_checked_without_attribute_changes(tmp_path: Path) -> None:
    text = SETUP + "5us vmm map 0x0+64K\n20us vmm private 0x0+64K\n30us vmm run"
    attributes = ("kvm.vm_ioctl", "kvm.vm_ioctl_returned", "kvm.attributes", "kvm.attributes_post")
    outcome = judge(text, tmp_path, without=attributes)["TK101"]
    assert (outcome.verdict, outcome.findings) == (Verdict.NOT_CHECKED, ())
    assert "no_event:kvm.attributes" in outcome.judged.reasons


def test_not_checked_without_the_unmaps_of_a_loss(tmp_path: Path) -> None:
    outcome = judge(
        SETUP
        + """
        5us   vmm  map 0x0+64K
        20us  vmm  private 0x0+64K
        lost cpu0 25us..28us
        30us  vmm  run
        """,
        tmp_path,
    )["TK101"]
    assert (outcome.verdict, outcome.findings) == (Verdict.NOT_CHECKED, ())
    assert outcome.judged.reasons == {"loss": 1}


def test_not_checked_without_what_came_before_the_recording(tmp_path: Path) -> None:
    # nobody saw the VM or the container begin: whether the pages are mapped is unknown
    outcome = judge("20us vmm private 0x0+64K\n30us vmm run", tmp_path)["TK101"]
    assert (outcome.verdict, outcome.findings) == (Verdict.NOT_CHECKED, ())
    assert set(outcome.judged.reasons) <= {
        "late_start",
        "no_event:iommu.map",
        "no_event:iommu.unmap",
    }
    assert outcome.judged.reasons["late_start"] == 1


def test_not_checked_without_arguments(tmp_path: Path) -> None:
    calls = "5us vmm map 0x0+64K\n20us vmm private 0x0+64K bare\n30us vmm run"
    outcome = judge(SETUP + "4us vmm shared 0x100000+4K no-op\n" + calls, tmp_path)["TK101"]
    assert (outcome.verdict, outcome.findings) == (Verdict.NOT_CHECKED, ())
    assert outcome.judged.reasons == {"unknown_arguments": 1}


def test_one_finding_for_one_cause(tmp_path: Path) -> None:
    maps = "5us vmm map 0x0+1M each=4K\n"
    conversions = "\n".join(
        f"{20 + 20 * i}us vmm private {0x2000 * i:#x}+4K\n{30 + 20 * i}us vmm run"
        for i in range(120)
    )
    outcome = judge(SETUP + maps + conversions, tmp_path)["TK101"]
    (finding,) = outcome.findings
    assert (finding.count, len(finding.occurrences)) == (120, 100)
    assert finding.title == "480 KiB of private guest memory is still mapped for a device"


def test_one_finding_for_one_cause_and_another_for_a_doubtful_one(tmp_path: Path) -> None:
    outcome = judge(
        SETUP
        + """
        5us   vmm  map 0x0+64K
        10us  vmm  map 0x100000+64K
        20us  vmm  private 0x0+64K
        30us  vmm  run
        40us  vmm  private 0x100000+64K
        5ms   vmm  unmap 0x100000+64K
        6ms   vmm  run
        """,
        tmp_path,
    )["TK101"]
    assert [(f.severity.value, f.count) for f in outcome.findings] == [("error", 1), ("warning", 1)]
    assert len({f.id for f in outcome.findings}) == 2


@pytest.mark.parametrize("page", [0x0, 0x3FFFF000, 0xFFFFFFFFFF000])
def test_boundary_of_one_block_first_and_last_of_what_a_vm_has(page: int, tmp_path: Path) -> None:
    at = "at=0x7f0000000000"
    outcomes = judge(
        SETUP + f"5us vmm map {page:#x}+4K {at}\n20us vmm private {page:#x}+4K\n30us vmm run",
        tmp_path,
    )
    assert alarms(outcomes) == {"TK101": [f"error certain {page:#x}+4K"]}


def test_boundary_between_two_blocks(tmp_path: Path) -> None:
    outcomes = judge(
        SETUP
        + """
        5us   vmm  map 0x0+4K
        8us   vmm  map 0x1000+4K
        10us  vmm  map 0x2000+4K
        20us  vmm  private 0x1000+4K
        30us  vmm  run
        """,
        tmp_path,
    )
    assert alarms(outcomes) == {"TK101": ["error certain 0x1000+4K"]}


def test_boundary_of_two_events_at_the_same_time(tmp_path: Path) -> None:
    # on one thread the recorded order decides, also where the clock shows one time
    good = "20us vmm private 0x0+4K for=0us\n20us vmm unmap 0x0+4K for=0us\n20us vmm run for=0us"
    assert alarms(judge(SETUP + "5us vmm map 0x0+4K\n" + good, tmp_path)) == {}
    bad = "20us vmm private 0x0+4K for=0us\n20us vmm run for=0us\n20us vmm unmap 0x0+4K for=0us"
    outcomes = judge(SETUP + "5us vmm map 0x0+4K\n" + bad, tmp_path)
    assert alarms(outcomes) == {"TK101": ["error certain 0x0+4K"]}


def test_boundary_of_a_trace_that_ends_in_the_conversion(tmp_path: Path) -> None:
    start = SETUP + "5us vmm map 0x0+4K\n20us vmm private 0x0+4K\n"
    outcome = judge(start + "500us other log", tmp_path)["TK101"]
    assert (outcome.verdict, outcome.findings) == (Verdict.NOT_CHECKED, ())
    assert outcome.judged.reasons == {"trace_end": 1}
    # ... and one that ends when the process has done nothing for longer than the grace
    assert alarms(judge(start + "5ms other log", tmp_path)) == {"TK101": ["warning likely 0x0+4K"]}


def test_boundary_of_the_grace(tmp_path: Path) -> None:
    # the attribute call returns at 21 us; an unmap entered exactly one grace later is in time
    start = SETUP + "5us vmm map 0x0+4K\n20us vmm private 0x0+4K\n"
    assert alarms(judge(start + "1021us vmm unmap 0x0+4K\n1030us vmm run", tmp_path)) == {}
    late = judge(start + "1021001ns vmm unmap 0x0+4K\n1030us vmm run", tmp_path)
    assert alarms(late) == {"TK101": ["warning likely 0x0+4K"]}


@pytest.mark.parametrize("size", ["0x1000", "0xfffffffffffff000", "0xffffffffffffffff", "0x0"])
def test_boundary_at_the_end_of_64_bits(size: str, tmp_path: Path) -> None:
    # such calls cannot be about pages; they harm nothing else that is judged
    outcomes = judge(
        SETUP
        + f"""
        5us   vmm  map 0x0+4K
        10us  vmm  map 0xfffffffffffff000+{size} ret=-22 at=0x1000
        20us  vmm  private 0xfffffffffffff000+{size} ret=-12
        30us  vmm  unmap 0xfffffffffffff000+{size} ret=-22 at=0x1000
        40us  vmm  private 0x0+4K
        50us  vmm  run
        """,
        tmp_path,
    )
    assert said(outcomes["TK101"]) == ["error certain 0x0+4K"]
