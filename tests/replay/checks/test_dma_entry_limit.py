"""TK107: a container ran out of DMA entries, or nearly."""

from __future__ import annotations

from pathlib import Path

import pytest
from judging import alarms, judge, said

from replay.engine.kernel import dma
from tracekit.findings import Verdict

SETUP = """
    0us   vmm  create-vm
    1us   vmm  memory
    2us   vmm  set-iommu
    4us   vmm  private 0x0+64K
    6us   vmm  map 0x100000+4K
"""


@pytest.fixture
def small_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """A limit of 10 entries, near which a container is with 9: 65,535 maps take too long here."""
    monkeypatch.setattr(dma, "ENTRIES_HIGH", 9)
    monkeypatch.setattr(dma, "ENTRY_LIMIT", 10)


def maps(count: int, first: int = 0x100, start: int = 20) -> str:
    """As many maps of one page, none beside another, from ``start`` us on."""
    return "\n".join(
        f"{start + 2 * i}us vmm map {(first + 2 * i) << 12:#x}+4K" for i in range(count)
    )


def test_finds_a_map_that_was_refused(tmp_path: Path) -> None:
    outcomes = judge(SETUP + "20us vmm map 0x200000+4K ret=-28\n30us vmm run", tmp_path)
    assert alarms(outcomes) == {"TK107": ["warning certain 0x200000+4K"]}
    (finding,) = outcomes["TK107"].findings
    assert finding.title == "a DMA map was refused: no entry is left (ENOSPC)"
    assert finding.occurrences[0].errno == 28


def test_finds_as_an_error_what_was_refused_in_a_conversion(tmp_path: Path) -> None:
    outcomes = judge(
        SETUP + "10us vmm shared 0x0+8K\n12us vmm map 0x0+4K ret=-28\n30us vmm run", tmp_path
    )
    assert said(outcomes["TK107"]) == ["error certain 0x0+4K"]
    (finding,) = outcomes["TK107"].findings
    assert finding.title == (
        "a DMA map was refused in the middle of a conversion: no entry is left (ENOSPC)"
    )


@pytest.mark.usefixtures("small_limit")
@pytest.mark.parametrize("count", [9, 10])
def test_finds_a_container_that_came_near_the_limit(count: int, tmp_path: Path) -> None:
    outcome = judge(f"2us vmm set-iommu\n{maps(count)}\n90us vmm run", tmp_path)["TK107"]
    (finding,) = outcome.findings
    assert (finding.severity.value, finding.confidence.value) == ("warning", "likely")
    assert finding.title == f"{count} DMA entries at once: the default limit is 65,535"
    # from the return of the map that reached it
    assert finding.occurrences[0].from_ns == 20_000 + 2_000 * 8 + 1_000


HOLDS = {
    "another error": "20us vmm map 0x200000+4K ret=-12",
    "there already": "20us vmm map 0x200000+4K",
    "iommufd has no limit": "20us vmm ioas-map 0x200000+4K ret=-28",
    "no map": "20us vmm unmap 0x100000+4K",
}


@pytest.mark.parametrize("case", HOLDS)
def test_holds_when_no_entry_was_missing(case: str, tmp_path: Path) -> None:
    outcomes = judge(f"{SETUP}{HOLDS[case]}\n90us vmm run", tmp_path)
    assert said(outcomes["TK107"]) == []
    assert outcomes["TK107"].verdict is Verdict.HELD


@pytest.mark.usefixtures("small_limit")
@pytest.mark.parametrize(
    "calls",
    [
        maps(8),
        maps(11),  # past the default: its limit is another
        maps(6) + "\n40us vmm unmap 0x100000+4K\n" + maps(3, first=0x200, start=50),
    ],
    ids=["below it", "another limit", "unmapped in between"],
)
def test_holds_when_the_container_is_not_near_its_limit(calls: str, tmp_path: Path) -> None:
    outcomes = judge(f"2us vmm set-iommu\n{calls}\n190us vmm run", tmp_path)
    assert alarms(outcomes) == {}
    assert outcomes["TK107"].verdict is Verdict.HELD


def test_not_checked_without_maps(tmp_path: Path) -> None:
    outcome = judge("0us vmm create-vm\n9us vmm run", tmp_path)["TK107"]
    assert (outcome.verdict, outcome.findings) == (Verdict.NOT_CHECKED, ())
    assert "no_event:vfio.type1_ioctl" in outcome.judged.reasons


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("6us vmm map 0x100000+4K\n20us vmm run", "late_start"),
        (SETUP + "lost cpu0 10us..12us\n20us vmm run", "loss"),
        (SETUP + "10us vmm map 0x300000+4K bare\n20us vmm run", "unknown_arguments"),
    ],
    ids=["the container's beginning", "what a loss took", "arguments"],
)
def test_not_checked_without(text: str, reason: str, tmp_path: Path) -> None:
    outcome = judge(text, tmp_path)["TK107"]
    assert (outcome.verdict, outcome.findings) == (Verdict.NOT_CHECKED, ())
    assert outcome.judged.undecided == 1
    assert set(outcome.judged.reasons) <= {reason, "late_start"}


def test_one_finding_for_one_cause(tmp_path: Path) -> None:
    calls = "\n".join(
        f"{20 + 10 * i}us vmm map {0x200000 + 0x2000 * i:#x}+4K ret=-28\n{25 + 10 * i}us vmm run"
        for i in range(6)
    )
    (finding,) = judge(SETUP + calls, tmp_path)["TK107"].findings
    assert finding.count == 6
    assert finding.title == "6 DMA maps were refused: no entry is left (ENOSPC)"


def test_one_finding_for_one_cause_where_the_pieces_are_one_run(tmp_path: Path) -> None:
    calls = "\n".join(
        f"{20 + 2 * i}us vmm map {0x200000 + 0x1000 * i:#x}+4K ret=-28" for i in range(8)
    )
    outcomes = judge(f"{SETUP}{calls}\n90us vmm run", tmp_path)
    assert said(outcomes["TK107"]) == ["warning certain 0x200000+32K"]


@pytest.mark.usefixtures("small_limit")
def test_boundary_of_one_entry_more_in_one_of_two_containers(tmp_path: Path) -> None:
    other = maps(9, start=50).replace("+4K", "+4K fd=21")
    outcomes = judge(
        f"2us vmm set-iommu\n3us vmm set-iommu fd=21\n{maps(8)}\n{other}\n90us vmm run", tmp_path
    )
    (finding,) = outcomes["TK107"].findings
    assert finding.container == 0xFFFF_0001 + 16 * (21 - 8)


@pytest.mark.usefixtures("small_limit")
def test_boundary_of_an_unmap_of_everything(tmp_path: Path) -> None:
    # eight entries, none, and eight again: never nine at once
    outcomes = judge(
        f"2us vmm set-iommu\n{maps(8)}\n50us vmm unmap 0x0+0 flags=2 silent\n"
        + maps(8, first=0x900, start=60),
        tmp_path,
    )
    assert said(outcomes["TK107"]) == []


@pytest.mark.parametrize("page", [0x0, 0x3FFFF000, 0xFFFFFFFFFF000])
def test_boundary_of_one_block_first_and_last_of_what_a_vm_has(page: int, tmp_path: Path) -> None:
    call = f"map {page:#x}+4K at=0x7f0000000000 ret=-28"
    outcomes = judge(f"2us vmm set-iommu\n20us vmm {call}", tmp_path)
    assert alarms(outcomes) == {"TK107": [f"warning certain {page:#x}+4K"]}


def test_boundary_of_two_events_at_the_same_time(tmp_path: Path) -> None:
    shared, refused = "20us vmm shared 0x0+4K for=0us\n", "20us vmm map 0x0+4K ret=-28 for=0us\n"
    inside = judge(SETUP + shared + refused + "30us vmm run", tmp_path)
    assert said(inside["TK107"]) == ["error certain 0x0+4K"]
    before = judge(SETUP + refused + shared + "22us vmm map 0x0+4K\n30us vmm run", tmp_path)
    assert said(before["TK107"]) == ["warning certain 0x0+4K"]


def test_boundary_of_a_trace_that_ends_in_the_map(tmp_path: Path) -> None:
    outcome = judge(SETUP + "20us vmm map 0x200000+4K ret=-28 no-exit", tmp_path)["TK107"]
    assert outcome.findings == ()


@pytest.mark.parametrize("size", ["4K", "0xffffffffffffffff", "0"])
def test_boundary_at_the_end_of_64_bits(size: str, tmp_path: Path) -> None:
    call = f"map 0xfffffffffffff000+{size} at=0x1000 ret=-28"
    outcomes = judge(f"{SETUP}20us vmm {call}\n30us vmm run", tmp_path)
    (finding,) = outcomes["TK107"].findings
    assert finding.severity.value == "warning"
