"""virtio-mem: its own bitmap, and the order of bitmap and callbacks the other way round."""

import errno
from typing import Any

import pytest

from replay.models import DiscardSide, MemoryRegion, Type1Container, merged, sources, v4
from replay.models.errors import AbortError, BusyError, InvalidRangeError, ListenerError
from replay.models.notification import Notification, NotificationKind
from replay.models.ram_block import Discard
from replay.models.virtio_mem_device import VirtioMemResponse

BLOCK = 2 << 20
BASE = 1 << 32
POPULATE, DISCARD = NotificationKind.POPULATE, NotificationKind.DISCARD


class V4Recorder(v4.RamDiscardListener):
    def __init__(self, name: str, log: list[Notification], refuse: int = 0) -> None:
        self.name, self.log, self.refuse_at, self.calls = name, log, refuse, 0

    def notify_to_state_set(self, section: Any) -> None:
        self.calls += 1
        bad = errno.ENOSPC if self.calls == self.refuse_at else 0
        self.log.append(Notification(self.name, POPULATE, section, bad))
        if bad:
            raise ListenerError("refused", bad)

    def notify_to_state_clear(self, section: Any) -> None:
        self.log.append(Notification(self.name, DISCARD, section))


class Device:
    def __init__(self, generation: str, blocks: int = 4) -> None:
        self.generation = generation
        self.mr = MemoryRegion.ram("dimm", blocks * BLOCK, guest_memfd=False)
        self.mem: Any = {"v4": v4, "merged": merged, "sources": sources}[generation].VirtioMem(
            self.mr, address=BASE
        )
        self.manager: Any = self.mem.manager if generation == "sources" else self.mem
        self.log: list[Notification] = []
        self.steps: list[str] = []
        assert self.mr.ram_block is not None
        self.mr.ram_block.on_discard = lambda d: self.steps.append(f"discard {d.size:#x}")

    def listen(self, name: str, refuse: int = 0) -> Any:
        listener: Any
        if self.generation == "v4":
            listener = V4Recorder(name, self.log, refuse)
        else:
            plan = {refuse: errno.ENOSPC} if refuse else {}
            listener = merged.RecordingListener(name, self.log, refuse_populate=plan)
        self.manager.register_listener(listener, self.mr.section(address=BASE))
        return listener

    def heard(self) -> list[tuple[str, NotificationKind]]:
        return [(n.listener, n.kind) for n in self.log]


@pytest.fixture(params=["v4", "merged", "sources"])
def device(request: pytest.FixtureRequest) -> Device:
    return Device(request.param)


def test_a_plug_tells_the_listeners_before_the_bitmap_changes(device: Device) -> None:
    seen: list[int] = []
    listener = device.listen("a")
    tell = listener.notify_to_state_set if device.generation == "v4" else listener.notify_populate

    def look(section: Any) -> None:
        seen.append(device.mem.size)
        tell(section)

    name = "notify_to_state_set" if device.generation == "v4" else "notify_populate"
    setattr(listener, name, look)
    assert device.mem.plug_request(BASE, 1) is VirtioMemResponse.ACK
    assert seen == [0]
    assert device.mem.size == BLOCK


def test_an_unplug_discards_then_tells_then_clears(device: Device) -> None:
    listener = device.listen("a")
    device.mem.plug_request(BASE, 2)
    name = "notify_to_state_clear" if device.generation == "v4" else "notify_discard"
    setattr(listener, name, lambda _: device.steps.append(f"told at {device.mem.size:#x}"))
    assert device.mem.unplug_request(BASE, 2) is VirtioMemResponse.ACK
    assert device.steps == [f"discard {2 * BLOCK:#x}", f"told at {2 * BLOCK:#x}"]
    assert device.mem.size == 0


def test_a_refused_plug_is_busy_and_throws_the_ram_away(device: Device) -> None:
    device.listen("oldest")
    device.listen("refuses", refuse=1)
    device.listen("newest")
    assert device.mem.plug_request(BASE, 1) is VirtioMemResponse.BUSY
    told_back = [("newest", DISCARD)]
    if device.generation == "sources":  # the one that refused is told as well
        told_back.append(("refuses", DISCARD))
    assert device.heard() == [("newest", POPULATE), ("refuses", POPULATE), *told_back]
    assert device.steps == [f"discard {BLOCK:#x}"]
    assert device.mem.size == 0
    device.listen("again", refuse=1)
    with pytest.raises(BusyError) as busy:
        device.mem.set_block_state(0, BLOCK, True)
    assert busy.value.errno == errno.EBUSY


def test_requests_outside_or_against_the_state_are_answered_like_upstream(device: Device) -> None:
    mem = device.mem
    assert mem.plug_request(BASE + 1, 1) is VirtioMemResponse.ERROR
    assert mem.plug_request(BASE - BLOCK, 1) is VirtioMemResponse.ERROR
    assert mem.plug_request(BASE, 5) is VirtioMemResponse.ERROR
    assert mem.plug_request(BASE, 0) is VirtioMemResponse.ERROR
    assert mem.unplug_request(BASE, 1) is VirtioMemResponse.ERROR
    assert mem.plug_request(BASE, 1) is VirtioMemResponse.ACK
    assert mem.plug_request(BASE, 1) is VirtioMemResponse.ERROR
    mem.requested_size = BLOCK
    assert mem.plug_request(BASE + BLOCK, 1) is VirtioMemResponse.NACK
    with pytest.raises(InvalidRangeError):
        mem.set_block_state(0, 100, True)
    with pytest.raises(InvalidRangeError):
        mem.set_block_state(4 * BLOCK, BLOCK, True)


def test_unplug_all_sends_one_discard_of_the_whole_section(device: Device) -> None:
    device.listen("a")
    device.mem.plug_request(BASE, 1)
    device.mem.plug_request(BASE + 2 * BLOCK, 1)
    device.log.clear()
    device.steps.clear()
    assert device.mem.unplug_all_request() is VirtioMemResponse.ACK
    assert [(n.kind, n.section.size) for n in device.log] == [(DISCARD, 4 * BLOCK)]
    assert device.steps == [f"discard {4 * BLOCK:#x}"]
    assert device.mem.unplug_all_request() is VirtioMemResponse.ACK
    assert len(device.log) == 1


@pytest.mark.parametrize("generation", ["v4", "merged"])
def test_a_listener_without_double_discard_hears_of_plugged_runs_only(generation: str) -> None:
    device = Device(generation)
    device.listen("a").double_discard_supported = False
    device.mem.plug_request(BASE, 1)
    device.mem.plug_request(BASE + 2 * BLOCK, 1)
    device.log.clear()
    device.mem.unplug_all_request()
    assert [n.section.offset_within_region for n in device.log] == [0, 2 * BLOCK]


def test_a_new_listener_hears_of_plugged_runs_and_a_refusal_is_only_printed(
    device: Device,
) -> None:
    device.mem.plug_request(BASE, 1)
    device.mem.plug_request(BASE + 2 * BLOCK, 2)
    device.listen("a", refuse=2)
    assert [(n.section[1], n.section[2], n.errno) for n in device.log] == [
        (0, BLOCK, 0),
        (2 * BLOCK, 2 * BLOCK, errno.ENOSPC),
    ]


def test_an_error_of_the_replay_fails_an_incoming_migration(device: Device) -> None:
    device.listen("a", refuse=2)
    device.mem.plug_request(BASE, 1)
    with pytest.raises(ListenerError):
        device.mem.post_load()


def test_partial_blocks_round_outwards(device: Device) -> None:
    device.mem.plug_request(BASE, 1)
    asked = device.mem.is_state_set if device.generation == "v4" else device.mem.is_populated
    assert asked(device.mr.section(4096, 4096))
    assert not asked(device.mr.section(BLOCK - 4096, 8192))
    assert not asked(device.mr.section(0, 5 * BLOCK))


def test_vfio_maps_device_blocks_and_unmaps_them(device: Device) -> None:
    container = Type1Container()
    package: Any = v4 if device.generation == "v4" else merged
    listener = package.VfioMemoryListener(container)
    section = device.mr.section(address=BASE)
    listener.region_add(section)
    device.mem.plug_request(BASE, 3)
    assert [entry.size for entry in container.entries] == [BLOCK] * 3
    device.mem.unplug_request(BASE + BLOCK, 1)
    assert [entry.iova - BASE for entry in container.entries] == [0, 2 * BLOCK]
    listener.region_del(section)
    assert len(container.entries) == 0
    with pytest.raises(AbortError):
        listener.region_del(section)


def test_unregistering_forgets_a_listener(device: Device) -> None:
    listener = device.listen("a")
    device.manager.unregister_listener(listener)
    device.log.clear()
    device.mem.plug_request(BASE, 1)
    assert device.log == []
    with pytest.raises(ValueError, match="not registered"):
        device.manager.unregister_listener(listener)


def test_with_two_sources_both_must_have_populated() -> None:
    mr = MemoryRegion.ram("dimm", 4 * BLOCK)
    discards: list[Discard] = []
    assert mr.ram_block is not None
    mr.ram_block.on_discard = discards.append
    ram = sources.RamBlockAttributes(mr)
    mem = sources.VirtioMem(mr, address=BASE)
    log = sources.RecordingListener()
    ram.manager.register_listener(log, mr.section(address=BASE))
    mem.plug_request(BASE, 2)
    assert log.log == []
    ram.state_change(BLOCK, 2 * BLOCK, to_private=False)
    assert [(n.section[1], n.section[2]) for n in log.log] == [(BLOCK, BLOCK)]
    assert ram.manager.get_min_granularity(mr) == 4096
    mem.unplug_request(BASE + BLOCK, 1)
    assert [d.side for d in discards] == [DiscardSide.SHARED, DiscardSide.GUEST_MEMFD]
    ram.state_change(BLOCK, BLOCK, to_private=True)
    assert [n.kind for n in log.log] == [POPULATE, DISCARD]  # not discarded twice
    ram.manager.del_source(mem)
    assert log.log[-1].kind is POPULATE
    assert (log.log[-1].section[1], log.log[-1].section[2]) == (2 * BLOCK, BLOCK)
