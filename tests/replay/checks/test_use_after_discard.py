"""TK102: the backing of a live mapping was thrown away."""

from __future__ import annotations

from pathlib import Path

import pytest
from judging import alarms, judge, notes, said

from tracekit.findings import Severity, Verdict

SETUP = """
    0us   vmm  create-vm
    1us   vmm  memory
    2us   vmm  set-iommu
    5us   vmm  map 0x100000+64K
"""
ANONYMOUS = """
    0us   vmm  create-vm
    2us   vmm  set-iommu
    5us   vmm  map 0x100000+64K
"""


@pytest.mark.parametrize("over", ["run", "enter", "exit-thread"])
def test_finds_a_mapping_that_outlives_the_request(over: str, tmp_path: Path) -> None:
    outcomes = judge(
        SETUP + f"20us vmm punch 0x100000+64K\n30us vmm {over}\n40us vmm unmap 0x100000+64K",
        tmp_path,
    )
    assert alarms(outcomes) == {"TK102": ["error certain 0x100000+64K"]}
    (finding,) = outcomes["TK102"].findings
    assert finding.title == "64 KiB of discarded guest memory stayed mapped for a device"
    (occurrence,) = finding.occurrences
    # from the discard's entry to the unmap's return
    assert (occurrence.from_ns, occurrence.until_ns) == (20_000, 41_000)


@pytest.mark.parametrize(
    "again",
    ["populate 0x100000+64K", "prefault 0x100000+64K", "vmm2 populate 0x100000+64K"],
)
def test_finds_pages_that_are_used_again_under_the_old_mapping(again: str, tmp_path: Path) -> None:
    call = again if again.startswith("vmm2") else f"vmm {again}"
    outcomes = judge(
        SETUP + f"20us vmm punch 0x100000+64K\n30us {call}\n40us vmm unmap 0x100000+64K", tmp_path
    )
    assert alarms(outcomes) == {"TK102": ["error certain 0x100000+64K"]}


def test_finds_pages_that_are_mapped_or_shared_again(tmp_path: Path) -> None:
    start = SETUP + "20us vmm punch 0x100000+64K\n"
    mapped = judge(start + "30us vmm map 0x100000+64K ret=-17", tmp_path)
    assert said(mapped["TK102"]) == ["error certain 0x100000+64K"]
    shared = judge(start + "30us vmm shared 0x100000+64K no-op", tmp_path)
    assert said(shared["TK102"]) == ["error certain 0x100000+64K"]


def test_finds_what_another_thread_did_not_map_during_the_discard(tmp_path: Path) -> None:
    punch = SETUP + "20us vmm2 punch 0x100000+64K for=30us\n30us vmm map {}\n60us vmm2 run"
    elsewhere = judge(punch.format("0x300000+4K"), tmp_path)
    assert said(elsewhere["TK102"]) == ["error certain 0x100000+64K"]
    # a page of it that was mapped meanwhile may have its new backing
    one = "30us vmm unmap 0x104000+4K\n33us vmm map 0x104000+4K"
    found = judge(punch.replace("30us vmm map {}", one), tmp_path)
    assert said(found["TK102"]) == ["error certain 0x100000+16K", "error certain 0x105000+44K"]


@pytest.mark.parametrize("call", ["madvise", "remove"])
def test_finds_discards_by_address_of_anonymous_memory(call: str, tmp_path: Path) -> None:
    outcomes = judge(ANONYMOUS + f"20us vmm {call} 0x100000+8K\n30us vmm run", tmp_path)
    assert alarms(outcomes) == {"TK102": ["error certain 0x100000+8K"]}


def test_finds_it_through_the_invalidation_that_kvm_shows(tmp_path: Path) -> None:
    # nobody saw the file's mmap, but KVM lost pages of that size in the call
    punch = "20us vmm punch 0x500000+64K for=20us\n"
    found = judge(ANONYMOUS + punch + "30us vmm invalidate 0x100000+64K\n50us vmm run", tmp_path)
    assert alarms(found) == {"TK102": ["error certain 0x100000+64K"]}
    other = judge(ANONYMOUS + punch + "30us vmm invalidate 0x900000+64K\n50us vmm run", tmp_path)
    assert alarms(other) == {}


def test_finds_a_late_unmap_as_likely(tmp_path: Path) -> None:
    text = SETUP + "20us vmm punch 0x100000+64K\n3ms vmm unmap 0x100000+64K\n4ms vmm run"
    outcomes = judge(text, tmp_path)
    assert alarms(outcomes) == {"TK102": ["warning likely 0x100000+64K"]}
    assert alarms(judge(text, tmp_path, grace_ns=5_000_000)) == {}


def test_finds_as_a_note_what_virtio_mem_does_for_every_block(tmp_path: Path) -> None:
    outcomes = judge(
        SETUP + "20us vmm punch 0x100000+64K\n30us vmm unmap 0x100000+64K\n40us vmm run", tmp_path
    )
    assert alarms(outcomes) == {}
    (finding,) = outcomes["TK102"].findings
    assert finding.severity is Severity.NOTE
    assert outcomes["TK102"].verdict is Verdict.HELD


HOLDS = {
    "unmapped first": "20us vmm unmap 0x100000+64K\n30us vmm punch 0x100000+64K",
    "refused": "20us vmm punch 0x100000+64K ret=-95",
    "the page before": "20us vmm punch 0xff000+4K",
    "the page after": "20us vmm punch 0x110000+4K",
    "another file": "20us vmm punch 0x100000+64K fd=33",
    "the private side": "20us vmm punch-private 0x100000+64K",
    "a shared file's pages, by address": "20us vmm madvise 0x100000+64K",
    "the heap of libc": "20us vmm madvise 0x0+128K at=0x555500000000",
    "only populated": "20us vmm populate 0x100000+64K",
    "mapped afterwards": "20us vmm punch 0x200000+64K\n30us vmm map 0x200000+64K",
    "no longer this file": (
        "20us vmm munmap 0x0+1G\n25us vmm memory 0x0+1G fd=12\n30us vmm punch 0x100000+64K"
    ),
    "half a page": "20us vmm punch 0x100000+2K",
}


@pytest.mark.parametrize("case", HOLDS)
def test_holds_when_nothing_live_lost_its_backing(case: str, tmp_path: Path) -> None:
    outcomes = judge(f"{SETUP}{HOLDS[case]}\n90us vmm run", tmp_path)
    assert alarms(outcomes) == {}
    assert "TK102" not in notes(outcomes)


def test_holds_when_the_container_has_not_mapped_anything_yet(tmp_path: Path) -> None:
    # the file's mmap was seen and so was the container's beginning: there is nothing to reach
    judged = judge(
        "0us vmm create-vm\n1us vmm memory\n2us vmm set-iommu\n20us vmm punch 0x0+64K\n"
        "30us vmm map 0x0+64K\n40us vmm run",
        tmp_path,
    )["TK102"].judged
    assert judged.undecided == 0


def test_not_checked_without_discards(tmp_path: Path) -> None:
    outcome = judge(SETUP + "90us vmm run", tmp_path)["TK102"]
    assert outcome.verdict is Verdict.NOT_CHECKED
    assert outcome.judged.reasons == {"no_event:fallocate.entered": 1}


def test_not_checked_without_knowing_what_the_file_backs(tmp_path: Path) -> None:
    outcome = judge(ANONYMOUS + "20us vmm punch 0x100000+64K\n30us vmm run", tmp_path)["TK102"]
    assert (outcome.verdict, outcome.findings) == (Verdict.NOT_CHECKED, ())
    assert outcome.judged.reasons == {"unknown_backing": 1}


def test_not_checked_without_what_a_loss_took(tmp_path: Path) -> None:
    late = judge(
        SETUP + "20us vmm punch 0x100000+64K\nlost cpu0 25us..28us\n30us vmm run", tmp_path
    )
    assert (late["TK102"].verdict, late["TK102"].findings) == (Verdict.NOT_CHECKED, ())
    assert late["TK102"].judged.reasons == {"loss": 1}
    early = judge(
        SETUP + "lost cpu0 15us..18us\n20us vmm punch 0x100000+64K\n30us vmm run", tmp_path
    )
    assert early["TK102"].findings == ()
    assert early["TK102"].verdict is Verdict.NOT_CHECKED


def test_not_checked_without_the_maps_before_the_recording(tmp_path: Path) -> None:
    outcome = judge("1us vmm memory\n20us vmm punch 0x100000+64K\n30us vmm run", tmp_path)["TK102"]
    assert (outcome.verdict, outcome.findings) == (Verdict.NOT_CHECKED, ())


def test_one_finding_for_one_cause(tmp_path: Path) -> None:
    # virtio-mem unplugs block by block, from the top down: one note, not one a block
    maps = "\n".join(f"{5 + i}us vmm map {0x200000 * i:#x}+2M" for i in range(8))
    blocks = "\n".join(
        f"{20 + 20 * i}us vmm punch {0x200000 * (7 - i):#x}+2M\n"
        f"{30 + 20 * i}us vmm unmap {0x200000 * (7 - i):#x}+2M"
        for i in range(8)
    )
    start = "0us vmm create-vm\n1us vmm memory\n2us vmm set-iommu\n"
    outcome = judge(start + maps + "\n" + blocks, tmp_path)["TK102"]
    (finding,) = outcome.findings
    assert finding.count == 8
    assert (
        finding.title == "16 MiB of guest memory was discarded before it was unmapped for a device"
    )


def test_one_finding_for_one_cause_whatever_the_pieces(tmp_path: Path) -> None:
    # each discard is a request, and all of them are one finding
    punches = "\n".join(
        f"{20 + 2 * i}us vmm punch {0x100000 + 0x1000 * i:#x}+4K" for i in range(16)
    )
    outcomes = judge(f"{SETUP}{punches}\n90us vmm run", tmp_path)
    (finding,) = outcomes["TK102"].findings
    assert finding.count == 16
    assert finding.title == "64 KiB of discarded guest memory stayed mapped for a device"


@pytest.mark.parametrize("page", [0x0, 0x3FFFF000])
def test_boundary_of_one_block_first_and_last_of_the_file(page: int, tmp_path: Path) -> None:
    outcomes = judge(
        f"""
        0us   vmm  create-vm
        1us   vmm  memory
        2us   vmm  set-iommu
        5us   vmm  map {page:#x}+4K
        20us  vmm  punch {page:#x}+4K
        30us  vmm  run
        """,
        tmp_path,
    )
    assert alarms(outcomes) == {"TK102": [f"error certain {page:#x}+4K"]}


def test_boundary_of_the_last_block_that_a_vm_can_have(tmp_path: Path) -> None:
    page = "0xffffffffff000+4K at=0x7f0000000000"
    outcomes = judge(
        f"2us vmm set-iommu\n5us vmm map {page}\n20us vmm madvise {page}\n30us vmm run", tmp_path
    )
    assert alarms(outcomes) == {"TK102": ["error certain 0xffffffffff000+4K"]}


def test_boundary_of_two_events_at_the_same_time(tmp_path: Path) -> None:
    order = ("punch 0x100000+64K", "unmap 0x100000+64K", "run")
    good = "\n".join(f"20us vmm {call} for=0us" for call in (order[1], order[0], order[2]))
    assert alarms(judge(SETUP + good, tmp_path)) == {}
    bad = "\n".join(f"20us vmm {call} for=0us" for call in (order[0], order[2], order[1]))
    assert alarms(judge(SETUP + bad, tmp_path)) == {"TK102": ["error certain 0x100000+64K"]}


def test_boundary_of_a_trace_that_ends_in_the_request(tmp_path: Path) -> None:
    start = SETUP + "20us vmm punch 0x100000+64K\n"
    soon = judge(start + "500us other log", tmp_path)["TK102"]
    assert (soon.verdict, soon.findings) == (Verdict.NOT_CHECKED, ())
    assert soon.judged.reasons == {"trace_end": 1}
    late = judge(start + "5ms other log", tmp_path)
    assert alarms(late) == {"TK102": ["warning likely 0x100000+64K"]}


def test_boundary_of_the_grace(tmp_path: Path) -> None:
    start = SETUP + "20us vmm punch 0x100000+64K\n"
    assert alarms(judge(start + "1021us vmm unmap 0x100000+64K\n1030us vmm run", tmp_path)) == {}
    late = judge(start + "1021001ns vmm unmap 0x100000+64K\n1030us vmm run", tmp_path)
    assert alarms(late) == {"TK102": ["warning likely 0x100000+64K"]}


@pytest.mark.parametrize(
    "call",
    ["punch 0x7ffffffffffff000+4K", "punch 0x0+0xffffffffffffffff", "punch 0xffffffffffffffff+1",
     "remove 0x0+0xfffffffffffff000 at=0xfffffffffffff000", "madvise 0x0+1 at=0xffffffffffffffff"],
)  # fmt: skip
def test_boundary_at_the_end_of_64_bits(call: str, tmp_path: Path) -> None:
    outcomes = judge(f"{SETUP}20us vmm {call} ret=-22\n30us vmm run", tmp_path)
    assert alarms(outcomes) == {}


def test_boundary_of_a_hole_up_to_the_end_of_every_file(tmp_path: Path) -> None:
    # offset + size ends at the largest file offset: it covers the mapped pages too
    outcomes = judge(f"{SETUP}20us vmm punch 0x0+0x7fffffffffffffff\n30us vmm run", tmp_path)
    assert alarms(outcomes) == {"TK102": ["error certain 0x100000+64K"]}
