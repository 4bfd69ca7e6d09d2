"""TK109: a container is gone and pages are still mapped."""

from __future__ import annotations

from pathlib import Path

from judging import alarms, judge, said

from tracekit.findings import Verdict

SETUP = """
    0us   vmm  create-vm
    2us   vmm  set-iommu
    5us   vmm  map 0x0+64K domain
    10us  vmm  map 0x100000+64K
    15us  vmm  unmap 0x100000+64K
"""


def test_finds_what_a_freed_domain_still_translated(tmp_path: Path) -> None:
    outcomes = judge(SETUP + "20us vmm free-domain\n30us other log", tmp_path)
    assert alarms(outcomes) == {"TK109": ["error certain 0x0+64K"]}
    (finding,) = outcomes["TK109"].findings
    assert finding.title == "64 KiB is still mapped after its container is gone"


def test_finds_what_a_process_left_as_likely(tmp_path: Path) -> None:
    # its files may still be closing
    outcomes = judge(SETUP + "20us vmm exit\n50ms other log", tmp_path)
    assert alarms(outcomes) == {"TK109": ["warning likely 0x0+64K"]}


def test_holds_when_everything_was_unmapped_before(tmp_path: Path) -> None:
    outcomes = judge(
        SETUP + "20us vmm unmap 0x0+64K\n30us vmm free-domain\n40us other log", tmp_path
    )
    assert alarms(outcomes) == {}
    assert outcomes["TK109"].verdict is Verdict.HELD


def test_holds_when_the_teardown_follows_the_exit(tmp_path: Path) -> None:
    # 41 ms after the process's last system call, in no call at all
    outcomes = judge(
        SETUP + "20us vmm exit\n41ms vmm iommu-unmap 0x0+64K\n90ms other log", tmp_path
    )
    assert alarms(outcomes) == {}
    assert outcomes["TK109"].verdict is Verdict.HELD


def test_holds_when_a_thread_that_nobody_saw_begin_closes_the_files(tmp_path: Path) -> None:
    # the kernel makes threads of a process without telling: kvm-nx-lpage-recovery is one
    unmapped = "45us other iommu-unmap 0x0+64K\n"
    text = SETUP + "20us vmm exit-thread\n30us other exit\n{}50us other free-domain\n90ms end"
    outcomes = judge(text.format(unmapped), tmp_path)
    assert alarms(outcomes) == {}
    assert outcomes["TK109"].verdict is Verdict.HELD
    half = judge(text.format(unmapped.replace("64K", "32K")), tmp_path)
    assert alarms(half) == {"TK109": ["error certain 0x8000+32K"]}


def test_not_checked_when_a_stranger_frees_what_a_living_process_mapped(tmp_path: Path) -> None:
    text = "45us other iommu-unmap 0x0+64K\n50us other free-domain\n60us vmm exit\n90ms other log"
    outcome = judge(SETUP + text, tmp_path)["TK109"]
    assert (outcome.verdict, outcome.findings) == (Verdict.NOT_CHECKED, ())
    assert outcome.judged.reasons == {"late_start": 2}  # when it is freed, and at the exit


def test_holds_when_a_thread_of_several_ends(tmp_path: Path) -> None:
    outcomes = judge(SETUP + "20us vmm2 run\n30us vmm2 exit-thread\n50ms other log", tmp_path)
    assert said(outcomes["TK109"]) == []


def test_holds_when_the_domain_of_a_container_with_two_goes(tmp_path: Path) -> None:
    # counts of a domain that is freed stay behind: no error
    outcomes = judge(
        """
        0us   vmm  create-vm
        2us   vmm  set-iommu
        5us   vmm  map 0x0+64K domain
        8us   vmm  domain
        10us  vmm  map 0x100000+64K
        15us  vmm  unmap 0x100000+64K
        18us  vmm  unmap 0x0+64K
        20us  vmm  free-domain
        """,
        tmp_path,
    )
    assert alarms(outcomes) == {}


def test_not_checked_without_an_end(tmp_path: Path) -> None:
    outcome = judge(SETUP + "20us vmm run\n50ms other log", tmp_path)["TK109"]
    assert (outcome.verdict, outcome.findings) == (Verdict.NOT_CHECKED, ())
    assert outcome.judged.reasons == {"no_event:process.exit": 1}


def test_not_checked_without_unmap_events(tmp_path: Path) -> None:
    text = SETUP + "20us vmm exit\n50ms other log"
    outcome = judge(text, tmp_path, without=("iommu.unmap",))["TK109"]
    assert (outcome.verdict, outcome.findings) == (Verdict.NOT_CHECKED, ())
    assert "no_event:iommu.unmap" in outcome.judged.reasons


def test_not_checked_without_what_a_loss_took(tmp_path: Path) -> None:
    outcome = judge(SETUP + "lost cpu0 16us..18us\n20us vmm free-domain\n50ms other log", tmp_path)[
        "TK109"
    ]
    assert outcome.findings == ()


def test_one_finding_for_one_cause(tmp_path: Path) -> None:
    maps = "\n".join(f"{5 + 2 * i}us vmm map {0x2000 * i:#x}+4K domain" for i in range(32))
    outcomes = judge(
        f"0us vmm create-vm\n2us vmm set-iommu\n{maps}\n80us vmm unmap 0x0+4K\n"
        "90us vmm free-domain\n99us other log",
        tmp_path,
    )
    (finding,) = outcomes["TK109"].findings
    assert finding.count == 31
    assert finding.title == "124 KiB is still mapped after its container is gone"


def test_boundary_of_one_block_the_last_that_a_vm_can_have(tmp_path: Path) -> None:
    outcomes = judge(
        """
        2us   vmm  set-iommu
        5us   vmm  map 0xffffffffff000+4K domain at=0x7f0000000000
        10us  vmm  map 0x80000000+4K
        15us  vmm  unmap 0x80000000+4K
        20us  vmm  free-domain
        """,
        tmp_path,
    )
    assert alarms(outcomes) == {"TK109": ["error certain 0xffffffffff000+4K"]}


def test_boundary_of_two_events_at_the_same_time(tmp_path: Path) -> None:
    unmapped, freed = "20us vmm unmap 0x0+64K for=0us\n", "20us vmm free-domain for=0us\n"
    assert alarms(judge(SETUP + unmapped + freed, tmp_path)) == {}


def test_boundary_of_a_trace_that_ends_in_the_teardown(tmp_path: Path) -> None:
    # within the grace of the exit nothing can be said; one grace later it is likely
    soon = judge(SETUP + "20us vmm exit\n900us other log", tmp_path)["TK109"]
    assert (soon.verdict, soon.findings) == (Verdict.NOT_CHECKED, ())
    assert soon.judged.reasons["trace_end"] == 1
    assert alarms(judge(SETUP + "20us vmm exit\n1019us other log", tmp_path)) == {}
    late = judge(SETUP + "20us vmm exit\n1020us other log", tmp_path)
    assert alarms(late) == {"TK109": ["warning likely 0x0+64K"]}


def test_boundary_of_the_first_half_of_a_teardown(tmp_path: Path) -> None:
    outcomes = judge(
        SETUP + "20us vmm exit\n500us vmm iommu-unmap 0x0+32K\n50ms other log", tmp_path
    )
    assert alarms(outcomes) == {"TK109": ["warning likely 0x8000+32K"]}
