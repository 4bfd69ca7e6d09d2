"""What VFIO's listeners ask their container for."""

import errno
from typing import Any

import pytest

from replay.models import (
    IommufdContainer,
    MemoryRegion,
    RegionKind,
    Type1Container,
    Type1Iommu,
    merged,
    v4,
)
from replay.models.errors import (
    AbortError,
    DmaLimitError,
    EntryExistsError,
    EntryLimitError,
    ExitError,
)

PAGE = 4096
BASE = 1 << 32


class Asked(Type1Container):
    """Remembers what it was asked for."""

    def __init__(self, entries: int = 65535, limit: int = 0, pgsize: int = PAGE) -> None:
        super().__init__(iommu=Type1Iommu(entries, pgsize=pgsize), dma_max_mappings=limit)
        self.calls: list[tuple[str, int, int]] = []

    def dma_map(self, iova: int, size: int, vaddr: int, readonly: bool = False) -> None:
        self.calls.append(("map", iova - BASE, size))
        super().dma_map(iova, size, vaddr, readonly)

    def dma_unmap(self, iova: int, size: int) -> int:
        self.calls.append(("unmap", iova - BASE, size))
        return super().dma_unmap(iova, size)


def test_pieces_end_at_multiples_of_the_granularity_within_the_region() -> None:
    ram = v4.RamBlockAttribute(4 * PAGE)
    container = Asked(pgsize=1)
    section = ram.mr.section(0x800, 2 * PAGE, address=BASE)
    v4.VfioPrivateSharedListener(container).register(section)
    ram.state_change(0, 4 * PAGE, to_private=False)
    assert container.calls == [
        ("map", 0, 0x800),
        ("map", 0x800, PAGE),
        ("map", 0x1800, 0x800),
    ]


def test_the_host_address_follows_the_region_and_the_iova_the_section() -> None:
    mr = MemoryRegion.ram("ram0", 4 * PAGE, host=0x7F0000000000)
    ram = merged.RamBlockAttributes(mr)
    container = Type1Container()
    merged.VfioListener(container).register(mr.section(PAGE, 2 * PAGE, address=BASE))
    ram.state_change(2 * PAGE, PAGE, to_private=False)
    assert [(e.iova, e.vaddr) for e in container.entries] == [
        (BASE + PAGE, 0x7F0000000000 + 2 * PAGE)
    ]


def test_a_failed_piece_unmaps_the_whole_section_once_and_returns_its_error() -> None:
    ram = merged.RamBlockAttributes(4 * PAGE)
    container = Asked(entries=2)
    merged.VfioListener(container).register(ram.mr.section(address=BASE))
    with pytest.raises(EntryLimitError) as full:
        ram.state_change(0, 4 * PAGE, to_private=False)
    assert full.value.errno == errno.ENOSPC
    assert container.calls == [
        ("map", 0, PAGE),
        ("map", PAGE, PAGE),
        ("map", 2 * PAGE, PAGE),
        ("unmap", 0, 4 * PAGE),
    ]


def test_a_discard_is_one_unmap_of_the_clipped_range() -> None:
    ram = merged.RamBlockAttributes(8 * PAGE)
    container = Asked()
    merged.VfioListener(container).register(ram.mr.section(2 * PAGE, 4 * PAGE, address=BASE))
    ram.state_change(0, 8 * PAGE, to_private=False)
    container.calls.clear()
    ram.state_change(0, 4 * PAGE, to_private=True)
    assert container.calls == [("unmap", 0, 2 * PAGE)]


@pytest.mark.parametrize(("limit", "refused"), [(4 + 512 - 1, False), (4 + 512 - 2, True)])
def test_the_dma_limit_is_refused_above_and_not_at_it(limit: int, refused: bool) -> None:
    """4 blocks of the section, and 512 memory slots of which this section is one."""
    ram = merged.RamBlockAttributes(4 * PAGE)
    listener = merged.VfioListener(Type1Container(dma_max_mappings=limit))
    if refused:
        with pytest.raises(DmaLimitError, match="515 DMA mappings"):
            listener.register(ram.mr.section())
    else:
        listener.register(ram.mr.section())
    assert ram.listeners == (listener,)


@pytest.mark.parametrize(("limit", "warned"), [(4 + 512 - 1, 0), (4 + 512 - 2, 1)])
def test_release_10_0_only_warned_about_it(limit: int, warned: int) -> None:
    mr = MemoryRegion.ram("dimm", 4 * PAGE, guest_memfd=False)
    v4.VirtioMem(mr, block_size=PAGE)
    container = Type1Container(dma_max_mappings=limit)
    v4.VfioRamDiscardListener(container).register(mr.section())
    assert len(container.dma_limit_warnings) == warned


def test_iommufd_has_no_limit_to_look_at() -> None:
    ram = merged.RamBlockAttributes(1 << 30)
    ram.state_change(0, 1 << 29, to_private=False)
    container = IommufdContainer()
    merged.VfioListener(container).register(ram.mr.section())
    assert len(container.entries) == 1 << 17


@pytest.mark.parametrize(
    ("offset", "size", "address"), [(512, PAGE, 0), (0, 512, 0), (0, PAGE, 512)]
)
@pytest.mark.parametrize("generation", ["10.0", "merged"])
def test_sections_that_are_not_whole_pages_are_an_assertion(
    generation: str, offset: int, size: int, address: int
) -> None:
    mr = MemoryRegion.ram("dimm", 4 * PAGE, guest_memfd=generation == "merged")
    listener: Any
    if generation == "merged":
        merged.RamBlockAttributes(mr)
        listener = merged.VfioListener(Type1Container())
    else:
        v4.VirtioMem(mr, block_size=PAGE)
        listener = v4.VfioRamDiscardListener(Type1Container())
    with pytest.raises(AbortError):
        listener.register(mr.section(offset, size, address=address))


def test_a_granularity_below_the_iommus_page_is_an_assertion() -> None:
    ram = merged.RamBlockAttributes(1 << 20)
    container = Type1Container(iommu=Type1Iommu(pgsize=1 << 16))
    with pytest.raises(AbortError):
        merged.VfioListener(container).register(ram.mr.section())
    with pytest.raises(AbortError):
        ram.get_min_granularity(MemoryRegion.ram("other", PAGE))


def test_of_two_listeners_at_one_place_the_newest_is_unregistered() -> None:
    ram = merged.RamBlockAttributes(4 * PAGE)
    container = Type1Container()
    section = ram.mr.section(address=BASE)
    first, second = merged.VfioListener(container), merged.VfioListener(container)
    for listener in (first, second):
        listener.register(section)
    merged.VfioListener.unregister(container, section)
    assert ram.listeners == (first,)
    merged.VfioListener.unregister(container, section)
    with pytest.raises(AbortError) as end:
        merged.VfioListener.unregister(container, section)
    assert end.value.function == "vfio_ram_discard_unregister_listener"


@pytest.mark.parametrize("package", [v4, merged], ids=["v4", "merged"])
def test_memory_without_a_manager_is_mapped_and_unmapped_at_once(package: Any) -> None:
    container = Asked()
    listener = package.VfioMemoryListener(container)
    section = MemoryRegion.ram("plain", 1 << 20, guest_memfd=False).section(address=BASE)
    listener.region_add(section)
    listener.region_del(section)
    assert container.calls == [("map", 0, 1 << 20), ("unmap", 0, 1 << 20)]
    listener.region_add(MemoryRegion("bar", PAGE, kind=RegionKind.MMIO).section(address=BASE))
    assert len(container.calls) == 2


@pytest.mark.parametrize("package", [v4, merged], ids=["v4", "merged"])
def test_an_error_fails_the_device_first_and_qemu_later(package: Any) -> None:
    container = Type1Container()
    listener = package.VfioMemoryListener(container)
    section = MemoryRegion.ram("plain", PAGE, guest_memfd=False).section(address=BASE)
    listener.region_add(section)
    listener.region_add(section)
    assert isinstance(container.error, EntryExistsError)
    bar = MemoryRegion("vram", PAGE, kind=RegionKind.RAM_DEVICE).section(address=BASE)
    container.initialized = True
    listener.region_add(bar)  # a device's own memory is only reported
    with pytest.raises(AbortError):
        listener.region_add(section)


def test_a_refused_replay_ends_qemu_even_before_the_container_is_initialized() -> None:
    ram = merged.RamBlockAttributes(2 * PAGE)
    ram.state_change(0, 2 * PAGE, to_private=False)
    with pytest.raises(ExitError):
        merged.VfioMemoryListener(Asked(entries=1)).region_add(ram.mr.section(address=BASE))


def test_a_device_on_iommufd_follows_conversions_like_one_on_type1() -> None:
    ram = merged.RamBlockAttributes(8 * PAGE)
    section = ram.mr.section(address=BASE)
    containers = [Type1Container(), IommufdContainer()]
    for container in containers:
        merged.VfioListener(container).register(section)
    ram.state_change(PAGE, PAGE, to_private=False)
    ram.state_change(0, 4 * PAGE, to_private=False)
    ram.state_change(2 * PAGE, 4 * PAGE, to_private=True)
    assert containers[0].entries.ranges() == containers[1].entries.ranges()
    assert [(r.iova - BASE, r.entries) for r in containers[1].entries.ranges()] == [(0, 2)]


def test_unregistering_where_nothing_is_mapped_is_enoent_on_iommufd_only() -> None:
    ram = merged.RamBlockAttributes(8 * PAGE)
    section = ram.mr.section(address=BASE)
    reported = []
    for container in (Type1Container(), IommufdContainer()):
        merged.VfioListener(container).register(section)
        merged.VfioListener.unregister(container, section)
        reported.append([error.errno for error in container.reported])
    assert reported == [[], [errno.ENOENT]]
