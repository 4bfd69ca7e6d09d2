"""Runs, partial blocks, and what a manager with several sources does with its sources."""

import errno
from typing import Any

import pytest

from replay.models import MemoryRegion, MemoryRegionSection, merged, sources, v4
from replay.models.errors import (
    AbortError,
    BusyError,
    ListenerError,
    NotFoundError,
    UndefinedBehaviourError,
)
from replay.models.notification import Notification, NotificationKind

PAGE = 4096
BASE = 1 << 32
POPULATE, DISCARD = NotificationKind.POPULATE, NotificationKind.DISCARD


def make(generation: str, size: int) -> tuple[Any, Any]:
    """The RAM, and the manager under the merged names."""
    if generation == "v4":
        ram = v4.RamBlockAttribute(size)
        return ram, _V4Manager(ram)
    if generation == "merged":
        plain = merged.RamBlockAttributes(size)
        return plain, plain
    several = sources.RamBlockAttributes(size)
    return several, several.manager


class _V4Manager:
    def __init__(self, ram: v4.RamBlockAttribute) -> None:
        self.is_populated = ram.is_state_set
        self.replay_populated = ram.replay_on_state_set
        self.replay_discarded = ram.replay_on_state_clear


everywhere = pytest.mark.parametrize("generation", ["v4", "merged", "sources"])


@everywhere
def test_less_than_a_block_is_populated_everywhere_but_in_block_0(generation: str) -> None:
    ram, manager = make(generation, 4 * PAGE)
    assert not manager.is_populated(ram.mr.section(0, 100))
    assert manager.is_populated(ram.mr.section(PAGE, 100))
    ram.state_change(0, PAGE, to_private=False)
    assert not manager.is_populated(ram.mr.section(0, 100))
    assert manager.is_populated(ram.mr.section(100, PAGE + 100))


@everywhere
def test_a_query_past_the_bitmap_is_not_predicted(generation: str) -> None:
    ram, manager = make(generation, 4 * PAGE)
    with pytest.raises(UndefinedBehaviourError):
        manager.is_populated(ram.mr.section(3 * PAGE, 2 * PAGE))


def runs(replay: Any, section: MemoryRegionSection) -> list[tuple[int, int]]:
    heard: list[tuple[int, int]] = []
    replay(section, lambda s: heard.append((s[1], s[2])))
    return heard


@everywhere
def test_runs_are_clipped_to_the_section(generation: str) -> None:
    ram, manager = make(generation, 8 * PAGE)
    ram.state_change(0, 2 * PAGE, to_private=False)
    ram.state_change(4 * PAGE, 3 * PAGE, to_private=False)
    section = ram.mr.section(PAGE, 5 * PAGE, address=BASE)
    assert runs(manager.replay_populated, section) == [(PAGE, PAGE), (4 * PAGE, 2 * PAGE)]
    assert runs(manager.replay_discarded, section) == [(2 * PAGE, 2 * PAGE)]


@pytest.mark.parametrize("generation", ["v4", "merged"])
def test_an_unaligned_section_starts_in_the_block_that_holds_its_start(generation: str) -> None:
    ram, manager = make(generation, 4 * PAGE)
    ram.state_change(PAGE, PAGE, to_private=False)
    section = ram.mr.section(PAGE + 100, PAGE)
    assert runs(manager.replay_populated, section) == [(PAGE + 100, PAGE - 100)]
    assert runs(manager.replay_discarded, section) == [(2 * PAGE, 100)]


def test_with_sources_an_unaligned_start_shifts_the_grid() -> None:
    ram, manager = make("sources", 4 * PAGE)
    ram.state_change(PAGE, PAGE, to_private=False)
    section = ram.mr.section(PAGE + 100, PAGE)
    assert runs(manager.replay_populated, section) == [(PAGE + 100, PAGE)]


@pytest.mark.parametrize("generation", ["v4", "merged"])
def test_a_discarded_tail_may_reach_past_an_odd_region(generation: str) -> None:
    ram, manager = make(generation, PAGE + 100)
    section = ram.mr.section(0, 4 * PAGE)
    assert runs(manager.replay_discarded, section) == [(0, 2 * PAGE)]


@pytest.mark.parametrize("supported", [True, False])
def test_the_merged_code_discards_all_at_once_or_run_by_run(supported: bool) -> None:
    ram = merged.RamBlockAttributes(8 * PAGE)
    listener = merged.RecordingListener(double_discard_supported=supported)
    ram.register_listener(listener, ram.mr.section())
    ram.state_change(PAGE, PAGE, to_private=False)
    ram.state_change(4 * PAGE, PAGE, to_private=False)
    listener.log.clear()
    ram.unregister_listener(listener)
    heard = [(n.section[1], n.section[2]) for n in listener.log]
    assert heard == ([(0, 8 * PAGE)] if supported else [(PAGE, PAGE), (4 * PAGE, PAGE)])


class TwoSources:
    """A manager with RamBlockAttributes and virtio-mem, all of it populated in both."""

    def __init__(self) -> None:
        self.mr = MemoryRegion.ram("dimm", 8 * PAGE)
        self.ram = sources.RamBlockAttributes(self.mr)
        self.mem = sources.VirtioMem(self.mr, block_size=PAGE)
        self.manager = self.ram.manager
        self.ram.state_change(0, 8 * PAGE, to_private=False)
        self.mem.plug_request(0, 8)
        self.log: list[Notification] = []

    def listen(self, name: str, **refuse: Any) -> sources.RecordingListener:
        listener = sources.RecordingListener(name, self.log, **refuse)
        self.manager.register_listener(listener, self.mr.section(address=BASE))
        return listener

    def heard(self) -> list[tuple[str, NotificationKind, int, int]]:
        return [(n.listener, n.kind, n.section[1] // PAGE, n.section[2] // PAGE) for n in self.log]


def test_a_new_source_discards_what_it_has_not_populated() -> None:
    two = TwoSources()
    two.manager.del_source(two.mem)
    two.listen("a")
    two.log.clear()
    two.mem.bitmap.clear(2, 3)
    two.manager.add_source(two.mem)
    assert two.heard() == [("a", DISCARD, 2, 3)]
    with pytest.raises(BusyError) as twice:
        two.manager.add_source(two.mem)
    assert twice.value.errno == errno.EBUSY


def test_a_source_that_goes_populates_what_only_it_had_discarded() -> None:
    two = TwoSources()
    two.mem.unplug_request(2 * PAGE, 3)
    two.ram.state_change(3 * PAGE, PAGE, to_private=True)
    two.listen("a")
    two.log.clear()
    two.manager.del_source(two.mem)
    assert two.heard() == [("a", POPULATE, 2, 1), ("a", POPULATE, 4, 1)]
    with pytest.raises(NotFoundError) as gone:
        two.manager.del_source(two.mem)
    assert gone.value.errno == errno.ENOENT


def test_a_refusal_keeps_the_source_and_undoes_it_for_the_one_that_refused_too() -> None:
    two = TwoSources()
    two.mem.unplug_request(2 * PAGE, 1)
    two.listen("oldest")
    two.listen("refuses", refuse_populate={3: errno.ENOSPC})
    two.listen("newest")
    two.log.clear()
    with pytest.raises(ListenerError):
        two.manager.del_source(two.mem)
    assert two.heard() == [
        ("newest", POPULATE, 2, 1),
        ("refuses", POPULATE, 2, 1),
        ("newest", DISCARD, 2, 1),
        ("refuses", DISCARD, 2, 1),
    ]
    assert two.mem in two.manager.sources


def test_a_source_that_is_none_may_not_notify() -> None:
    two = TwoSources()
    two.manager.del_source(two.mem)
    with pytest.raises(AbortError):
        two.manager.notify_populate(two.mem, 0, PAGE)
    with pytest.raises(AbortError):
        two.manager.notify_discard(two.mem, 0, PAGE)
    with pytest.raises(AbortError):
        two.manager.notify_discard_all(two.mem)


def test_without_a_source_a_new_listener_hears_of_the_whole_section() -> None:
    mr = MemoryRegion.ram("ram0", 4 * PAGE)
    manager = sources.RamDiscardManager(mr)
    listener = sources.RecordingListener()
    manager.register_listener(listener, mr.section(PAGE, 2 * PAGE, address=BASE))
    assert [(n.kind, n.section[1], n.section[2], n.section[3]) for n in listener.log] == [
        (POPULATE, PAGE, 2 * PAGE, BASE)
    ]
    assert runs(manager.replay_discarded, mr.section()) == []
    assert manager.is_populated(mr.section())
    with pytest.raises(AbortError):
        manager.get_min_granularity(MemoryRegion.ram("other", PAGE))


def test_an_address_wraps_at_two_to_the_64_when_a_section_is_clipped() -> None:
    mr = MemoryRegion("ram", 4 * PAGE)
    section = MemoryRegionSection(mr, 0, 4 * PAGE, (1 << 64) - PAGE)
    part = section.intersect_range(2 * PAGE, PAGE)
    assert part is not None
    assert part.offset_within_address_space == PAGE


def test_the_undo_of_a_v4_mixture_is_ascending() -> None:
    ram = v4.RamBlockAttribute(8 * PAGE)
    listener = v4.RecordingListener(refuse_populate={4: errno.EIO})
    ram.state_change(7 * PAGE, PAGE, to_private=False)
    ram.register_listener(listener, ram.mr.section(0, 7 * PAGE))
    with pytest.raises(ListenerError):
        ram.state_change(0, 8 * PAGE, to_private=False)
    discards = [n.section[1] // PAGE for n in listener.log if n.kind is DISCARD]
    assert discards == [0, 1, 2]
