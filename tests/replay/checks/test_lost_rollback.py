"""TK108: a conversion failed half-way and its first half was left behind."""

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
SETUP = BEFORE + "4us vmm private 0x0+64K\n6us vmm run\n"
MAPPED = BEFORE + "4us vmm map 0x0+4K\n5us vmm map 0x1000+4K\n6us vmm run\n"


@pytest.mark.parametrize("errno", [12, 14, 28])
def test_finds_pages_that_stay_shared_without_a_mapping(errno: int, tmp_path: Path) -> None:
    outcomes = judge(
        SETUP
        + f"""
        10us  vmm  shared 0x0+8K
        12us  vmm  map 0x0+4K
        14us  vmm  map 0x1000+4K ret=-{errno}
        16us  vmm  unmap 0x0+4K
        30us  vmm  run
        """,
        tmp_path,
    )
    assert said(outcomes["TK108"]) == ["error certain 0x0+8K"]
    (finding,) = outcomes["TK108"].findings
    name = {12: "ENOMEM", 14: "EFAULT", 28: "ENOSPC"}[errno]
    assert finding.title == f"8 KiB was left half converted after an error ({name})"
    (occurrence,) = finding.occurrences
    assert (occurrence.errno, occurrence.from_ns) == (errno, 14_000)
    # the missing map is not counted a second time
    assert set(alarms(outcomes)) == ({"TK108", "TK107"} if errno == 28 else {"TK108"})


def test_finds_until_when_it_was_half_converted(tmp_path: Path) -> None:
    outcomes = judge(
        SETUP + "10us vmm shared 0x0+8K\n14us vmm map 0x0+8K ret=-12\n30us vmm run", tmp_path
    )
    (occurrence,) = outcomes["TK108"].findings[0].occurrences
    assert (occurrence.from_ns, occurrence.until_ns) == (14_000, 30_000)


def test_finds_pages_that_stay_mapped_after_they_became_private_again(tmp_path: Path) -> None:
    outcomes = judge(
        SETUP
        + """
        10us  vmm  shared 0x0+8K
        12us  vmm  map 0x0+4K
        14us  vmm  map 0x1000+4K ret=-12
        18us  vmm  private 0x0+8K
        30us  vmm  run
        """,
        tmp_path,
    )
    assert alarms(outcomes) == {"TK108": ["error certain 0x0+4K"]}


@pytest.mark.parametrize(("of_it", "found"), [(True, ["error certain 0x0+4K"]), (False, [])])
def test_finds_only_what_is_mapped_of_the_vm_that_was_converted(
    of_it: bool, found: list[str], tmp_path: Path
) -> None:
    outcomes = judge(
        BEFORE
        + f"""
        3us   vmm  slot 0 0x0+16M
        4us   vmm  create-vm fd=16
        5us   vmm  slot 0 0x0+16M fd=16 at=0x7e0000000000
        8us   vmm  private 0x0+64K fd=16
        9us   vmm  map 0x0+4K {"at=0x7e0000000000" if of_it else ""}
        10us  vmm  shared 0x0+8K fd=16
        14us  vmm  map 0x1000+4K at=0x7e0000001000 ret=-12
        18us  vmm  private 0x0+8K fd=16
        30us  vmm  run
        """,
        tmp_path,
    )
    assert said(outcomes["TK108"]) == found


def test_finds_pages_that_were_unmapped_for_nothing(tmp_path: Path) -> None:
    outcomes = judge(
        MAPPED + "10us vmm unmap 0x0+8K\n12us vmm private 0x0+8K ret=-12\n30us vmm run", tmp_path
    )
    assert alarms(outcomes) == {"TK108": ["error certain 0x0+8K"]}


def test_finds_what_another_try_left_out(tmp_path: Path) -> None:
    refused = MAPPED + "10us vmm unmap 0x0+8K\n12us vmm private 0x0+8K ret=-12\n"
    outcomes = judge(refused + "14us vmm private 0x0+4K\n30us vmm run", tmp_path)
    assert alarms(outcomes) == {"TK108": ["error certain 0x1000+4K"]}
    whole = "14us vmm private 0x0+4K\n16us vmm private 0x1000+4K\n30us vmm run"
    assert alarms(judge(refused + whole, tmp_path)) == {}
    # refused once more: half-converted since the first time, until the guest runs
    again = judge(refused + "14us vmm private 0x0+8K ret=-12\n30us vmm run", tmp_path)
    assert alarms(again) == {"TK108": ["error certain 0x0+8K"]}
    (occurrence,) = again["TK108"].findings[0].occurrences
    assert (occurrence.from_ns, occurrence.until_ns) == (12_000, 30_000)


def test_finds_them_once_in_each_container_that_had_them_unmapped(tmp_path: Path) -> None:
    outcomes = judge(
        MAPPED.replace("6us", "5500ns vmm map 0x0+8K fd=70\n6us")
        + """
        8us   vmm  unmap 0x1000+4K
        9us   vmm  unmap 0x0+8K fd=70
        10us  vmm  unmap 0x0+4K
        12us  vmm  private 0x0+8K ret=-12
        30us  vmm  run
        """,
        tmp_path,
    )
    found = [
        (f.container, o.iova, o.size) for f in outcomes["TK108"].findings for o in f.occurrences
    ]
    assert len({container for container, _, _ in found}) == 2
    assert {(iova, size) for _, iova, size in found} == {(0, 8192)}
    assert len(found) == 2


def test_finds_the_first_half_of_an_unmap_that_was_rolled_back(tmp_path: Path) -> None:
    outcomes = judge(
        MAPPED
        + """
        10us  vmm  private 0x0+8K
        12us  vmm  unmap 0x0+4K
        14us  vmm  unmap 0x1000+4K ret=-16
        16us  vmm  shared 0x0+8K
        30us  vmm  run
        """,
        tmp_path,
    )
    assert alarms(outcomes) == {"TK108": ["error certain 0x0+4K"]}


def test_finds_at_the_trace_end_what_is_likely(tmp_path: Path) -> None:
    start = SETUP + "10us vmm shared 0x0+8K\n14us vmm map 0x0+8K ret=-12\n"
    assert alarms(judge(start + "5ms other log", tmp_path)) == {"TK108": ["warning likely 0x0+8K"]}


HOLDS = {
    "rolled back": "14us vmm map 0x1000+4K ret=-12\n16us vmm unmap 0x0+4K\n18us vmm private 0x0+8K",
    "rolled back by an unmap of everything": (
        "14us vmm map 0x1000+4K ret=-12\n16us vmm unmap 0x0+8K each=4K\n18us vmm private 0x0+8K"
    ),
    "tried again": "14us vmm map 0x1000+4K ret=-12\n16us vmm map 0x1000+4K",
    "there already": "14us vmm map 0x1000+4K\n16us vmm map 0x0+4K ret=-17",
    "of another page": "14us vmm map 0x1000+4K\n16us vmm map 0x90000+4K ret=-14",
    "of another thread": "14us vmm map 0x1000+4K\n16us vmm2 map 0x0+4K ret=-12",
    "nothing failed": "14us vmm map 0x1000+4K",
}


@pytest.mark.parametrize("case", HOLDS)
def test_holds_when_nothing_is_left_behind(case: str, tmp_path: Path) -> None:
    outcomes = judge(
        f"{SETUP}10us vmm shared 0x0+8K\n12us vmm map 0x0+4K\n{HOLDS[case]}\n30us vmm run", tmp_path
    )
    assert said(outcomes["TK108"]) == []
    assert outcomes["TK108"].verdict is Verdict.HELD
    assert set(alarms(outcomes)) <= ({"TK106"} if case == "there already" else set())


def test_holds_when_the_change_is_tried_again(tmp_path: Path) -> None:
    # EINTR: QEMU's ioctl wrapper simply repeats it
    outcomes = judge(
        MAPPED
        + """
        10us  vmm  unmap 0x0+8K
        12us  vmm  private 0x0+8K ret=-4
        14us  vmm  private 0x0+8K
        30us  vmm  run
        """,
        tmp_path,
    )
    assert alarms(outcomes) == {}


def test_not_checked_without_attribute_changes(tmp_path: Path) -> None:
    outcome = judge(BEFORE + "12us vmm map 0x0+4K ret=-12\n30us vmm run", tmp_path)["TK108"]
    assert (outcome.verdict, outcome.findings) == (Verdict.NOT_CHECKED, ())
    assert "no_event:kvm.vm_ioctl" in outcome.judged.reasons


def test_not_checked_without_arguments(tmp_path: Path) -> None:
    outcome = judge(
        BEFORE + "10us vmm shared 0x0+8K bare\n14us vmm map 0x0+8K ret=-12\n30us vmm run", tmp_path
    )["TK108"]
    assert (outcome.verdict, outcome.findings) == (Verdict.NOT_CHECKED, ())


def test_not_checked_without_what_a_loss_took(tmp_path: Path) -> None:
    outcome = judge(
        SETUP
        + "10us vmm shared 0x0+8K\n14us vmm map 0x0+8K ret=-12\nlost cpu0 16us..20us\n30us vmm run",
        tmp_path,
    )["TK108"]
    assert outcome.findings == ()
    assert outcome.judged.reasons == {"loss": 1}


def test_one_finding_for_one_cause(tmp_path: Path) -> None:
    rounds = "\n".join(
        f"{10 + 20 * i}us vmm shared {0x2000 * i:#x}+4K\n"
        f"{14 + 20 * i}us vmm map {0x2000 * i:#x}+4K ret=-12\n{20 + 20 * i}us vmm run"
        for i in range(6)
    )
    (finding,) = judge(SETUP + rounds, tmp_path)["TK108"].findings
    assert finding.count == 6
    assert finding.title == "24 KiB was left half converted after an error (ENOMEM)"


def test_one_finding_for_one_cause_and_another_for_another_errno(tmp_path: Path) -> None:
    outcomes = judge(
        SETUP
        + """
        10us  vmm  shared 0x0+4K
        12us  vmm  map 0x0+4K ret=-12
        14us  vmm  run
        20us  vmm  shared 0x2000+4K
        22us  vmm  map 0x2000+4K ret=-14
        24us  vmm  run
        """,
        tmp_path,
    )
    assert len({f.id for f in outcomes["TK108"].findings}) == 2


@pytest.mark.parametrize("page", [0x0, 0x3FFFF000, 0xFFFFFFFFFF000])
def test_boundary_of_one_block_first_and_last_of_what_a_vm_has(page: int, tmp_path: Path) -> None:
    outcomes = judge(
        f"""
        0us   vmm  create-vm
        2us   vmm  set-iommu
        4us   vmm  map 0x90000000+4K
        5us   vmm  private {page:#x}+4K
        10us  vmm  shared {page:#x}+4K
        14us  vmm  map {page:#x}+4K ret=-12 at=0x7f0000000000
        30us  vmm  run
        """,
        tmp_path,
    )
    assert alarms(outcomes) == {"TK108": [f"error certain {page:#x}+4K"]}


def test_boundary_of_two_events_at_the_same_time(tmp_path: Path) -> None:
    calls = ("shared 0x0+4K", "map 0x0+4K ret=-12", "private 0x0+4K", "run")
    good = "\n".join(f"10us vmm {call} for=0us" for call in calls)
    assert alarms(judge(SETUP + good, tmp_path)) == {}
    bad = "\n".join(f"10us vmm {call} for=0us" for call in (calls[0], calls[1], calls[3]))
    assert alarms(judge(SETUP + bad, tmp_path)) == {"TK108": ["error certain 0x0+4K"]}


def test_boundary_of_a_trace_that_ends_in_the_conversion(tmp_path: Path) -> None:
    outcome = judge(
        SETUP + "10us vmm shared 0x0+8K\n14us vmm map 0x0+8K ret=-12\n500us other log", tmp_path
    )["TK108"]
    assert outcome.findings == ()
    assert outcome.judged.reasons == {"trace_end": 1}


@pytest.mark.parametrize("size", ["4K", "0xffffffffffffffff", "0"])
def test_boundary_at_the_end_of_64_bits(size: str, tmp_path: Path) -> None:
    outcomes = judge(
        SETUP
        + f"""
        10us  vmm  shared 0x0+4K
        12us  vmm  map 0x0+4K
        14us  vmm  map 0xfffffffffffff000+{size} ret=-22 at=0x1000
        30us  vmm  run
        """,
        tmp_path,
    )
    assert alarms(outcomes) == {}
