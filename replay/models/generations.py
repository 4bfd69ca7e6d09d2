# SPDX-License-Identifier: Apache-2.0
"""The page that compares the generations: ``python -m replay.models.generations``.

Every line of it comes out of the models; nothing about behaviour is written by hand but the
question.
"""

import errno
from collections.abc import Callable
from typing import NamedTuple

from replay.models.errors import ModelError
from replay.models.ram_dirty_bitmap import RamDirtyBitmap
from replay.models.scenario import BASE, GENERATIONS, PAGE, Scenario

__all__ = ("QUESTIONS", "Question", "answers", "page")


class Question(NamedTuple):
    """A scenario, and what to look at."""

    title: str
    setting: str
    play: Callable[[str], Scenario]


def order(generation: str) -> Scenario:
    s = Scenario(generation)
    for name, priority in (("first, priority 10", 10), ("second, 0", 0), ("third, 20", 20)):
        s.listen(name, priority=priority)
    s.state_change(0, 1, to_private=False)
    s.state_change(0, 1, to_private=True)
    return s


def steps(generation: str) -> Scenario:
    s = Scenario(generation)
    s.follow_attributes()
    s.plug_device()
    s.convert(0, 2, to_private=False)
    s.convert(0, 2, to_private=True)
    return s


def mixture(generation: str) -> Scenario:
    s = Scenario(generation)
    s.follow_attributes()
    s.plug_device()
    s.convert(1, 1, to_private=False)
    s.clear()
    s.convert(0, 3, to_private=False)
    s.convert(0, 3, to_private=True)
    return s


def refused_uniform(generation: str) -> Scenario:
    s = Scenario(generation)
    s.listen("a")
    s.listen("b", refuse={1: errno.ENOSPC})
    s.listen("c")
    s.state_change(0, 4, to_private=False)
    s.say_shared()
    return s


def refused_mixture(generation: str) -> Scenario:
    s = Scenario(generation)
    s.listen("a")
    s.listen("b", refuse={3: errno.ENOSPC})
    s.state_change(1, 1, to_private=False)
    s.clear()
    s.state_change(0, 4, to_private=False)
    s.say_shared()
    return s


def retry(generation: str) -> Scenario:
    s = Scenario(generation)
    container = s.plug_device(entries=2)
    s.state_change(0, 3, to_private=False)
    container.iommu.dma_avail = 100
    s.say("the limit is raised; again:")
    s.state_change(0, 3, to_private=False)
    s.say_shared()
    s.say_mapped(container)
    return s


def failed_unmap(generation: str) -> Scenario:
    s = Scenario(generation)
    container = s.plug_device()
    s.state_change(0, 1, to_private=False)
    container.dma_unmap(BASE, PAGE)
    container.dma_map(BASE, 2 * PAGE, 0)
    s.clear()
    s.state_change(0, 1, to_private=True)
    s.say_shared()
    s.say_mapped(container)
    return s


def failed_attribute(generation: str) -> Scenario:
    s = Scenario(generation)
    s.follow_attributes()
    s.plug_device()
    s.convert(0, 2, to_private=False)
    s.clear()
    s.kvm.fail(1, errno.ENOMEM)
    s.convert(0, 2, to_private=True)
    s.say_shared()
    return s


def failed_map(generation: str) -> Scenario:
    s = Scenario(generation)
    s.follow_attributes()
    s.kvm.set_memory_attributes_private(BASE, 8 * PAGE)
    s.plug_device(entries=1)
    s.clear()
    s.convert(0, 2, to_private=False)
    s.say_shared()
    private = "private" if BASE in s.kvm.private else "shared"
    s.say(f"KVM believes block 0 to be {private}")
    return s


def late_listener(generation: str) -> Scenario:
    s = Scenario(generation)
    s.state_change(0, 1, to_private=False)
    s.state_change(2, 1, to_private=False)
    s.state_change(4, 1, to_private=False)
    s.listen("late", refuse={2: errno.ENOSPC})
    s.say(f"listeners registered: {len(s.manager.listeners)}")
    return s


def unregister(generation: str) -> Scenario:
    s = Scenario(generation)
    listener = s.listen("a")
    s.state_change(0, 1, to_private=False)
    s.state_change(2, 1, to_private=False)
    s.clear()
    s.manager.unregister_listener(listener)
    return s


def part_of_a_block(generation: str) -> Scenario:
    s = Scenario(generation)
    s.listen("a")
    s.say("one block and a half, to shared:")
    s.state_change(0, 1.5, to_private=False)
    s.say("half a block at block 4, to shared:")
    s.state_change(4, 0.5, to_private=False)
    s.say_shared()
    s.say("half a block at block 0, to private:")
    s.state_change(0, 0.5, to_private=True)
    return s


def past_the_end(generation: str) -> Scenario:
    s = Scenario(generation)
    s.follow_attributes()
    s.plug_device()
    s.convert(6, 4, to_private=False)
    s.say_shared()
    return s


def hole_in_front(generation: str) -> Scenario:
    s = Scenario(generation)
    s.follow_attributes()
    s.plug_device()
    s.convert(-2, 4, to_private=False)
    s.say_shared()
    return s


def hugetlb(generation: str) -> Scenario:
    s = Scenario(generation, page_size=2 << 20, blocks=512)
    s.convert(0, 1, to_private=False)
    s.convert(0, 1, to_private=True)
    return s


def second_manager(generation: str) -> Scenario:
    s = Scenario(generation, blocks=512)
    s.attempt(lambda: GENERATIONS[generation].VirtioMem(s.mr))
    s.say(f"manager of the region: {s.mr.manager!r}")
    return s


def replayed_address(generation: str) -> Scenario:
    s = Scenario(generation)
    s.state_change(2, 2, to_private=False)
    replay = s.manager.replay_on_state_set if generation == "G1" else s.manager.replay_populated
    replay(s.section, lambda run: s.say(f"run at address {run.offset_within_address_space:#x}"))
    return s


def dma_limit(generation: str) -> Scenario:
    s = Scenario(generation)
    s.state_change(0, 2, to_private=False)
    container = s.plug_device(limit=100)
    error: ModelError | None = container.error
    s.say(f"error of the container: {error or 'none'}")
    s.say(f"listeners registered: {len(s.manager.listeners)}")
    s.say_mapped(container)
    return s


def slot_again(generation: str) -> Scenario:
    s = Scenario(generation)
    slots = GENERATIONS[generation].KvmMemorySlots(s.kvm)
    slots.region_add(s.section)
    s.convert(0, 1, to_private=False)
    s.clear()
    slots.region_del(s.section)
    slots.region_add(s.section)
    s.say_shared()
    private = "private" if BASE in s.kvm.private else "shared"
    s.say(f"KVM believes block 0 to be {private}")
    return s


def migration(generation: str) -> Scenario:
    s = Scenario(generation)
    s.state_change(0, 3, to_private=False)
    dirty = RamDirtyBitmap(s.mr)
    GENERATIONS[generation].clear_discarded_pages(dirty)
    s.say(f"pages to send: {dirty.dirty_pages} of 8")
    return s


QUESTIONS = (
    Question("Order of the listeners", "Three listeners; block 0 to shared and back.", order),
    Question("Steps of a conversion", "One device; blocks 0-1 to shared and back.", steps),
    Question("A mixed range", "Block 1 is shared; blocks 0-2 to shared and back.", mixture),
    Question(
        "A listener refuses a uniform range",
        "Listeners a, b, c in the order of registration; b refuses; blocks 0-3 to shared.",
        refused_uniform,
    ),
    Question(
        "A listener refuses in a mixed range",
        "Block 1 is shared; blocks 0-3 to shared; b refuses its third populate, block 2.",
        refused_mixture,
    ),
    Question(
        "Trying again",
        "A device with 2 DMA entries; blocks 0-2 to shared, twice.",
        retry,
    ),
    Question(
        "A map fails inside a conversion",
        "A device with 1 DMA entry; all is private in KVM; the guest makes blocks 0-1 shared.",
        failed_map,
    ),
    Question(
        "An unmap fails",
        "A larger entry sits where block 0 was mapped; block 0 to private.",
        failed_unmap,
    ),
    Question(
        "KVM refuses an attribute",
        "One device; blocks 0-1 are shared and become private; the attribute call fails.",
        failed_attribute,
    ),
    Question(
        "A listener comes late and refuses",
        "Blocks 0, 2 and 4 are shared; a new listener refuses its second populate.",
        late_listener,
    ),
    Question("A listener goes", "Blocks 0 and 2 are shared.", unregister),
    Question("Parts of blocks", "Straight to the state change, no guest can.", part_of_a_block),
    Question("Past the end", "The guest makes blocks 6-9 shared; there are 8.", past_the_end),
    Question(
        "A hole in front", "The guest makes 4 blocks shared, from 2 before block 0.", hole_in_front
    ),
    Question("Huge pages", "hugetlbfs behind the memory; block 0 to shared and back.", hugetlb),
    Question("virtio-mem on the same region", "", second_manager),
    Question("Address of a replayed run", "Blocks 2-3 are shared.", replayed_address),
    Question(
        "The DMA limit", "100 mappings available; a device comes; blocks 0-1 shared.", dma_limit
    ),
    Question("A memory slot is made again", "Block 0 is shared.", slot_again),
    Question("Migration", "Blocks 0-2 of 8 are shared.", migration),
)

HEADER = """\
# What the generations do differently

Generated by `python -m replay.models.generations`; do not edit. Each block is what the models
do. G1 is the series as posted on 7 April 2025, G2 is QEMU 10.1 to 11.0, G3 the manager with
several sources of 11.1. Numbers are blocks of 4 KiB.

The order of effects, errors and ends of the listeners, the bitmap, type1 and the conversion were
compared with the C code. The questions about memory slots, migration and virtio-mem as a device
were read in it and not run.
"""


def answers(question: Question) -> dict[tuple[str, ...], list[str]]:
    """What happened, by the generations in which it happened like that."""
    grouped: dict[tuple[str, ...], tuple[str, ...]] = {}
    lines = {name: tuple(question.play(name).lines) for name in GENERATIONS}
    for name in GENERATIONS:
        names = tuple(other for other in GENERATIONS if lines[other] == lines[name])
        grouped[names] = lines[name]
    return {names: list(said) for names, said in grouped.items()}


def page() -> str:
    """The whole page."""
    parts = [HEADER]
    for question in QUESTIONS:
        parts.append(f"## {question.title}\n")
        if question.setting:
            parts.append(f"{question.setting}\n")
        for names, lines in answers(question).items():
            body = "\n".join(lines) or "nothing happens"
            parts.append(f"{', '.join(names)}:\n\n```\n{body}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    print(page(), end="")
