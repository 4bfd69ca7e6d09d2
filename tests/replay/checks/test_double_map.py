"""TK106: one IOVA was mapped twice."""

from __future__ import annotations

from pathlib import Path

import pytest
from judging import alarms, judge, said

from tracekit.findings import Verdict

SETUP = """
    0us   vmm  create-vm
    1us   vmm  memory
    2us   vmm  set-iommu
    5us   vmm  map 0x200000+64K
"""


@pytest.mark.parametrize("over", ["0x200000+64K", "0x20f000+4K", "0x1ff000+8K", "0x0+16M"])
def test_finds_a_map_that_was_refused_because_something_is_there(over: str, tmp_path: Path) -> None:
    outcomes = judge(f"{SETUP}20us vmm map {over} ret=-17\n30us vmm run", tmp_path)
    (finding,) = outcomes["TK106"].findings
    assert (finding.severity.value, finding.confidence.value) == ("warning", "certain")
    assert finding.title == ("a DMA map was refused because an entry is there already (EEXIST)")
    assert finding.occurrences[0].errno == 17
    assert set(alarms(outcomes)) == {"TK106"}


def test_finds_a_map_that_succeeded_over_an_entry(tmp_path: Path) -> None:
    outcomes = judge(SETUP + "20us vmm map 0x20f000+8K\n30us vmm run", tmp_path)
    assert alarms(outcomes) == {"TK106": ["error certain 0x20f000+4K"]}
    (finding,) = outcomes["TK106"].findings
    assert finding.title == "4 KiB was mapped over a live DMA entry"


def test_finds_it_in_an_io_address_space_too(tmp_path: Path) -> None:
    outcomes = judge(
        """
        0us   vmm  ioas-alloc
        5us   vmm  ioas-map 0x200000+64K
        20us  vmm  ioas-map 0x200000+64K ret=-17
        30us  vmm  run
        """,
        tmp_path,
    )
    assert alarms(outcomes) == {"TK106": ["warning certain 0x200000+64K"]}


HOLDS = {
    "unmapped in between": "20us vmm unmap 0x200000+64K\n30us vmm map 0x200000+64K",
    "the page before": "20us vmm map 0x1ff000+4K",
    "the page after": "20us vmm map 0x210000+4K",
    "another container": "18us vmm set-iommu fd=21\n20us vmm map 0x200000+64K fd=21",
    "another io address space": "20us vmm ioas-map 0x200000+64K ioas=1",
    "a BAR that iommufd refuses": "20us vmm ioas-map 0xfe000000+16K ret=-14",
    "refused for want of memory": "20us vmm map 0x300000+64K ret=-12",
    "only the address changes": "20us vmm map 0x200000+64K flags=4 silent",
    "unmapped by an unmap of everything": (
        "20us vmm unmap 0x0+0 flags=2 silent for=8us\n24us vmm iommu-unmap 0x200000+64K\n"
        "30us vmm map 0x200000+64K"
    ),
}


@pytest.mark.parametrize("case", HOLDS)
def test_holds_when_each_page_is_mapped_once(case: str, tmp_path: Path) -> None:
    outcomes = judge(f"{SETUP}{HOLDS[case]}\n90us vmm run", tmp_path)
    assert alarms(outcomes) == {}
    assert outcomes["TK106"].verdict is Verdict.HELD


def test_holds_when_one_map_call_reaches_two_domains(tmp_path: Path) -> None:
    outcomes = judge(
        """
        0us   vmm  create-vm
        2us   vmm  set-iommu
        5us   vmm  map 0x200000+64K domain
        10us  vmm  iommu-map 0x200000+64K
        20us  vmm  unmap 0x200000+64K
        22us  vmm  iommu-unmap 0x200000+64K
        30us  vmm  map 0x200000+64K
        """,
        tmp_path,
    )
    assert alarms(outcomes) == {}


def test_not_checked_without_maps(tmp_path: Path) -> None:
    outcome = judge("0us vmm create-vm\n2us vmm set-iommu\n9us vmm run", tmp_path)["TK106"]
    assert (outcome.verdict, outcome.findings) == (Verdict.NOT_CHECKED, ())
    assert "no_event:vfio.type1_ioctl" in outcome.judged.reasons


def test_not_checked_without_arguments(tmp_path: Path) -> None:
    outcome = judge("2us vmm set-iommu\n20us vmm map 0x200000+64K bare silent", tmp_path)["TK106"]
    assert (outcome.verdict, outcome.findings) == (Verdict.NOT_CHECKED, ())


def test_not_checked_without_what_a_loss_took(tmp_path: Path) -> None:
    # the map before the loss may have been undone in it
    outcome = judge(SETUP + "lost cpu0 10us..12us\n20us vmm map 0x200000+64K", tmp_path)["TK106"]
    assert outcome.findings == ()
    assert outcome.judged.decided + outcome.judged.undecided == 2


def test_not_checked_without_the_maps_before_the_recording(tmp_path: Path) -> None:
    outcome = judge("20us vmm map 0x200000+64K\n30us vmm run", tmp_path)["TK106"]
    assert outcome.findings == ()


def test_one_finding_for_one_cause(tmp_path: Path) -> None:
    calls = "\n".join(
        f"{20 + 2 * i}us vmm map {0x200000 + 0x1000 * i:#x}+4K ret=-17" for i in range(8)
    )
    outcomes = judge(
        f"{SETUP}{calls}\n50us vmm run\n60us vmm map 0x20f000+4K ret=-17\n70us vmm run", tmp_path
    )
    (finding,) = outcomes["TK106"].findings
    assert said(outcomes["TK106"])[-1] == "warning certain 0x20f000+4K"
    assert finding.title == (
        f"{finding.count} DMA maps were refused because an entry is there already (EEXIST)"
    )
    assert sum(o.size or 0 for o in finding.occurrences) == 9 * 4096


def test_one_finding_for_one_cause_in_each_container(tmp_path: Path) -> None:
    outcomes = judge(
        SETUP
        + """
        6us   vmm  set-iommu fd=21
        8us   vmm  map 0x200000+64K fd=21
        20us  vmm  map 0x200000+64K ret=-17
        30us  vmm  map 0x200000+64K ret=-17 fd=21
        """,
        tmp_path,
    )
    assert [f.count for f in outcomes["TK106"].findings] == [1, 1]
    assert len({f.container for f in outcomes["TK106"].findings}) == 2
    assert len({f.id for f in outcomes["TK106"].findings}) == 2


@pytest.mark.parametrize("page", [0x0, 0x3FFFF000, 0xFFFFFFFFFF000])
def test_boundary_of_one_block_first_and_last_of_what_a_vm_has(page: int, tmp_path: Path) -> None:
    outcomes = judge(
        f"""
        2us   vmm  set-iommu
        5us   vmm  map {page:#x}+4K at=0x7f0000000000
        20us  vmm  map {page:#x}+4K at=0x7f0000000000
        """,
        tmp_path,
    )
    assert alarms(outcomes) == {"TK106": [f"error certain {page:#x}+4K"]}


def test_boundary_of_two_events_at_the_same_time(tmp_path: Path) -> None:
    unmapped, mapped = (
        "20us vmm unmap 0x200000+64K for=0us\n",
        "20us vmm map 0x200000+64K for=0us\n",
    )
    assert alarms(judge(SETUP + unmapped + mapped, tmp_path)) == {}
    outcomes = judge(SETUP + mapped + unmapped, tmp_path)
    assert said(outcomes["TK106"]) == ["error certain 0x200000+64K"]


def test_boundary_of_a_trace_that_ends_in_the_map(tmp_path: Path) -> None:
    outcome = judge(SETUP + "20us vmm map 0x200000+64K no-exit silent", tmp_path)["TK106"]
    # its result is not known
    assert outcome.findings == ()


@pytest.mark.parametrize("size", ["4K", "0xffffffffffffffff", "0"])
@pytest.mark.parametrize("ret", ["", "ret=-22"])
def test_boundary_at_the_end_of_64_bits(size: str, ret: str, tmp_path: Path) -> None:
    outcomes = judge(
        f"{SETUP}15us vmm map 0xfffffffffffff000+{size} at=0x1000 silent {ret}\n"
        "20us vmm map 0x200000+4K\n30us vmm run",
        tmp_path,
    )
    assert said(outcomes["TK106"]) == ["error certain 0x200000+4K"]
