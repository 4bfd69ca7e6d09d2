"""What the page's pictures are scaled by."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from judging import events_of

from tracekit.report.survey import STEPS, Loss, Ranges, survey
from tracekit.store import open_trace, write_events

PAGE = 4096
PIECES = st.lists(st.tuples(st.integers(0, 200), st.integers(1, 20)), max_size=30)


@given(st.lists(PIECES, min_size=1, max_size=5))
def test_ranges_are_the_pages_that_were_added(batches: list[list[tuple[int, int]]]) -> None:
    ranges, pages = Ranges(), set()
    for pieces in batches:
        first = np.array([lo * PAGE for lo, _ in pieces], np.int64)
        size = np.array([n * PAGE for _, n in pieces], np.int64)
        ranges.add(first, size)
        pages |= {p for lo, n in pieces for p in range(lo, lo + n)}
    told = ranges.pages(1000)
    assert {p for lo, hi in told for p in range(lo, hi)} == pages
    assert all(a[1] < b[0] for a, b in pairwise(told))


@given(PIECES, st.integers(1, 4))
def test_coarser_ranges_still_hold_every_page(pieces: list[tuple[int, int]], most: int) -> None:
    ranges = Ranges(most=3)
    for lo, n in pieces:
        ranges.add(np.array([lo * PAGE]), np.array([n * PAGE]))
    told = ranges.pages(most)
    assert len(told) <= min(3, most)
    for lo, n in pieces:
        assert any(a <= lo and lo + n <= b for a, b in told)


def test_what_no_machine_has_is_left_out() -> None:
    ranges = Ranges()
    ranges.add(np.array([-1, 1 << 62, 0, 4096]), np.array([4096, 4096, -5, 1 << 62]))
    assert ranges.pages(10) == []


def test_rates_count_every_event_once_and_losses_are_where_they_were(tmp_path: Path) -> None:
    write_events(
        tmp_path / "t.parquet",
        events_of("""
            0us   vmm  create-vm
            1us   vmm  memory
            2us   vmm  set-iommu
            3us   vmm  map 0x100000+64K each=4K
            9us   vmm  private 0x100000+64K
            lost cpu0 44us..50us
            60us  vmm  shared 0x100000+64K
            70us  vmm  unmap 0x100000+64K each=4K
            90us  end
        """),
    )
    trace = open_trace(tmp_path / "t.parquet")
    found = survey(trace)
    events = trace.manifest.events
    assert {n: int(c.sum()) for n, c in found.rates.items()} == {
        "events": len(trace),
        "to private": 1,
        "to shared": 1,
        "map": events["iommu.map"],
        "unmap": events["iommu.unmap"],
    }
    assert found.rates["to private"][int(9.4e3 / 90e3 * STEPS) - 2 :][:8].sum() == 1
    assert found.losses == [Loss(from_ns=44_000, until_ns=50_000, count=None)]
    assert found.touched.pages(10) == [(0x100, 0x110)]
    assert found.active_ns[0] <= 4_000
    assert found.active_ns[1] >= 70_000
