"""What migration and VFIO's dirty log ask a manager for."""

import pytest

from replay.models import MemoryRegion, RamDirtyBitmap, Type1Container, merged, sources, v4
from replay.models.dirty_query import DirtyQuery
from replay.models.errors import AbortError

PAGE = 4096
BASE = 1 << 32


@pytest.mark.parametrize("generation", [merged, sources], ids=["merged", "sources"])
def test_private_pages_are_not_sent(generation: object) -> None:
    ram = generation.RamBlockAttributes(8 * PAGE)  # type: ignore[attr-defined]
    ram.state_change(2 * PAGE, 3 * PAGE, to_private=False)
    dirty = RamDirtyBitmap(ram.mr)
    assert merged.clear_discarded_pages(dirty) == 5
    assert dirty.dirty_pages == 3
    assert dirty.sync_cleared == [(0, 2 * PAGE), (5 * PAGE, 3 * PAGE)]
    assert merged.page_is_discarded(ram.mr, PAGE)
    assert not merged.page_is_discarded(ram.mr, 2 * PAGE + 100)
    assert [s[1:3] for s in merged.populated_sections(ram.mr)] == [(2 * PAGE, 3 * PAGE)]


def test_v4_sends_private_pages_because_their_manager_is_of_another_kind() -> None:
    ram = v4.RamBlockAttribute(8 * PAGE)
    dirty = RamDirtyBitmap(ram.mr)
    assert v4.clear_discarded_pages(dirty) == 0
    assert dirty.dirty_pages == 8
    assert not v4.page_is_discarded(ram.mr, 0)
    assert v4.populated_sections(ram.mr) == [ram.mr.section()]


def test_v4_does_not_send_what_virtio_mem_has_not_plugged() -> None:
    mr = MemoryRegion.ram("dimm", 8 << 20, guest_memfd=False)
    mem = v4.VirtioMem(mr)
    mem.plug_request(2 << 20, 1)
    dirty = RamDirtyBitmap(mr)
    assert v4.clear_discarded_pages(dirty) == 3 * 512
    assert v4.page_is_discarded(mr, 0)
    assert [s[1:3] for s in v4.populated_sections(mr)] == [(2 << 20, 2 << 20)]


def test_a_region_without_a_manager_is_sent_whole() -> None:
    mr = MemoryRegion.ram("plain", 4 * PAGE, guest_memfd=False)
    dirty = RamDirtyBitmap(mr)
    assert merged.clear_discarded_pages(dirty) == 0
    assert not merged.page_is_discarded(mr, 0)
    assert merged.populated_sections(mr) == [mr.section()]


def test_an_odd_region_clears_a_tail_that_ends_past_it() -> None:
    ram = merged.RamBlockAttributes(2 * PAGE + 100)
    dirty = RamDirtyBitmap(ram.mr)
    assert merged.clear_discarded_pages(dirty) == 2  # the tail of 100 bytes is no whole page
    assert dirty.dirty_pages == 1


def test_the_dirty_log_is_asked_once_for_each_populated_run() -> None:
    ram = merged.RamBlockAttributes(8 * PAGE)
    container = Type1Container()
    section = ram.mr.section(PAGE, 6 * PAGE, address=BASE)
    merged.VfioListener(container).register(section)
    ram.state_change(0, 3 * PAGE, to_private=False)
    ram.state_change(6 * PAGE, 2 * PAGE, to_private=False)
    assert merged.dirty_queries(container, section) == [
        DirtyQuery(BASE, 2 * PAGE, PAGE),
        DirtyQuery(BASE + 5 * PAGE, PAGE, 6 * PAGE),
    ]
    with pytest.raises(AbortError):
        merged.dirty_queries(container, ram.mr.section(address=BASE + PAGE))
