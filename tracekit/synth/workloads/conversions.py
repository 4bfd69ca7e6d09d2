"""One VM whose vCPUs convert memory: to and fro, in parts, in many sizes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from tracekit.synth.workloads._define import bytes_of, number_of, workload

if TYPE_CHECKING:
    from tracekit.synth.tape import Thread
    from tracekit.synth.world import Machine, Phase, World

__all__ = ("side_by_side",)

PAGE = 4096
HUGE = 2 << 20


def side_by_side(
    world: World, machine: Machine, buffers: dict[Thread, list[tuple[int, int]]], events: int
) -> Phase:
    """Each vCPU converts its own buffers to and fro; ``events`` of all of them."""
    share = events // len(buffers)
    return {t: machine.steady(t, slots, share) for t, slots in buffers.items()}


def cut(pages: int, size: int, parts: int) -> list[list[tuple[int, int]]]:
    """Memory in buffers of ``size`` pages, dealt out in ``parts``."""
    slots = [(at, size) for at in range(0, pages - size + 1, size)]
    return [slots[i::parts] for i in range(parts)]


@workload(
    "dma-ring",
    "steady conversions: the buffers of a device's ring go to and fro",
    ring=bytes_of("all buffers together", "4MiB", most=128 << 20),
    buffer=bytes_of("one buffer", "64KiB", most=HUGE),
)
def dma_ring(world: World, ring: int, buffer: int) -> Iterator[Phase]:
    machine = world.machine(max(ring, 2 * buffer), devices=1)
    yield from machine.boot()
    (slots,) = cut(machine.pages, buffer // PAGE, 1)
    yield side_by_side(world, machine, {machine.vcpus[0]: slots}, world.left)


@workload(
    "parallel-vcpus",
    "vCPUs convert buffers of their own at the same time, their calls interleaved",
    vcpus=number_of("virtual CPUs", "4"),
    memory=bytes_of("memory", "8MiB", most=128 << 20),
    buffer=bytes_of("one buffer", "64KiB", most=HUGE),
)
def parallel_vcpus(world: World, vcpus: int, memory: int, buffer: int) -> Iterator[Phase]:
    machine = world.machine(max(memory, 2 * vcpus * buffer), vcpus=vcpus, devices=1)
    yield from machine.boot()
    dealt = cut(machine.pages, buffer // PAGE, vcpus)
    yield side_by_side(world, machine, dict(zip(machine.vcpus, dealt, strict=True)), world.left)


SIZES = (4 << 10, 16 << 10, 64 << 10, 256 << 10, 2 << 20, 32 << 20, 1 << 30)


@workload(
    "mixed-sizes",
    "conversions of 4 KiB up to 1 GiB, every size as often",
    limits={"backends": ("iommufd", "type1")},
    largest=bytes_of("the largest conversion; beyond 64MiB with iommufd", "256KiB", most=1 << 30),
)
def mixed_sizes(world: World, largest: int) -> Iterator[Phase]:
    sizes = [s for s in SIZES if s <= largest]
    slots, at = [], 0
    for size in reversed(sizes):
        for _ in range(2):
            slots.append((at // PAGE, size // PAGE))
            at += size
    machine = world.machine(at, devices=1)
    yield from machine.boot()
    yield side_by_side(world, machine, {machine.vcpus[0]: slots}, world.left)


@workload(
    "partial-conversions",
    "any pages of a buffer, whatever state they are in: mixed ranges go page by page",
    limits={"requests": ()},
    buffer=bytes_of("one buffer", "32KiB", most=64 << 10),
    buffers=number_of("how many", "16"),
)
def partial_conversions(world: World, buffer: int, buffers: int) -> Iterator[Phase]:
    machine = world.machine(buffer * buffers, devices=1)
    yield from machine.boot()
    pages, chance = buffer // PAGE, world.chance

    def wanted() -> Iterator[tuple[int, int, bool]]:
        first = chance.randrange(buffers) * pages
        begin = chance.randrange(pages)
        yield first + begin, chance.randint(1, pages - begin), bool(chance.getrandbits(1))

    def until_enough() -> Iterator[tuple[int, int, bool]]:
        enough = world.events
        made = world.made
        while made < enough:
            for one in wanted():
                made += machine.shape(one[0], one[1], private=one[2]).events + 3
                yield one

    vcpu = machine.vcpus[0]
    yield {vcpu: machine.requests(vcpu, until_enough())}


@workload(
    "in-place",
    "the order that in-place conversion needs: unmapped before private, mapped after shared",
    limits={"generations": ("v4",), "in_place": True},
    memory=bytes_of("memory", "4MiB", most=128 << 20),
    buffer=bytes_of("one buffer", "64KiB", most=HUGE),
)
def in_place(world: World, memory: int, buffer: int) -> Iterator[Phase]:
    machine = world.machine(max(memory, 2 * buffer), devices=1)
    yield from machine.boot()
    (slots,) = cut(machine.pages, buffer // PAGE, 1)
    yield side_by_side(world, machine, {machine.vcpus[0]: slots}, world.left)


@workload(
    "hugetlb",
    "memory of 2 MiB pages: what becomes private keeps its shared side",
    limits={"generations": ("merged", "11.1"), "discards": False},
    memory=bytes_of("memory", "16MiB", most=128 << 20),
    buffer=bytes_of("one buffer", "64KiB", most=HUGE),
)
def hugetlb(world: World, memory: int, buffer: int) -> Iterator[Phase]:
    memory = max(HUGE, memory // HUGE * HUGE)
    machine = world.machine(memory, devices=1, fd_backed=True, page_size=HUGE)
    yield from machine.boot()
    (slots,) = cut(machine.pages, buffer // PAGE, 1)
    yield side_by_side(world, machine, {machine.vcpus[0]: slots}, world.left)
