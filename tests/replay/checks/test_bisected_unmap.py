"""TK105: an unmap that would have cut an entry, or removed less than it said."""

from __future__ import annotations

from pathlib import Path

import pytest
from judging import alarms, judge, said

from tracekit.findings import Verdict

SETUP = """
    0us   vmm  create-vm
    1us   vmm  memory
    2us   vmm  set-iommu
    5us   vmm  map 0x200000+2M
    10us  vmm  map 0x400000+2M
"""


@pytest.mark.parametrize(
    "cut",
    ["0x200000+4K", "0x3ff000+4K", "0x300000+4K", "0x200000+3M", "0x3ff000+2052K", "0x0+3M",
     "0x500000+2M"],
)  # fmt: skip
def test_finds_an_unmap_that_would_cut_an_entry(cut: str, tmp_path: Path) -> None:
    outcomes = judge(f"{SETUP}20us vmm unmap {cut} ret=-22\n30us vmm run", tmp_path)
    (finding,) = outcomes["TK105"].findings
    assert (finding.severity.value, finding.confidence.value) == ("warning", "certain")
    assert finding.title == "a DMA unmap that would cut an entry was refused (EINVAL)"
    assert finding.occurrences[0].errno == 22
    assert set(alarms(outcomes)) == {"TK105"}


def test_finds_what_a_successful_unmap_left(tmp_path: Path) -> None:
    outcomes = judge(SETUP + "20us vmm unmap 0x200000+2M tell=0x100000\n30us vmm run", tmp_path)
    assert alarms(outcomes) == {"TK105": ["error certain 0x300000+1M"]}
    (finding,) = outcomes["TK105"].findings
    assert finding.title == "1 MiB is still mapped for a device after a successful unmap"


def test_finds_what_an_unmap_of_everything_left(tmp_path: Path) -> None:
    outcomes = judge(
        SETUP
        + """
        20us  vmm  unmap 0x0+0 flags=2 silent for=8us
        24us  vmm  iommu-unmap 0x200000+2M
        30us  vmm  run
        """,
        tmp_path,
    )
    assert alarms(outcomes) == {"TK105": ["error certain 0x400000+2M"]}


def test_finds_what_iommufd_refuses_to_cut(tmp_path: Path) -> None:
    outcomes = judge(
        """
        0us   vmm  ioas-alloc
        5us   vmm  ioas-map 0x200000+2M
        20us  vmm  ioas-unmap 0x200000+4K ret=-2
        30us  vmm  run
        """,
        tmp_path,
    )
    assert alarms(outcomes) == {"TK105": ["warning certain 0x200000+4K"]}
    (finding,) = outcomes["TK105"].findings
    assert finding.title == "a DMA unmap that would cut an entry was refused (ENOENT)"


def test_finds_as_likely_where_the_entries_are_unknown(tmp_path: Path) -> None:
    # the recording began after the entries: aligned, whole arguments have no other reason to fail
    outcomes = judge(
        "1us vmm map 0x800000+4K\n20us vmm unmap 0x200000+4K ret=-22\n30us vmm run", tmp_path
    )
    assert alarms(outcomes) == {"TK105": ["warning likely 0x200000+4K"]}
    (finding,) = outcomes["TK105"].findings
    assert finding.title == "a DMA unmap that may cut an entry was refused (EINVAL)"


HOLDS = {
    "one entry": "20us vmm unmap 0x200000+2M",
    "both entries": "20us vmm unmap 0x200000+4M",
    "more than both": "20us vmm unmap 0x0+16M",
    "nothing there": "20us vmm unmap 0x800000+2M silent",
    "nothing there for iommufd": "20us vmm ioas-unmap 0x800000+2M ret=-2",
    "refused for its alignment": "20us vmm unmap 0x200800+2K ret=-22",
    "refused for its size": "20us vmm unmap 0x200000+0 ret=-22",
    "refused because it wraps": "20us vmm unmap 0xfffffffffffff000+8K ret=-22",
    "whole entries, refused for something else": "20us vmm unmap 0x200000+2M ret=-22",
    "interrupted": "20us vmm unmap 0x200000+4K ret=-4",
    "only the addresses are invalidated": "20us vmm unmap 0x200000+4K flags=4 silent",
    "everything": "20us vmm unmap 0x200000+4M flags=2 each=4M",
    "a superpage was hit": "20us vmm unmap 0x200000+2M tell=0x200000",
}


@pytest.mark.parametrize("case", HOLDS)
def test_holds_when_whole_entries_go(case: str, tmp_path: Path) -> None:
    # one more correct unmap, so that there is something to judge
    more = "50us vmm map 0x900000+4K\n60us vmm unmap 0x900000+4K\n70us vmm run"
    outcomes = judge(f"{SETUP}{HOLDS[case]}\n{more}", tmp_path)
    assert alarms(outcomes) == {}
    assert outcomes["TK105"].verdict is Verdict.HELD


def test_holds_when_another_thread_maps_before_the_exit_is_seen(tmp_path: Path) -> None:
    # the callee returned, and the thread's own exit was not recorded
    outcomes = judge(
        SETUP
        + """
        30us  vmm   unmap 0x200000+2M no-return
        60us  vmm2  map 0x200000+2M
        90us  vmm2  run
        """,
        tmp_path,
    )
    assert alarms(outcomes) == {}


def test_holds_when_entries_are_as_small_as_their_unmaps(tmp_path: Path) -> None:
    maps = "\n".join(f"{5 + i}us vmm map {0x1000 * i:#x}+4K" for i in range(8))
    outcomes = judge(
        f"2us vmm set-iommu\n{maps}\n20us vmm unmap 0x2000+12K\n30us vmm run", tmp_path
    )
    assert alarms(outcomes) == {}


def test_not_checked_without_unmaps(tmp_path: Path) -> None:
    outcome = judge(SETUP + "30us vmm run", tmp_path)["TK105"]
    assert outcome.verdict is Verdict.NOT_CHECKED
    assert outcome.findings == ()


def test_not_checked_without_the_results(tmp_path: Path) -> None:
    text = SETUP + "20us vmm unmap 0x200000+4K ret=-22\n30us vmm run"
    returns = ("vfio.type1_ioctl_returned", "ioctl.returned", "kvm.vm_ioctl_returned")
    outcome = judge(text, tmp_path, without=returns)["TK105"]
    # without any return recorded the call is taken as done, and no refusal is seen
    assert outcome.findings == ()


def test_not_checked_without_arguments(tmp_path: Path) -> None:
    outcome = judge(SETUP + "20us vmm unmap 0x200000+4K bare ret=-22\n30us vmm run", tmp_path)
    assert outcome["TK105"].findings == ()
    assert outcome["TK105"].verdict is Verdict.NOT_CHECKED


def test_not_checked_without_what_a_loss_took_for_sure(tmp_path: Path) -> None:
    outcomes = judge(
        SETUP + "lost cpu0 14us..16us\n20us vmm unmap 0x200000+4K ret=-22\n30us vmm run", tmp_path
    )
    assert alarms(outcomes) == {"TK105": ["warning likely 0x200000+4K"]}


def test_one_finding_for_one_cause(tmp_path: Path) -> None:
    # block after block of an entry of 2 MiB, adjacent and not
    calls = "\n".join(
        f"{20 + 2 * i}us vmm unmap {0x200000 + 0x1000 * i:#x}+4K ret=-22" for i in range(8)
    )
    outcomes = judge(
        f"{SETUP}{calls}\n50us vmm log\n60us vmm unmap 0x300000+4K ret=-22\n70us vmm run", tmp_path
    )
    (finding,) = outcomes["TK105"].findings
    assert said(outcomes["TK105"]) == [
        "warning certain 0x200000+32K",
        "warning certain 0x300000+4K",
    ]
    assert finding.title == "2 DMA unmaps that would cut an entry were refused (EINVAL)"


@pytest.mark.parametrize("page", [0x0, 0x3FFFF000, 0x40000000, 0xFFFFFFFFFE000])
def test_boundary_of_one_block_first_and_last_of_what_a_vm_has(page: int, tmp_path: Path) -> None:
    outcomes = judge(
        f"""
        2us   vmm  set-iommu
        5us   vmm  map {page:#x}+8K at=0x7f0000000000
        20us  vmm  unmap {page + 0x1000:#x}+4K ret=-22
        30us  vmm  unmap {page:#x}+4K ret=-22
        40us  vmm  unmap {page:#x}+8K
        """,
        tmp_path,
    )
    assert len(said(outcomes["TK105"])) == 2
    assert set(alarms(outcomes)) == {"TK105"}


def test_boundary_of_two_events_at_the_same_time(tmp_path: Path) -> None:
    outcomes = judge(
        """
        2us   vmm  set-iommu
        20us  vmm  map 0x0+8K for=0us
        20us  vmm  unmap 0x0+4K ret=-22 for=0us
        20us  vmm  unmap 0x0+8K for=0us
        20us  vmm  unmap 0x0+4K for=0us silent
        """,
        tmp_path,
    )
    assert alarms(outcomes) == {"TK105": ["warning certain 0x0+4K"]}


def test_boundary_of_a_trace_that_ends_in_the_unmap(tmp_path: Path) -> None:
    outcomes = judge(SETUP + "20us vmm unmap 0x200000+2M tell=0x100000 no-exit", tmp_path)
    # it may remove the rest after the last event
    assert [s for s in said(outcomes["TK105"]) if s.startswith("error")] == []


@pytest.mark.parametrize("size", ["4K", "0xfffffffffffff000", "0xffffffffffffffff", "0", "8K"])
def test_boundary_at_the_end_of_64_bits(size: str, tmp_path: Path) -> None:
    outcomes = judge(
        f"{SETUP}15us vmm unmap 0xfffffffffffff000+{size} ret=-22\n"
        "20us vmm unmap 0x200000+4K ret=-22\n30us vmm run",
        tmp_path,
    )
    assert alarms(outcomes) == {"TK105": ["warning certain 0x200000+4K"]}


def test_boundary_of_an_iommufd_unmap_of_everything(tmp_path: Path) -> None:
    outcomes = judge(
        """
        0us   vmm  ioas-alloc
        5us   vmm  ioas-map 0x200000+2M
        8us   vmm  ioas-map 0x800000+2M
        20us  vmm  ioas-unmap 0x0+0xffffffffffffffff silent
        30us  vmm  run
        """,
        tmp_path,
    )
    # no iommu:unmap came: nobody recorded any, so that is what can be said
    assert alarms(outcomes) == {}
