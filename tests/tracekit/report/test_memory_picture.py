"""The picture shows what the engine's state was, at the moments it says."""

from __future__ import annotations

from pathlib import Path

import pytest
from judging import events_of

from tracekit.report.memory_picture import Cell, Sampled, sample_memory
from tracekit.report.survey import survey
from tracekit.store import open_trace, write_events

STORY = """
    0us   vmm  create-vm
    1us   vmm  memory
    2us   vmm  set-iommu
    10us  vmm  shared 0x100000+2M
    20us  vmm  map 0x100000+1M
    40us  vmm  private 0x100000+2M
    60us  vmm  unmap 0x100000+1M
    80us  vmm  shared 0x100000+1M
    90us  vmm  run
    100us end
"""


def sampled(folder: Path, story: str) -> Sampled:
    folder.mkdir(exist_ok=True)
    path = folder / "t.parquet"
    path.unlink(missing_ok=True)
    write_events(path, events_of(story))
    trace = open_trace(path)
    return sample_memory(trace, survey(trace))


def cell(made: Sampled, at_us: float, address: int) -> Cell:
    (picture,) = made.pictures
    column = max(i for i, ns in enumerate(made.at_ns) if ns <= at_us * 1000)
    (row,) = [i for i, (lo, hi) in enumerate(picture.rows) if lo <= address < hi]
    return Cell(picture.cells[column][row])


def test_private_shared_mapped_and_both(tmp_path: Path) -> None:
    made = sampled(tmp_path, STORY)
    low, high = 0x100000, 0x280000
    assert cell(made, 15, low) is Cell.SHARED
    assert (cell(made, 30, low), cell(made, 30, high)) == (Cell.MAPPED, Cell.SHARED)
    assert (cell(made, 50, low), cell(made, 50, high)) == (Cell.BOTH, Cell.PRIVATE)
    assert cell(made, 70, low) is Cell.PRIVATE
    assert (cell(made, 82, low), cell(made, 82, high)) == (Cell.SHARED, Cell.PRIVATE)


def test_a_row_that_is_half_mapped_says_so(tmp_path: Path) -> None:
    made = sampled(tmp_path, STORY.replace("map 0x100000+1M", "map 0x102000+8K"))
    (picture,) = made.pictures
    (row,) = [r for r in picture.rows if r[0] <= 0x102000 < r[1]]
    assert row == (0x100000, 0x104000)
    assert cell(made, 30, 0x102000) is Cell.PARTLY_MAPPED


def test_rows_are_cut_where_nothing_ever_happened(tmp_path: Path) -> None:
    made = sampled(tmp_path, STORY.replace("shared 0x100000+1M", "shared 0x40000000+1M"))
    (picture,) = made.pictures
    assert picture.rows[0][0] == 0x100000
    assert picture.rows[-1][1] == 0x40100000
    assert sum(hi - lo for lo, hi in picture.rows) == 3 << 20


def test_loss_makes_memory_unknown(tmp_path: Path) -> None:
    made = sampled(tmp_path, STORY.replace("60us ", "lost cpu0 50us..55us\n    60us "))
    assert cell(made, 45, 0x100000) is Cell.BOTH
    assert cell(made, 58, 0x280000) is Cell.UNKNOWN


def test_entries_are_counted_and_unknown_before_the_container(tmp_path: Path) -> None:
    made = sampled(tmp_path, STORY)
    (one,) = made.entries
    counts = dict(zip(made.at_ns, one.entries, strict=True))
    assert [n for ns, n in counts.items() if 25_000 < ns < 55_000] != []
    assert {n for ns, n in counts.items() if 25_000 < ns < 55_000} == {1}
    assert {n for ns, n in counts.items() if ns > 65_000} == {0}
    assert (one.peak, one.limited) == (1, True)


def test_no_memory_no_picture(tmp_path: Path) -> None:
    made = sampled(tmp_path, "0us vmm create-vm\n9us end")
    assert (made.pictures, made.entries) == ([], [])


@pytest.mark.parametrize("size", ["4K", "512G", "9000G"])
def test_a_picture_is_small_however_large_the_guest(tmp_path: Path, size: str) -> None:
    made = sampled(tmp_path, STORY.replace("private 0x100000+2M", f"private 0x0+{size}"))
    (picture,) = made.pictures
    assert picture.cells.size <= 240 * 160
