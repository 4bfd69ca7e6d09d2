"""The invariants D1 to D15 of stale mappings: for each what trips it, what nearly does, and what
nobody can tell.

Each row asserts the code that answers for it.  The near miss is silent everywhere; the third case
is neither a finding nor a clean bill: the check says that it could not judge.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pytest
from judging import alarms, judge, said

from tracekit.findings import Verdict


class Row(NamedTuple):
    """One invariant: the code that judges it, and three traces."""

    code: str
    trips: str
    says: list[str]
    near_miss: str
    not_checked: str
    in_place: bool = False


HOST = """
    0us   vmm  create-vm
    1us   vmm  memory
    2us   vmm  set-iommu
"""
MAPPED = HOST + "5us vmm map 0x0+64K\n"
PRIVATE = HOST + "5us vmm private 0x0+1M\n"
COVERED = (
    MAPPED
    + "8us vmm private 0x0+64K\n10us vmm unmap 0x0+64K\n12us vmm punch 0x0+64K\n14us vmm run\n"
)
GMEM = HOST + "3us vmm slot 0 0x0+1M gmem\n"
LOST = "lost cpu0 22us..23us\n"

ROWS: dict[str, Row] = {
    # discarded under a live map, then used again
    "D1": Row(
        code="TK102",
        trips=MAPPED + "20us vmm punch 0x0+64K\n30us vmm populate 0x0+64K\n40us vmm unmap 0x0+64K",
        says=["error certain 0x0+64K"],
        near_miss=MAPPED
        + "20us vmm unmap 0x0+64K\n30us vmm punch 0x0+64K\n40us vmm populate 0x0+64K",
        not_checked=(
            "2us vmm set-iommu\n5us vmm map 0x0+64K\n20us vmm punch 0x0+64K\n"
            "30us vmm populate 0x0+64K"
        ),
    ),
    # private, and a mapping still live when the conversion is over
    "D2": Row(
        code="TK101",
        trips=MAPPED + "20us vmm private 0x0+64K\n30us vmm run",
        says=["error certain 0x0+64K"],
        near_miss=MAPPED + "20us vmm private 0x0+64K\n25us vmm unmap 0x0+64K\n30us vmm run",
        not_checked=MAPPED + "20us vmm private 0x0+64K\n" + LOST + "30us vmm run",
    ),
    # mapped before the change to shared
    "D3": Row(
        code="TK103",
        trips=PRIVATE + "20us vmm map 0x0+64K\n30us vmm shared 0x0+64K\n40us vmm run",
        says=["error certain 0x0+64K"],
        near_miss=PRIVATE + "20us vmm shared 0x0+64K\n30us vmm map 0x0+64K\n40us vmm run",
        not_checked=PRIVATE + LOST + "30us vmm map 0x0+64K\n40us vmm run",
    ),
    # discarded while its mapping was live
    "D4": Row(
        code="TK102",
        trips=MAPPED + "20us vmm punch 0x0+64K\n5ms vmm unmap 0x0+64K\n6ms vmm run",
        says=["warning likely 0x0+64K"],
        near_miss=MAPPED + "20us vmm punch 0x0+64K\n30us vmm unmap 0x0+64K\n40us vmm run",
        not_checked=MAPPED + "20us vmm punch 0x0+64K\n" + LOST + "30us vmm run",
    ),
    # in place: mapped at the change
    "D5": Row(
        code="TK111",
        trips=MAPPED + "20us vmm private 0x0+64K\n25us vmm unmap 0x0+64K\n30us vmm run",
        says=["error certain 0x0+64K"],
        near_miss=MAPPED + "20us vmm unmap 0x0+64K\n25us vmm private 0x0+64K\n30us vmm run",
        not_checked="20us vmm private 0x0+64K\n25us vmm unmap 0x0+64K silent\n30us vmm run",
        in_place=True,
    ),
    # two live entries of one iova
    "D6": Row(
        code="TK106",
        trips=MAPPED + "20us vmm map 0x0+64K\n30us vmm map 0x4000+4K ret=-17",
        says=["error certain 0x0+64K", "warning certain 0x4000+4K"],
        near_miss=MAPPED + "20us vmm unmap 0x0+64K\n25us vmm map 0x0+64K\n30us vmm run",
        not_checked=HOST + "20us vmm map 0x0+64K bare silent\n30us vmm run",
    ),
    # an unmap that cuts an entry, or removes less than it says
    "D7": Row(
        code="TK105",
        trips=MAPPED + "20us vmm unmap 0x4000+4K ret=-22\n30us vmm unmap 0x0+64K tell=0x8000",
        says=["warning certain 0x4000+4K", "error certain 0x8000+32K"],
        near_miss=MAPPED
        + "6us vmm map 0x10000+64K\n20us vmm unmap 0x0+128K each=64K\n30us vmm run",
        not_checked=MAPPED + "20us vmm unmap 0x4000+4K bare ret=-22\n30us vmm run",
    ),
    # shared, and no map
    "D8": Row(
        code="TK104",
        trips=COVERED + "20us vmm shared 0x0+64K\n30us vmm run",
        says=["error certain 0x0+64K"],
        near_miss=COVERED + "20us vmm shared 0x0+64K\n25us vmm map 0x0+64K each=4K\n30us vmm run",
        not_checked=COVERED + "20us vmm shared 0x0+64K\n" + LOST + "30us vmm run",
    ),
    # an unmap failed, and the range was discarded
    "D9": Row(
        code="TK102",
        trips=MAPPED + "20us vmm unmap 0x0+64K ret=-16\n30us vmm punch 0x0+64K\n40us vmm run",
        says=["error certain 0x0+64K"],
        near_miss=(
            MAPPED
            + "20us vmm unmap 0x0+64K ret=-16\n24us vmm unmap 0x0+64K\n30us vmm punch 0x0+64K\n"
            "40us vmm run"
        ),
        not_checked=(
            "2us vmm set-iommu\n5us vmm map 0x0+64K\n20us vmm unmap 0x0+64K ret=-16\n"
            "30us vmm punch 0x0+64K\n40us vmm run"
        ),
    ),
    # no DMA entry is left
    "D10": Row(
        code="TK107",
        trips=PRIVATE + "20us vmm shared 0x0+8K\n24us vmm map 0x0+8K ret=-28\n30us vmm run",
        says=["error certain 0x0+8K"],
        near_miss=PRIVATE + "20us vmm shared 0x0+8K\n24us vmm map 0x0+8K\n30us vmm run",
        not_checked="20us vmm map 0x0+8K\n30us vmm run",
    ),
    # an error half-way, and its first half left behind
    "D11": Row(
        code="TK108",
        trips=(
            PRIVATE
            + "20us vmm shared 0x0+8K\n22us vmm map 0x0+4K\n24us vmm map 0x1000+4K ret=-12\n"
            "26us vmm private 0x0+8K\n40us vmm run"
        ),
        says=["error certain 0x0+4K"],
        near_miss=(
            PRIVATE
            + "20us vmm shared 0x0+8K\n22us vmm map 0x0+4K\n24us vmm map 0x1000+4K ret=-12\n"
            "26us vmm unmap 0x0+4K\n28us vmm private 0x0+8K\n40us vmm run"
        ),
        not_checked=(
            PRIVATE
            + "15us vmm shared 0x0+8K\n17us vmm map 0x0+4K\n19us vmm map 0x1000+4K ret=-12\n"
            + LOST
            + "26us vmm unmap 0x0+4K\n28us vmm private 0x0+8K\n40us vmm run"
        ),
    ),
    # the device keeps the old page: mapped again over the mapping that the discard left
    "D12": Row(
        code="TK102",
        trips=MAPPED + "20us vmm punch 0x0+64K\n30us vmm map 0x0+64K ret=-17\n40us vmm run",
        says=["error certain 0x0+64K"],
        near_miss=(
            MAPPED
            + "20us vmm unmap 0x0+64K\n24us vmm punch 0x0+64K\n30us vmm map 0x0+64K\n40us vmm run"
        ),
        not_checked=MAPPED + LOST + "25us vmm punch 0x0+64K\n30us vmm map 0x0+64K\n40us vmm run",
    ),
    # the container is gone and pages are mapped
    "D13": Row(
        code="TK109",
        trips=(
            HOST
            + "5us vmm map 0x0+64K domain\n9us vmm map 0x100000+4K\n12us vmm unmap 0x100000+4K\n"
            "20us vmm free-domain"
        ),
        says=["error certain 0x0+64K"],
        near_miss=(
            HOST
            + "5us vmm map 0x0+64K domain\n9us vmm map 0x100000+4K\n12us vmm unmap 0x100000+4K\n"
            "16us vmm unmap 0x0+64K\n20us vmm free-domain"
        ),
        not_checked=MAPPED + "9us vmm map 0x100000+4K\n12us vmm unmap 0x100000+4K\n90us vmm run",
    ),
    # the wrong side is discarded
    "D14": Row(
        code="TK110",
        trips=GMEM + "20us vmm private 0x0+64K\n24us vmm punch-private 0x0+64K\n30us vmm run",
        says=["error certain 0x0+64K"],
        near_miss=GMEM + "20us vmm private 0x0+64K\n24us vmm punch 0x0+64K\n30us vmm run",
        not_checked=HOST + "20us vmm private 0x0+64K\n24us vmm punch-private 0x0+64K\n30us vmm run",
    ),
    # both sides hold memory
    "D15": Row(
        code="TK110",
        trips=(
            GMEM + "5us vmm map 0x0+64K\n20us vmm private 0x0+64K\n24us vmm unmap 0x0+64K\n"
            "30us vmm run\n40us vmm populate-private 0x0+64K"
        ),
        says=["note likely 0x0+64K"],
        near_miss=(
            GMEM + "5us vmm map 0x0+64K\n20us vmm private 0x0+64K\n24us vmm unmap 0x0+64K\n"
            "26us vmm punch 0x0+64K\n30us vmm run"
        ),
        not_checked=(
            GMEM
            + "5us vmm map 0x0+64K\n20us vmm private 0x0+64K\n24us vmm unmap 0x0+64K\n30us vmm run"
        ),
    ),
}


def test_every_row_is_there_with_its_three_cases() -> None:
    assert list(ROWS) == [f"D{n}" for n in range(1, 16)]
    for row in ROWS.values():
        assert row.says
        cases = {row.trips, row.near_miss, row.not_checked}
        assert len(cases) == 3


@pytest.mark.parametrize("name", ROWS)
def test_what_breaks_it_is_found(name: str, tmp_path: Path) -> None:
    row = ROWS[name]
    assert said(judge(row.trips, tmp_path, in_place=row.in_place)[row.code]) == row.says


@pytest.mark.parametrize("name", ROWS)
def test_what_nearly_breaks_it_is_not(name: str, tmp_path: Path) -> None:
    row = ROWS[name]
    outcomes = judge(row.near_miss, tmp_path, in_place=row.in_place)
    assert alarms(outcomes) == {}
    assert outcomes[row.code].verdict is Verdict.HELD
    assert [s for s in said(outcomes[row.code]) if s.split()[0] == row.says[-1].split()[0]] == []


@pytest.mark.parametrize("name", ROWS)
def test_what_nobody_can_tell_is_not_judged(name: str, tmp_path: Path) -> None:
    row = ROWS[name]
    outcome = judge(row.not_checked, tmp_path, in_place=row.in_place)[row.code]
    assert outcome.findings == ()
    judged = outcome.judged
    assert judged.reasons, "it does not say why"
    assert outcome.verdict is Verdict.NOT_CHECKED or judged.undecided
