"""One test for each patch of "Enable shared device assignment" v4, 7 April 2025."""

import errno

import pytest

from replay.models import (
    BlockBitmap,
    CoordinatedDiscard,
    DiscardUser,
    FlatView,
    KvmMemoryAttributes,
    MemoryRegion,
    MemoryRegionSection,
    Type1Container,
    v4,
)
from replay.models.errors import AbortError, BusyError, ListenerError
from replay.models.notification import Notification, NotificationKind

K = 1024
PAGE = 4 * K
POPULATE, DISCARD = NotificationKind.POPULATE, NotificationKind.DISCARD


def heard(log: list[Notification]) -> list[tuple[str, NotificationKind]]:
    return [(n.listener, n.kind) for n in log]


def test_patch_01_an_intersection_does_not_wrap_at_two_to_the_64() -> None:
    mr = MemoryRegion("whole", (1 << 64) - 1)
    section = MemoryRegionSection(mr, 1 << 63, 1 << 63, 0x1000)
    assert section.intersect_range((1 << 64) - PAGE, 2 * PAGE) == MemoryRegionSection(
        mr, (1 << 64) - PAGE, PAGE, (1 << 63) - PAGE + 0x1000
    )
    huge = MemoryRegionSection(mr, 0, 1 << 65, 0)
    part = huge.intersect_range((1 << 64) - 1, (1 << 64) - 1)
    assert part is not None
    assert part.size == (1 << 64) - 1


def test_patch_01_ranges_that_only_touch_do_not_intersect() -> None:
    mr = MemoryRegion("ram", 16 * PAGE)
    section = mr.section(PAGE, PAGE, address=0x100000)
    assert section.intersect_range(0, PAGE) is None
    assert section.intersect_range(2 * PAGE, PAGE) is None
    assert section.intersect_range(PAGE, 0) is None
    assert section.intersect_range(0, 16 * PAGE) == section


def test_patch_02_second_manager_is_refused() -> None:
    mr = MemoryRegion.ram("ram0", 4 << 20)
    v4.RamBlockAttribute(mr)
    with pytest.raises(BusyError) as refused:
        v4.VirtioMem(mr)
    assert refused.value.errno == errno.EBUSY
    mr.set_manager(None)
    v4.VirtioMem(mr)


def test_patch_03_both_replays_take_one_kind_of_callback_and_stop_where_it_fails() -> None:
    ram = v4.RamBlockAttribute(6 * PAGE)
    for offset in (PAGE, 3 * PAGE, 5 * PAGE):
        ram.state_change(offset, PAGE, to_private=False)
    for replay, first in ((ram.replay_on_state_set, PAGE), (ram.replay_on_state_clear, 0)):
        seen: list[int] = []

        def stop_at_second(section: MemoryRegionSection, seen: list[int] = seen) -> None:
            seen.append(section.offset_within_region)
            if len(seen) == 2:
                raise ListenerError("enough", errno.EIO)

        with pytest.raises(ListenerError) as stopped:
            replay(ram.mr.section(), stop_at_second)
        assert stopped.value.errno == errno.EIO
        assert seen == [first, first + 2 * PAGE]


def test_patch_04_virtio_mem_is_a_ram_discard_manager_and_a_generic_one() -> None:
    mem = v4.VirtioMem(MemoryRegion.ram("dimm", 4 << 20, guest_memfd=False))
    assert isinstance(mem, v4.RamDiscardManager)
    assert isinstance(mem, v4.GenericStateManager)
    assert not isinstance(mem, v4.PrivateSharedManager)
    assert mem.get_min_granularity(mem.mr) == 2 << 20


def test_patch_05_a_private_shared_manager_is_no_ram_discard_manager() -> None:
    ram = v4.RamBlockAttribute(PAGE)
    assert isinstance(ram, v4.PrivateSharedManager)
    assert isinstance(ram, v4.GenericStateManager)
    assert not isinstance(ram, v4.RamDiscardManager)


def test_patch_06_vfio_maps_shared_memory_in_4k_and_unmaps_it_at_once() -> None:
    ram = v4.RamBlockAttribute(16 * PAGE)
    container = Type1Container()
    v4.VfioMemoryListener(container).region_add(ram.mr.section(address=1 << 32))
    assert len(container.entries) == 0
    ram.state_change(0, 8 * PAGE, to_private=False)
    assert [entry.size for entry in container.entries] == [PAGE] * 8
    ram.state_change(2 * PAGE, 3 * PAGE, to_private=True)
    assert [(r.iova, r.entries) for r in container.entries.ranges()] == [
        (1 << 32, 2),
        ((1 << 32) + 5 * PAGE, 3),
    ]
    v4.VfioMemoryListener(container).region_del(ram.mr.section(address=1 << 32))
    assert len(container.entries) == 0
    assert container.vpsl_list == []


def test_patch_07_all_of_a_block_is_private_at_first() -> None:
    ram = v4.RamBlockAttribute(16 * PAGE + 1)
    assert ram.shared_ranges() == []
    assert len(ram.bitmap.bits) == 17
    assert isinstance(ram.bitmap, BlockBitmap)
    assert not ram.is_state_set(ram.mr.section(0, PAGE))


def test_patch_07_pages_of_another_size_are_an_assertion() -> None:
    ram = v4.RamBlockAttribute(MemoryRegion.ram("huge", 4 << 20, page_size=2 << 20))
    with pytest.raises(AbortError) as end:
        ram.state_change(0, PAGE, to_private=False)
    assert end.value.function == "ram_block_attribute_get_block_size"


def test_patch_08_a_mixed_range_notifies_block_by_block_and_a_uniform_one_once() -> None:
    ram = v4.RamBlockAttribute(8 * PAGE)
    listener = v4.RecordingListener()
    ram.register_listener(listener, ram.mr.section())
    ram.state_change(2 * PAGE, PAGE, to_private=False)
    ram.state_change(0, 4 * PAGE, to_private=False)
    ram.state_change(0, 4 * PAGE, to_private=False)
    ram.state_change(0, 4 * PAGE, to_private=True)
    assert [(n.section[1], n.section[2]) for n in listener.log] == [
        (2 * PAGE, PAGE),
        (0, PAGE),
        (PAGE, PAGE),
        (3 * PAGE, PAGE),
        (0, 4 * PAGE),
    ]


def test_patch_08_a_failure_to_shared_leaves_the_state_as_it_was() -> None:
    ram = v4.RamBlockAttribute(8 * PAGE)
    log: list[Notification] = []
    first = v4.RecordingListener("first", log)
    second = v4.RecordingListener("second", log, refuse_populate={3: errno.ENOSPC})
    ram.register_listener(first, ram.mr.section())
    ram.register_listener(second, ram.mr.section())
    ram.state_change(PAGE, PAGE, to_private=False)
    log.clear()
    with pytest.raises(ListenerError) as refused:
        ram.state_change(0, 4 * PAGE, to_private=False)
    assert refused.value.errno == errno.ENOSPC
    assert ram.shared_ranges() == [(PAGE, 2 * PAGE)]
    assert [(n.listener, n.kind, n.section[1] // PAGE) for n in log] == [
        ("first", POPULATE, 0),
        ("second", POPULATE, 0),
        ("first", POPULATE, 2),
        ("second", POPULATE, 2),
        ("first", DISCARD, 2),
        ("second", DISCARD, 0),
        ("first", DISCARD, 0),
    ]


def test_patch_09_a_block_with_guest_memfd_comes_with_its_attribute() -> None:
    mr = MemoryRegion.ram("ram0", 4 * PAGE)
    ram = v4.ram_block_add(mr, CoordinatedDiscard())
    assert mr.manager is ram
    assert mr.ram_block is not None
    assert mr.ram_block.attributes is ram
    with pytest.raises(ValueError, match="no guest_memfd"):
        v4.ram_block_add(MemoryRegion.ram("rom", PAGE, guest_memfd=False), CoordinatedDiscard())


def test_patch_10_a_discard_that_fails_is_fatal() -> None:
    ram = v4.RamBlockAttribute(4 * PAGE)
    ram.register_listener(v4.RecordingListener(refuse_discard={1: errno.EINVAL}), ram.mr.section())
    ram.state_change(0, 2 * PAGE, to_private=False)
    with pytest.raises(AbortError) as end:
        ram.state_change(0, 2 * PAGE, to_private=True)
    assert end.value.function == "ram_block_attribute_notify_to_private"


def test_patch_10_an_unregistration_ignores_it() -> None:
    ram = v4.RamBlockAttribute(4 * PAGE)
    listener = v4.RecordingListener(refuse_discard={1: errno.EINVAL})
    ram.register_listener(listener, ram.mr.section())
    ram.state_change(0, PAGE, to_private=False)
    ram.state_change(2 * PAGE, PAGE, to_private=False)
    listener.log.clear()
    ram.unregister_listener(listener)
    assert [n.errno for n in listener.log] == [errno.EINVAL, 0]
    assert ram.listeners == ()


def test_patch_11_attributes_change_only_for_the_addresses_of_a_listener() -> None:
    kvm = KvmMemoryAttributes()
    mr = MemoryRegion.ram("ram0", 8 * PAGE)
    ram = v4.RamBlockAttribute(mr)
    v4.CVMPrivateSharedListener(kvm).register(mr.section(0, 2 * PAGE, address=0x100000))
    view = FlatView()
    view.add(0x100000, mr, size=4 * PAGE)
    v4.kvm_convert_memory(view, 0x100000, 4 * PAGE, False)
    assert [call[:3] for call in kvm.calls] == [(0x100000, 2 * PAGE, False)]
    assert ram.shared_ranges() == [(0, 4 * PAGE)]


def test_patch_11_a_failed_attribute_undoes_the_conversion() -> None:
    kvm = KvmMemoryAttributes()
    mr = MemoryRegion.ram("ram0", 8 * PAGE)
    ram = v4.RamBlockAttribute(mr)
    v4.CVMPrivateSharedListener(kvm).register(mr.section(address=0x100000))
    view = FlatView()
    view.add(0x100000, mr)
    kvm.fail(1, errno.ENOMEM)
    with pytest.raises(Exception, match="ENOMEM"):
        v4.kvm_convert_memory(view, 0x100000, PAGE, False)
    assert ram.shared_ranges() == []
    assert mr.ram_block is not None


def test_patch_12_priorities_order_to_shared_and_reverse_to_private() -> None:
    ram = v4.RamBlockAttribute(4 * PAGE)
    log: list[Notification] = []
    for name, priority in (("late", 20), ("vfio", 10), ("kvm", 0), ("vfio too", 10)):
        ram.register_listener(v4.RecordingListener(name, log, priority=priority), ram.mr.section())
    ram.state_change(0, PAGE, to_private=False)
    ram.state_change(0, PAGE, to_private=True)
    forward = ["kvm", "vfio", "vfio too", "late"]
    assert heard(log) == [(n, POPULATE) for n in forward] + [(n, DISCARD) for n in forward[::-1]]


def test_patch_12_the_attribute_comes_first_to_shared_and_last_to_private() -> None:
    kvm = KvmMemoryAttributes()
    ram = v4.RamBlockAttribute(4 * PAGE)
    seen: list[tuple[str, int]] = []

    class Watched(Type1Container):
        def dma_map(self, iova: int, size: int, vaddr: int, readonly: bool = False) -> None:
            seen.append(("map", len(kvm.calls)))
            super().dma_map(iova, size, vaddr, readonly)

        def dma_unmap(self, iova: int, size: int) -> int:
            seen.append(("unmap", len(kvm.calls)))
            return super().dma_unmap(iova, size)

    v4.VfioPrivateSharedListener(Watched()).register(ram.mr.section())
    v4.CVMPrivateSharedListener(kvm).register(ram.mr.section())
    ram.state_change(0, PAGE, to_private=False)
    ram.state_change(0, PAGE, to_private=True)
    assert seen == [("map", 1), ("unmap", 1)]
    assert [call.private for call in kvm.calls] == [False, True]


def test_patch_13_vfio_and_guest_memfd_coexist_only_since_it() -> None:
    before = CoordinatedDiscard()
    before.take(DiscardUser.VFIO_TYPE1)
    with pytest.raises(BusyError):
        before.take(DiscardUser.GUEST_MEMFD_UNTIL_10_0)
    since = CoordinatedDiscard()
    since.take(DiscardUser.VFIO_TYPE1)
    v4.ram_block_add(MemoryRegion.ram("ram0", PAGE), since)
    with pytest.raises(BusyError):
        since.take(DiscardUser.VFIO_SPAPR)
