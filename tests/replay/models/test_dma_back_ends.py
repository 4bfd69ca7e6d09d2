"""The kernel's side of DMA mappings: type1 version 2 and 1, and iommufd."""

import errno

import pytest
from hypothesis import given
from hypothesis import strategies as st

from replay.models import IommufdContainer, IommufdIoas, Type1Container, Type1Iommu, Type1V1Iommu
from replay.models.dma_entries import DmaEntries, DmaEntry, DmaRange
from replay.models.errors import (
    BisectedEntryError,
    BusyError,
    EntryExistsError,
    EntryLimitError,
    InvalidRangeError,
    NotFoundError,
    UpstreamError,
)

PAGE = 4096


def test_type1_says_eexist_before_enospc() -> None:
    iommu = Type1Iommu(1)
    iommu.map_dma(0, PAGE, 0)
    with pytest.raises(EntryExistsError) as exists:
        iommu.map_dma(0, 2 * PAGE, 0)
    assert exists.value.errno == errno.EEXIST
    with pytest.raises(EntryLimitError) as full:
        iommu.map_dma(PAGE, PAGE, 0)
    assert full.value.errno == errno.ENOSPC


def test_type1_counts_entries_and_not_pages() -> None:
    iommu = Type1Iommu(2)
    iommu.map_dma(0, 1 << 30, 0)
    assert iommu.dma_avail == 1
    assert iommu.unmap_dma(0, 1 << 30) == 1 << 30
    assert iommu.dma_avail == 2


def test_type1_unmaps_over_holes_and_whole_entries_only() -> None:
    iommu = Type1Iommu()
    iommu.map_dma(PAGE, PAGE, 0)
    iommu.map_dma(4 * PAGE, 2 * PAGE, 0)
    for iova, size in ((0, 5 * PAGE), (5 * PAGE, PAGE), (5 * PAGE, 4 * PAGE)):
        with pytest.raises(BisectedEntryError) as cut:
            iommu.unmap_dma(iova, size)
        assert cut.value.errno == errno.EINVAL
        assert len(iommu.entries) == 2
    assert iommu.unmap_dma(0, 16 * PAGE) == 3 * PAGE
    assert iommu.unmap_dma(0, 16 * PAGE) == 0


@pytest.mark.parametrize(
    ("iova", "size"), [(0, 0), (1, PAGE), (0, PAGE + 1), ((1 << 64) - PAGE, 2 * PAGE)]
)
def test_type1_refuses_what_is_empty_unaligned_or_wraps(iova: int, size: int) -> None:
    iommu = Type1Iommu()
    for call in (lambda: iommu.map_dma(iova, size, 0), lambda: iommu.unmap_dma(iova, size)):
        with pytest.raises(InvalidRangeError) as refused:
            call()
        assert refused.value.errno == errno.EINVAL


def test_type1_maps_the_last_page_of_the_address_space() -> None:
    iommu = Type1Iommu()
    iommu.map_dma((1 << 64) - PAGE, PAGE, 0)
    assert iommu.unmap_dma((1 << 64) - PAGE, PAGE) == PAGE


def test_version_1_unmaps_whole_entries_that_begin_in_the_range() -> None:
    iommu = Type1V1Iommu()
    iommu.map_dma(0, 4 * PAGE, 0)
    assert iommu.unmap_dma(PAGE, PAGE) == 0
    assert iommu.unmap_dma(0, PAGE) == 4 * PAGE
    assert len(iommu.entries) == 0


def test_qemu_retries_once_after_ebusy_and_gives_up_after_eexist() -> None:
    class Old(Type1Iommu):
        calls = 0

        def map_dma(self, iova: int, size: int, vaddr: int, readonly: bool = False) -> None:
            self.calls += 1
            try:
                super().map_dma(iova, size, vaddr, readonly)
            except EntryExistsError as error:
                raise BusyError(str(error)) from error

    old = Old()
    container = Type1Container(iommu=old)
    container.dma_map(0, PAGE, 0)
    container.dma_map(0, PAGE, PAGE)
    assert old.calls == 3
    assert [entry.vaddr for entry in container.entries] == [PAGE]
    container.dma_map(2 * PAGE, 2 * PAGE, 0)
    with pytest.raises(BusyError):
        container.dma_map(2 * PAGE, PAGE, 0)  # the unmap in between would cut the entry


def test_iommufd_has_no_limit_and_says_enoent_for_nothing() -> None:
    ioas = IommufdIoas()
    ioas.map(0, PAGE, 0)
    with pytest.raises(EntryExistsError):
        ioas.map(0, PAGE, 0)
    with pytest.raises(NotFoundError) as nothing:
        ioas.unmap(PAGE, PAGE)
    assert nothing.value.errno == errno.ENOENT
    assert ioas.unmap(0, 4 * PAGE) == PAGE
    assert IommufdContainer().dma_max_mappings == 0


def test_iommufd_leaves_an_unmap_half_done() -> None:
    ioas = IommufdIoas()
    for iova, size in ((0, PAGE), (PAGE, PAGE), (2 * PAGE, 2 * PAGE)):
        ioas.map(iova, size, iova)
    with pytest.raises(BisectedEntryError) as cut:
        ioas.unmap(0, 3 * PAGE)
    assert cut.value.errno == errno.ENOENT
    assert [entry.iova for entry in ioas.entries] == [2 * PAGE]
    with pytest.raises(BisectedEntryError):
        ioas.unmap(3 * PAGE, PAGE)


def test_iommufd_unmaps_everything_at_once() -> None:
    ioas = IommufdIoas()
    ioas.map(0, PAGE, 0)
    ioas.map(8 * PAGE, PAGE, 0)
    assert ioas.unmap(0, (1 << 64) - 1) == 2 * PAGE
    assert ioas.unmap(0, (1 << 64) - 1) == 0


def test_qemu_takes_enoent_of_iommufd_for_success_and_no_other_error() -> None:
    container = IommufdContainer()
    assert container.dma_unmap(0, PAGE) == 0
    assert [error.errno for error in container.reported] == [errno.ENOENT]
    with pytest.raises(InvalidRangeError):
        container.dma_unmap(0, 0)


def test_entries_are_merged_where_both_addresses_continue() -> None:
    entries = DmaEntries()
    for iova, vaddr in ((0, 0), (PAGE, PAGE), (2 * PAGE, 9 * PAGE), (4 * PAGE, 11 * PAGE)):
        entries.add(DmaEntry(iova, PAGE, vaddr))
    assert entries.ranges() == [
        DmaRange(0, 2 * PAGE, 0, 2),
        DmaRange(2 * PAGE, 3 * PAGE, 9 * PAGE, 1),
        DmaRange(4 * PAGE, 5 * PAGE, 11 * PAGE, 1),
    ]


def test_thousands_of_entries_stay_in_order() -> None:
    iommu = Type1Iommu()
    pages = [(number * 7919) % 5003 for number in range(5003)]
    for page in pages:
        iommu.map_dma(page * PAGE, PAGE, page * PAGE)
    assert iommu.entries.ranges() == [DmaRange(0, 5003 * PAGE, 0, 5003)]
    for page in pages[::2]:
        iommu.unmap_dma(page * PAGE, PAGE)
    assert [entry.iova // PAGE for entry in iommu.entries] == sorted(pages[1::2])
    iommu.unmap_dma(0, 5003 * PAGE)
    assert len(iommu.entries) == 0
    assert iommu.dma_avail == 65535


calls = st.lists(st.tuples(st.booleans(), st.integers(0, 20), st.integers(1, 6)), max_size=40)


@given(calls)
def test_type1_agrees_with_a_list_of_pages(script: list[tuple[bool, int, int]]) -> None:
    iommu = Type1Iommu(8)
    owner: dict[int, int] = {}  # page -> number of the map call
    for number, (is_map, first, count) in enumerate(script):
        pages = range(first, first + count)
        touched = {owner[page] for page in pages if page in owner}
        expected = 0
        if is_map and touched:
            expected = errno.EEXIST
        elif is_map and len(set(owner.values())) == 8:
            expected = errno.ENOSPC
        elif not is_map and any(owner[p] in touched for p in owner if p not in pages):
            expected = errno.EINVAL
        answer = 0
        try:
            if is_map:
                iommu.map_dma(first * PAGE, count * PAGE, first * PAGE)
            else:
                iommu.unmap_dma(first * PAGE, count * PAGE)
        except UpstreamError as error:
            answer = error.errno
        assert answer == expected
        if answer:
            continue
        if is_map:
            owner.update(dict.fromkeys(pages, number))
        else:
            for page in pages:
                owner.pop(page, None)
        assert sorted(owner) == [
            page for entry in iommu.entries for page in range(entry.iova // PAGE, entry.end // PAGE)
        ]
        assert iommu.dma_avail == 8 - len(set(owner.values()))
