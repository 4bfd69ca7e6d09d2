"""Each generation against an oracle that knows nothing but sets of bytes."""

import errno
from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from replay.models import MemoryRegionSection, Type1Container, merged, sources, v4
from replay.models.errors import InvalidRangeError, ListenerError

PAGE = 4096
BLOCKS = 6
SIZE = BLOCKS * PAGE
BASE = 1 << 32
Bytes = set[int]

blocks = st.tuples(st.integers(0, BLOCKS - 1), st.integers(1, BLOCKS)).map(
    lambda pair: (pair[0] * PAGE, min(pair[1], BLOCKS - pair[0]) * PAGE)
)
anything = st.tuples(st.integers(0, SIZE + PAGE), st.integers(0, SIZE + PAGE))


def runs(of: Bytes, inside: range) -> list[tuple[int, int]]:
    """Maximal runs of a set of bytes, as (offset, size)."""
    found: list[tuple[int, int]] = []
    start = None
    for byte in [*inside, None]:
        if byte is not None and byte in of:
            start = byte if start is None else start
        elif start is not None:
            end = inside.stop if byte is None else byte
            found.append((start, end - start))
            start = None
    return found


class Follower:
    """A listener that keeps the bytes it was told of, and refuses when armed."""

    def __init__(self) -> None:
        self.bytes: Bytes = set()
        self.armed = 0

    def populated(self, section: MemoryRegionSection) -> None:
        if self.armed:
            self.armed -= 1
            if not self.armed:
                raise ListenerError("armed", errno.EIO)
        self.bytes.update(range(section.offset_within_region, section.end_within_region))

    def discarded(self, section: MemoryRegionSection) -> None:
        self.bytes.difference_update(range(section.offset_within_region, section.end_within_region))


class V4Follower(Follower, v4.PrivateSharedListener):
    def notify_to_state_set(self, section: MemoryRegionSection) -> None:
        self.populated(section)

    def notify_to_state_clear(self, section: MemoryRegionSection) -> None:
        self.discarded(section)


class MergedFollower(Follower, merged.RamDiscardListener):
    def notify_populate(self, section: MemoryRegionSection) -> None:
        self.populated(section)

    def notify_discard(self, section: MemoryRegionSection) -> None:
        self.discarded(section)


class Subject:
    """One generation behind one set of names."""

    def __init__(self, generation: str) -> None:
        self.generation = generation
        self.ram: Any
        self.manager: Any
        if generation == "v4":
            self.ram = self.manager = v4.RamBlockAttribute(SIZE)
            self.replays = {
                True: self.manager.replay_on_state_set,
                False: self.manager.replay_on_state_clear,
            }
            self.is_populated: Any = self.manager.is_state_set
        else:
            package = merged if generation == "merged" else sources
            self.ram = package.RamBlockAttributes(SIZE)
            self.manager = self.ram if generation == "merged" else self.ram.manager
            self.replays = {
                True: self.manager.replay_populated,
                False: self.manager.replay_discarded,
            }
            self.is_populated = self.manager.is_populated
        self.mr = self.ram.mr

    def shared(self) -> Bytes:
        return {byte for start, end in self.ram.shared_ranges() for byte in range(start, end)}

    def follower(self, priority: int) -> Any:
        if self.generation != "v4":
            return MergedFollower()
        listener = V4Follower()
        listener.priority = priority
        return listener

    def vfio(self, section: MemoryRegionSection) -> Type1Container:
        container = Type1Container()
        package: Any = v4 if self.generation == "v4" else merged
        package.VfioMemoryListener(container).region_add(section)
        return container


class StateMachine(RuleBasedStateMachine):
    generation: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self.subject = Subject(self.generation)
        self.shared: Bytes = set()
        self.followers: list[Any] = []
        self.containers: list[tuple[MemoryRegionSection, Type1Container]] = []
        self.in_step = True  # nobody lost a mapping to a refusal

    @rule(where=blocks, to_private=st.booleans())
    def convert(self, where: tuple[int, int], to_private: bool) -> None:
        self.subject.ram.state_change(*where, to_private)
        touched = range(where[0], sum(where))
        (self.shared.difference_update if to_private else self.shared.update)(touched)
        if to_private and where == (0, SIZE):
            self.in_step = True

    @rule(where=anything, to_private=st.booleans())
    def ask_for_too_much(self, where: tuple[int, int], to_private: bool) -> None:
        offset, size = where
        aligned = offset % PAGE == 0 and (size % PAGE == 0 or self.generation == "v4")
        if aligned and size and offset + size <= SIZE:
            return
        with pytest.raises(InvalidRangeError) as refused:
            self.subject.ram.state_change(offset, size, to_private)
        assert refused.value.returned == (-1 if self.generation == "v4" else -errno.EINVAL)

    @rule(where=blocks, priority=st.integers(0, 2))
    @precondition(lambda self: len(self.followers) < 4)
    def register(self, where: tuple[int, int], priority: int) -> None:
        follower = self.subject.follower(priority)
        section = self.subject.mr.section(*where, address=BASE + where[0])
        self.subject.manager.register_listener(follower, section)
        self.followers.append(follower)

    @rule(where=blocks)
    @precondition(lambda self: len(self.containers) < 2 and self.in_step)
    def plug_device(self, where: tuple[int, int]) -> None:
        section = self.subject.mr.section(*where, address=BASE + where[0])
        self.containers.append((section, self.subject.vfio(section)))

    @rule(data=st.data())
    @precondition(lambda self: self.followers)
    def unregister(self, data: st.DataObject) -> None:
        follower = self.followers.pop(data.draw(st.integers(0, len(self.followers) - 1)))
        self.subject.manager.unregister_listener(follower)
        assert follower.bytes == set()

    @rule(where=blocks, nth=st.integers(1, 3), data=st.data())
    @precondition(lambda self: self.followers and self.in_step)
    def convert_with_a_refusal(self, where: tuple[int, int], nth: int, data: st.DataObject) -> None:
        refuses = data.draw(st.sampled_from(self.followers))
        refuses.armed = nth
        touched = range(where[0], sum(where))
        before = self.shared & set(touched)
        try:
            self.subject.ram.state_change(*where, False)
        except ListenerError:
            if self.generation == "v4":
                return  # the invariants say that nothing changed, for anybody
            self.in_step = False
            if not before:
                self.shared.update(touched)
                return
            # In a mixture, blocks up to the one that was refused are converted; the refused
            # one is the nth that changes and meets the listener.
            section = refuses.section
            for start in range(where[0], sum(where), PAGE):
                changes = start not in before
                self.shared.update(range(start, start + PAGE))
                if changes and section.intersect_range(start, PAGE) is not None:
                    nth -= 1
                    if not nth:
                        return
            raise AssertionError("nobody was armed for that") from None
        else:
            self.shared.update(touched)
        finally:
            refuses.armed = 0

    @rule(where=blocks, populated=st.booleans())
    def replay(self, where: tuple[int, int], populated: bool) -> None:
        heard: list[tuple[int, int]] = []
        section = self.subject.mr.section(*where, address=BASE)
        self.subject.replays[populated](section, lambda s: heard.append((s[1], s[2])))
        state = self.shared if populated else set(range(SIZE)) - self.shared
        assert heard == runs(state, range(where[0], sum(where)))

    @rule(where=blocks)
    def query(self, where: tuple[int, int]) -> None:
        section = self.subject.mr.section(*where)
        assert self.subject.is_populated(section) == (
            self.shared.issuperset(range(where[0], sum(where)))
        )

    @invariant()
    def the_bitmap_is_the_set(self) -> None:
        assert self.subject.shared() == self.shared

    @invariant()
    def a_listener_has_what_is_shared_in_its_section(self) -> None:
        for follower in self.followers:
            section = follower.section
            wanted = self.shared & set(
                range(section.offset_within_region, section.end_within_region)
            )
            assert follower.bytes == wanted if self.in_step else follower.bytes <= wanted

    @invariant()
    def a_device_reaches_what_is_shared(self) -> None:
        for section, container in self.containers:
            reached = {
                byte - BASE for entry in container.entries for byte in range(entry.iova, entry.end)
            }
            wanted = self.shared & set(
                range(section.offset_within_region, section.end_within_region)
            )
            assert reached == wanted if self.in_step else reached <= wanted
            assert all(entry.size == PAGE for entry in container.entries)


class V4Machine(StateMachine):
    generation = "v4"


class MergedMachine(StateMachine):
    generation = "merged"


class SourcesMachine(StateMachine):
    generation = "sources"


few = settings(max_examples=25, stateful_step_count=25, deadline=None)
TestV4 = V4Machine.TestCase
TestMerged = MergedMachine.TestCase
TestSources = SourcesMachine.TestCase
TestV4.settings = TestMerged.settings = TestSources.settings = few

conversions = st.lists(st.tuples(blocks, st.booleans()), max_size=8)


def pieces(where: tuple[int, int], cuts: Iterator[bool]) -> list[tuple[int, int]]:
    """The same range in parts, cut before a block where ``cuts`` says so."""
    parts = [(where[0], PAGE)]
    for start in range(where[0] + PAGE, sum(where), PAGE):
        if next(cuts):
            parts.append((start, PAGE))
        else:
            parts[-1] = (parts[-1][0], parts[-1][1] + PAGE)
    return parts


@pytest.mark.parametrize("generation", ["v4", "merged", "sources"])
@given(script=conversions, cuts=st.lists(st.booleans(), min_size=48, max_size=48))
@settings(max_examples=60, deadline=None)
def test_splitting_a_conversion_changes_notifications_and_never_the_state(
    generation: str, script: list[tuple[tuple[int, int], bool]], cuts: list[bool]
) -> None:
    ends = []
    for split in (False, True):
        subject = Subject(generation)
        follower = subject.follower(0)
        subject.manager.register_listener(follower, subject.mr.section(PAGE, 4 * PAGE))
        container = subject.vfio(subject.mr.section(address=BASE))
        decide = iter(cuts)
        for where, to_private in script:
            for part in pieces(where, decide) if split else [where]:
                subject.ram.state_change(*part, to_private)
        ends.append((subject.shared(), follower.bytes, container.entries.ranges()))
    assert ends[0] == ends[1]


@pytest.mark.parametrize("generation", ["v4", "merged", "sources"])
@given(script=conversions, where=blocks, to_private=st.booleans())
@settings(max_examples=40, deadline=None)
def test_a_conversion_twice_equals_once(
    generation: str,
    script: list[tuple[tuple[int, int], bool]],
    where: tuple[int, int],
    to_private: bool,
) -> None:
    subject = Subject(generation)
    for before, direction in script:
        subject.ram.state_change(*before, direction)
    subject.ram.state_change(*where, to_private)
    shared = subject.ram.shared_ranges()
    package: Any = v4 if generation == "v4" else merged
    listener = package.RecordingListener()
    subject.manager.register_listener(listener, subject.mr.section())
    listener.log.clear()
    subject.ram.state_change(*where, to_private)
    assert subject.ram.shared_ranges() == shared
    assert listener.log == []
