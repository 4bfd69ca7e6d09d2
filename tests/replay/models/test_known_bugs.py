"""Bugs, fixes and hazards of upstream that the models keep, by their number in the project's
list of facts; the numbers that are missing concern no model."""

import errno

import pytest

from replay.models import (
    CoordinatedDiscard,
    DiscardSide,
    DiscardUser,
    FlatView,
    IommufdContainer,
    KvmMemoryAttributes,
    MemoryRegion,
    Type1Container,
    merged,
    sources,
    v4,
)
from replay.models.coordinated_discard import DiscardRequest
from replay.models.dirty_query import DirtyQuery
from replay.models.errors import (
    AbortError,
    BisectedEntryError,
    BusyError,
    DmaLimitError,
    EntryExistsError,
    EntryLimitError,
    ExitError,
    InvalidRangeError,
    ListenerError,
    SetAttributesError,
    UndefinedBehaviourError,
)
from replay.models.notification import Notification, NotificationKind
from replay.models.ram_block import Discard

PAGE = 4096
BASE = 1 << 32


def test_bug_01_without_a_listener_a_discard_leaves_the_mapping_stale() -> None:
    """What made guest_memfd exclude VFIO: nobody tells the container."""
    ram = merged.RamBlockAttributes(4 * PAGE)
    discards: list[Discard] = []
    ram.ram_block.on_discard = discards.append
    container = Type1Container()
    container.dma_map(BASE, 4 * PAGE, 0)
    view = FlatView()
    view.add(BASE, ram.mr)
    merged.kvm_convert_memory(view, KvmMemoryAttributes(), BASE, PAGE, True)
    assert discards[0].side is DiscardSide.SHARED
    assert container.entries.at(BASE) is not None
    excluded = CoordinatedDiscard()
    excluded.take(DiscardUser.GUEST_MEMFD_UNTIL_10_0)
    with pytest.raises(BusyError):
        excluded.take(DiscardUser.VFIO_TYPE1)


def test_bug_02_release_10_1_0_aborts_with_hugetlbfs_and_10_2_does_not() -> None:
    def region() -> MemoryRegion:
        return MemoryRegion.ram("huge", 4 << 20, page_size=2 << 20)

    first = merged.RamBlockAttributes_10_1_0(region())
    with pytest.raises(AbortError):
        merged.VfioListener(Type1Container()).register(first.mr.section())
    with pytest.raises(AbortError):
        first.state_change(0, PAGE, to_private=False)
    ram = merged.RamBlockAttributes(region())
    merged.VfioListener(Type1Container()).register(ram.mr.section())
    ram.state_change(0, PAGE, to_private=False)


def test_bug_02_a_4k_conversion_never_frees_the_shared_side_of_hugetlbfs() -> None:
    ram = merged.RamBlockAttributes(MemoryRegion.ram("huge", 4 << 20, page_size=2 << 20))
    discards: list[Discard] = []
    ram.ram_block.on_discard = discards.append
    view = FlatView()
    view.add(BASE, ram.mr)
    kvm = KvmMemoryAttributes()
    merged.kvm_convert_memory(view, kvm, BASE, PAGE, False)
    merged.kvm_convert_memory(view, kvm, BASE, PAGE, True)
    assert [d.side for d in discards] == [DiscardSide.GUEST_MEMFD]


@pytest.mark.parametrize("generation", [merged, sources], ids=["merged", "sources"])
def test_bug_03_a_request_across_two_regions_fails_half_done(generation: object) -> None:
    low = MemoryRegion.ram("low", 4 * PAGE)
    high = MemoryRegion.ram("high", 4 * PAGE)
    rams = [generation.RamBlockAttributes(mr) for mr in (low, high)]  # type: ignore[attr-defined]
    view = FlatView()
    view.add(BASE, low)
    view.add(BASE + low.size, high)
    kvm = KvmMemoryAttributes()
    with pytest.raises(InvalidRangeError) as refused:
        merged.kvm_convert_memory(view, kvm, BASE + 3 * PAGE, 2 * PAGE, True)
    assert refused.value.errno == errno.EINVAL
    assert kvm.private.ranges() == [(BASE + 3 * PAGE, BASE + 5 * PAGE)]
    assert all(ram.shared_ranges() == [] for ram in rams)


def test_bug_04_virtio_mem_needs_the_manager_with_several_sources() -> None:
    mr = MemoryRegion.ram("dimm", 8 << 20)
    merged.RamBlockAttributes(mr)
    with pytest.raises(BusyError):
        merged.VirtioMem(mr)
    other = MemoryRegion.ram("dimm", 8 << 20)
    ram = sources.RamBlockAttributes(other)
    mem = sources.VirtioMem(other)
    assert ram.manager is mem.manager
    container = Type1Container()
    sources.VfioListener(container).register(other.section(address=BASE))
    ram.state_change(0, 4 << 20, to_private=False)
    assert len(container.entries) == 0
    mem.plug_request(0, 1)
    assert [(r.iova, r.end) for r in container.entries.ranges()] == [(BASE, BASE + (2 << 20))]


@pytest.mark.parametrize("release", ["10.0", "10.1"])
def test_bug_06_too_many_blocks_for_dma_entry_limit(release: str) -> None:
    """32764 memory slots leave too little of 65535; virtio-mem, because v4 has no other check."""
    size = (40000 * PAGE) // (2 << 20) * (2 << 20)
    mr = MemoryRegion.ram("dimm", size, guest_memfd=False)
    container = Type1Container()
    if release == "10.0":
        v4.VirtioMem(mr, block_size=PAGE)
        v4.VfioRamDiscardListener(container).register(mr.section(), max_memslots=32764)
        assert [w.dma_max_mappings for w in container.dma_limit_warnings] == [65535]
    else:
        merged.VirtioMem(mr, block_size=PAGE)
        with pytest.raises(DmaLimitError):
            merged.VfioListener(container).register(mr.section(), max_memslots=32764)


def test_bug_06_the_limit_itself_is_enospc_on_the_65536th_page() -> None:
    ram = merged.RamBlockAttributes(512 << 20)
    container = Type1Container(dma_max_mappings=0)
    merged.VfioListener(container).register(ram.mr.section())
    with pytest.raises(EntryLimitError) as full:
        ram.state_change(0, 512 << 20, to_private=False)
    assert full.value.errno == errno.ENOSPC
    ram.state_change(0, 512 << 20, to_private=True)
    ram.state_change(0, 65535 * PAGE, to_private=False)
    assert container.iommu.dma_avail == 0


def test_bug_07_an_unmap_may_not_cut_an_entry() -> None:
    container = Type1Container()
    container.dma_map(BASE, 2 << 20, 0)
    with pytest.raises(BisectedEntryError) as cut:
        container.dma_unmap(BASE, PAGE)
    assert cut.value.errno == errno.EINVAL
    assert len(container.entries) == 1


def test_bug_08_the_merged_code_changes_the_attribute_before_the_unmap() -> None:
    kvm = KvmMemoryAttributes()
    ram = merged.RamBlockAttributes(4 * PAGE)
    view = FlatView()
    view.add(BASE, ram.mr)
    private_at_unmap: list[bool] = []

    class Watched(Type1Container):
        def dma_unmap(self, iova: int, size: int) -> int:
            private_at_unmap.append(iova in kvm.private)
            return super().dma_unmap(iova, size)

    merged.VfioListener(Watched()).register(ram.mr.section(address=BASE))
    merged.kvm_convert_memory(view, kvm, BASE, PAGE, False)
    merged.kvm_convert_memory(view, kvm, BASE, PAGE, True)
    assert private_at_unmap == [True]  # in-place conversion would refuse this order


@pytest.mark.parametrize("generation", [merged, sources], ids=["merged", "sources"])
def test_bug_10_a_failed_unmap_is_swallowed_and_the_conversion_succeeds(
    generation: object,
) -> None:
    ram = generation.RamBlockAttributes(4 * PAGE)  # type: ignore[attr-defined]
    container = Type1Container()
    merged.VfioListener(container).register(ram.mr.section(address=BASE))
    ram.state_change(0, PAGE, to_private=False)
    container.iommu.unmap_dma(BASE, PAGE)
    container.iommu.map_dma(BASE, 2 * PAGE, 0)  # a larger entry sits there now
    ram.state_change(0, PAGE, to_private=True)
    assert [error.errno for error in container.reported] == [errno.EINVAL]
    assert container.entries.at(BASE) is not None
    assert ram.shared_ranges() == []


@pytest.mark.parametrize(
    ("generation", "sides"),
    [
        (v4, [DiscardSide.SHARED]),
        (merged, [DiscardSide.SHARED]),
        (sources, [DiscardSide.SHARED, DiscardSide.GUEST_MEMFD]),
    ],
    ids=["v4", "merged", "sources"],
)
def test_bug_11_an_unplug_left_private_pages_allocated_until_11_1(
    generation: object, sides: list[DiscardSide]
) -> None:
    mr = MemoryRegion.ram("dimm", 4 << 20)
    mem = generation.VirtioMem(mr)  # type: ignore[attr-defined]
    mem.plug_request(0, 1)
    discards: list[Discard] = []
    assert mr.ram_block is not None
    mr.ram_block.on_discard = discards.append
    mem.unplug_request(0, 1)
    assert [d.side for d in discards] == sides


@pytest.mark.parametrize("generation", [v4, merged, sources], ids=["v4", "merged", "sources"])
def test_bug_12_a_callback_sees_the_new_state(generation: object) -> None:
    name = "RamBlockAttribute" if generation is v4 else "RamBlockAttributes"
    ram = getattr(generation, name)(4 * PAGE)
    seen: list[list[tuple[int, int]]] = []

    class Looking(generation.RecordingListener):  # type: ignore[name-defined, misc]
        def notify_populate(self, section: object) -> None:
            seen.append(ram.shared_ranges())

        notify_to_state_set = notify_populate

    manager = ram.manager if generation is sources else ram
    manager.register_listener(Looking(), ram.mr.section())
    ram.state_change(0, PAGE, to_private=False)
    assert seen == [[(0, PAGE)]]


@pytest.mark.parametrize("generation", [merged, sources], ids=["merged", "sources"])
def test_bug_13_a_mapping_is_lost_because_the_retry_is_a_no_op(generation: object) -> None:
    ram = generation.RamBlockAttributes(4 * PAGE)  # type: ignore[attr-defined]
    container = Type1Container(2, dma_max_mappings=0)
    merged.VfioListener(container).register(ram.mr.section(address=BASE))
    with pytest.raises(EntryLimitError):
        ram.state_change(0, 3 * PAGE, to_private=False)
    container.iommu.dma_avail = 100
    ram.state_change(0, 3 * PAGE, to_private=False)
    assert ram.shared_ranges() == [(0, 3 * PAGE)]
    assert len(container.entries) == 0
    ram.state_change(0, 3 * PAGE, to_private=True)
    ram.state_change(0, 3 * PAGE, to_private=False)
    assert len(container.entries) == 3


def test_bug_13_v4_undoes_the_bitmap_and_a_retry_maps() -> None:
    ram = v4.RamBlockAttribute(4 * PAGE)
    container = Type1Container(2)
    v4.VfioPrivateSharedListener(container).register(ram.mr.section(address=BASE))
    with pytest.raises(EntryLimitError):
        ram.state_change(0, 3 * PAGE, to_private=False)
    container.iommu.dma_avail = 100
    ram.state_change(0, 3 * PAGE, to_private=False)
    assert len(container.entries) == 3


def test_bug_14_a_refusal_leaves_the_earlier_populated_and_the_later_ignorant() -> None:
    ram = merged.RamBlockAttributes(4 * PAGE)
    log: list[Notification] = []
    for name, plan in (("oldest", {}), ("refuses", {1: errno.EIO}), ("newest", {})):
        ram.register_listener(
            merged.RecordingListener(name, log, refuse_populate=plan), ram.mr.section()
        )
    with pytest.raises(ListenerError):
        ram.state_change(0, PAGE, to_private=False)
    assert [(n.listener, n.kind) for n in log] == [
        ("newest", NotificationKind.POPULATE),
        ("refuses", NotificationKind.POPULATE),
    ]


def test_bug_15_the_attribute_stays_changed_when_the_state_change_fails() -> None:
    kvm = KvmMemoryAttributes()
    kvm.private.add(BASE, 4 * PAGE)
    ram = merged.RamBlockAttributes(4 * PAGE)
    ram.register_listener(
        merged.RecordingListener(refuse_populate={1: errno.ENOSPC}), ram.mr.section()
    )
    view = FlatView()
    view.add(BASE, ram.mr)
    with pytest.raises(ListenerError):
        merged.kvm_convert_memory(view, kvm, BASE, PAGE, False)
    assert BASE not in kvm.private


def test_bug_16_hot_plugging_a_device_without_dma_entries_ends_qemu() -> None:
    ram = merged.RamBlockAttributes(4 * PAGE)
    ram.state_change(0, 4 * PAGE, to_private=False)
    container = Type1Container(3, dma_max_mappings=0)
    with pytest.raises(ExitError) as end:
        merged.VfioListener(container).register(ram.mr.section())
    assert end.value.status == 1


@pytest.mark.parametrize("generation", [v4, sources], ids=["v4", "sources"])
def test_bug_16_in_the_other_generations_it_is_only_printed_about(generation: object) -> None:
    name = "RamBlockAttribute" if generation is v4 else "RamBlockAttributes"
    ram = getattr(generation, name)(4 * PAGE)
    ram.state_change(0, PAGE, to_private=False)
    ram.state_change(2 * PAGE, PAGE, to_private=False)
    listener = generation.RecordingListener(  # type: ignore[attr-defined]
        refuse_populate={2: errno.ENOSPC}
    )
    manager = ram.manager if generation is sources else ram
    manager.register_listener(listener, ram.mr.section())
    assert [n.errno for n in listener.log] == [0, errno.ENOSPC]
    assert manager.listeners == (listener,)


def test_bug_17_sizes_below_a_block_are_misread_and_overrun_the_heap_in_v4() -> None:
    ram = v4.RamBlockAttribute(256 * PAGE)
    with pytest.raises(UndefinedBehaviourError):
        ram.state_change(0, 100, to_private=False)
    elsewhere = v4.RamBlockAttribute(256 * PAGE)
    elsewhere.state_change(PAGE, 100, to_private=False)
    assert elsewhere.shared_ranges() == []
    mixed = v4.RamBlockAttribute(256 * PAGE)
    mixed.state_change(0, PAGE, to_private=False)
    with pytest.raises(UndefinedBehaviourError):
        mixed.state_change(0, 64 * PAGE + 1, to_private=False)
    fits = v4.RamBlockAttribute(256 * PAGE)
    fits.state_change(0, PAGE, to_private=False)
    fits.state_change(0, 63 * PAGE + 1, to_private=False)
    assert fits.shared_ranges() == [(0, 64 * PAGE)]


def test_bug_17_the_other_generations_refuse_such_sizes() -> None:
    for ram in (merged.RamBlockAttributes(PAGE), sources.RamBlockAttributes(PAGE)):
        with pytest.raises(InvalidRangeError) as refused:
            ram.state_change(0, 100, to_private=False)
        assert refused.value.returned == -errno.EINVAL


def test_bug_18_v4_aborts_when_an_attribute_or_an_unmap_fails_to_private() -> None:
    kvm = KvmMemoryAttributes()
    ram = v4.RamBlockAttribute(4 * PAGE)
    v4.CVMPrivateSharedListener(kvm).register(ram.mr.section(address=BASE))
    ram.state_change(0, PAGE, to_private=False)
    kvm.fail(1, errno.ENOMEM)
    with pytest.raises(AbortError) as end:
        ram.state_change(0, PAGE, to_private=True)
    assert isinstance(end.value.__cause__, SetAttributesError)


def test_bug_18_v4_aborts_when_that_happens_inside_a_rollback() -> None:
    ram = v4.RamBlockAttribute(4 * PAGE)
    ram.register_listener(
        v4.RecordingListener(priority=0, refuse_discard={1: errno.ENOMEM}), ram.mr.section()
    )
    ram.register_listener(v4.RecordingListener(refuse_populate={1: errno.ENOSPC}), ram.mr.section())
    with pytest.raises(AbortError) as end:
        ram.state_change(0, PAGE, to_private=False)
    assert end.value.function == "ram_block_attribute_notify_to_shared"


def test_bug_19_the_rollback_of_one_listener_unmaps_what_another_mapped() -> None:
    container = Type1Container()
    rams = [merged.RamBlockAttributes(4 * PAGE) for _ in range(2)]
    for ram in rams:
        merged.VfioListener(container).register(ram.mr.section(address=BASE))
    rams[0].state_change(2 * PAGE, PAGE, to_private=False)
    with pytest.raises(EntryExistsError):
        rams[1].state_change(0, 4 * PAGE, to_private=False)
    assert len(container.entries) == 0
    assert rams[0].shared_ranges() == [(2 * PAGE, 3 * PAGE)]


def test_bug_20_a_refusal_by_the_dma_limit_leaves_listener_and_mappings() -> None:
    ram = merged.RamBlockAttributes(4 * PAGE)
    ram.state_change(0, 2 * PAGE, to_private=False)
    container = Type1Container(dma_max_mappings=100)
    merged.VfioMemoryListener(container).region_add(ram.mr.section())
    assert isinstance(container.error, DmaLimitError)
    assert len(container.entries) == 2
    assert len(ram.listeners) == 1


def test_bug_20_it_is_fatal_once_the_container_is_initialized() -> None:
    ram = merged.RamBlockAttributes(4 * PAGE)
    container = Type1Container(dma_max_mappings=100)
    container.initialized = True
    with pytest.raises(AbortError):
        merged.VfioMemoryListener(container).region_add(ram.mr.section())


def test_bug_21_replayed_sections_of_the_several_sources_manager_carry_address_0() -> None:
    answers = {}
    for generation in (merged, sources):
        ram = generation.RamBlockAttributes(4 * PAGE)
        container = Type1Container()
        section = ram.mr.section(address=BASE)
        generation.VfioListener(container).register(section)
        ram.state_change(2 * PAGE, PAGE, to_private=False)
        answers[generation] = generation.dirty_queries(container, section)
    assert answers[merged] == [DirtyQuery(BASE + 2 * PAGE, PAGE, 2 * PAGE)]
    assert answers[sources] == [DirtyQuery(0, PAGE, 2 * PAGE)]


def test_bug_22_the_dirty_sync_reads_a_listener_where_there_is_none() -> None:
    ram = merged.RamBlockAttributes(4 * PAGE)
    container = Type1Container()
    section = ram.mr.section(address=BASE)
    merged.VfioListener(container).register(section)
    merged.sync_ram_discard_listener_dirty_bitmap(container, section)
    ram.state_change(0, PAGE, to_private=False)
    with pytest.raises(UndefinedBehaviourError):
        merged.sync_ram_discard_listener_dirty_bitmap(container, section)


def test_bug_23_a_request_that_begins_in_a_hole_converts_a_shifted_range() -> None:
    ram = merged.RamBlockAttributes(8 * PAGE)
    view = FlatView()
    view.add(BASE, ram.mr)
    kvm = KvmMemoryAttributes()
    merged.kvm_convert_memory(view, kvm, BASE - 2 * PAGE, 4 * PAGE, False)
    assert ram.shared_ranges() == [(0, 4 * PAGE)]  # two blocks more than were asked for
    assert kvm.calls[0].gpa == BASE - 2 * PAGE


@pytest.mark.parametrize("generation", [v4, merged, sources], ids=["v4", "merged", "sources"])
def test_bug_24_a_slot_made_again_forgets_what_is_shared(generation: object) -> None:
    name = "RamBlockAttribute" if generation is v4 else "RamBlockAttributes"
    ram = getattr(generation, name)(4 * PAGE)
    kvm = KvmMemoryAttributes()
    slots = generation.KvmMemorySlots(kvm)  # type: ignore[attr-defined]
    section = ram.mr.section(address=BASE)
    slots.region_add(section)
    ram.state_change(0, PAGE, to_private=False)
    slots.region_del(section)
    slots.region_add(section)
    assert BASE in kvm.private
    assert ram.shared_ranges() == [(0, PAGE)]
    if generation is v4:  # the replay of the listener did make it shared, too early
        assert [call.private for call in kvm.calls[-2:]] == [False, True]


def test_bug_25_enoent_taken_for_success_hides_a_cut_unmap() -> None:
    container = IommufdContainer()
    container.dma_map(BASE, PAGE, 0)
    container.dma_map(BASE + PAGE, 4 * PAGE, PAGE)
    assert container.dma_unmap(BASE, 2 * PAGE) == PAGE
    assert [error.errno for error in container.reported] == [errno.ENOENT]
    assert container.entries.at(BASE + PAGE) is not None


def test_bug_27_an_unregistration_unmaps_what_another_listener_mapped() -> None:
    container = Type1Container()
    rams = [merged.RamBlockAttributes(4 * PAGE) for _ in range(2)]
    sections = [ram.mr.section(address=BASE) for ram in rams]
    for section in sections:
        merged.VfioListener(container).register(section)
    rams[0].state_change(0, PAGE, to_private=False)
    merged.VfioListener.unregister(container, sections[1])
    assert len(container.entries) == 0
    assert rams[0].shared_ranges() == [(0, PAGE)]


def test_bug_27_v4_unmaps_only_what_the_listener_was_told() -> None:
    container = Type1Container()
    rams = [v4.RamBlockAttribute(4 * PAGE) for _ in range(2)]
    sections = [ram.mr.section(address=BASE) for ram in rams]
    for section in sections:
        v4.VfioPrivateSharedListener(container).register(section)
    rams[0].state_change(0, PAGE, to_private=False)
    v4.VfioPrivateSharedListener.unregister(container, sections[1])
    assert len(container.entries) == 1


def test_bug_28_the_v4_listener_checks_neither_alignment_nor_the_limit() -> None:
    ram = v4.RamBlockAttribute(4 * PAGE)
    container = Type1Container(dma_max_mappings=1)
    v4.VfioPrivateSharedListener(container).register(ram.mr.section(100, PAGE, address=7))
    assert len(container.vpsl_list) == 1
    assert container.dma_limit_warnings == []
    merged_ram = merged.RamBlockAttributes(4 * PAGE)
    with pytest.raises(AbortError):
        merged.VfioListener(Type1Container()).register(merged_ram.mr.section(100, PAGE))


def test_releasing_what_was_never_taken_is_not_refused() -> None:
    discard = CoordinatedDiscard()
    discard.release(DiscardRequest.REQUIRE)
    assert discard.is_required
