"""Memory that comes and goes for other reasons than conversions: virtio-mem, balloon, migration."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from tracekit.synth.calls import PAGE, Call, Op
from tracekit.synth.workloads._define import bytes_of, number_of, workload
from tracekit.synth.workloads.conversions import cut, side_by_side

if TYPE_CHECKING:
    from tracekit.synth.world import Phase, World

__all__: tuple[str, ...] = ()

GIB = 1 << 30
VIRTIO_MEM_GPA, VIRTIO_MEM_HOST = 0x4_0000_0000, 0x7E00_0000_0000
DONTNEED = 4
DIRTY_PAGES, SET_DIRTY_TRACKING = 0x3B75, 0x3B8B
LOG_DIRTY = 1


@workload(
    "memory-hotplug",
    "virtio-mem plugs and unplugs blocks of 2 MiB beside memory that is converted",
    memory=bytes_of("memory that can be private", "1MiB", most=128 << 20),
    device=bytes_of("the virtio-mem device's memory", "64MiB", most=16 << 30),
    requests=number_of("plug and unplug requests", "24", most=100_000),
)
def memory_hotplug(world: World, memory: int, device: int, requests: int) -> Iterator[Phase]:
    from tracekit.synth.virtio_mem import BLOCK, Device
    from tracekit.synth.vmm import Region

    device = max(BLOCK, device // BLOCK * BLOCK)
    region = Region(gpa=VIRTIO_MEM_GPA, size=device, host=VIRTIO_MEM_HOST, fd=-1, gmem=-1)
    machine = world.machine(max(memory, 64 << 10), devices=1, more=(region,), managed=True)
    yield from machine.boot()
    vcpu = machine.vcpus[0]
    (slots,) = cut(machine.pages, 8, 1)
    plugged = Device(machine, region)
    for left in range(requests, 0, -4):
        calls: list[Call] = []
        for _ in range(min(4, left)):
            calls += plugged.next_request()
        yield {machine.main: machine.once(machine.main, calls)}
        yield side_by_side(world, machine, {vcpu: slots}, world.left * 4 // (left + 3))
        slots = [s for s in slots if s not in machine.retired]


@workload(
    "balloon",
    "the guest gives shared pages back, one by one to the balloon and in runs when it reports free"
    " ones",
    limits={"devices": 0, "requests": ()},
    memory=bytes_of("memory", "4MiB", most=16 << 30),
    rounds=number_of("how often", "8", most=100_000),
)
def balloon(world: World, memory: int, rounds: int) -> Iterator[Phase]:
    machine = world.machine(max(memory, 256 << 10))
    yield from machine.boot()
    vcpu = machine.vcpus[0]
    (slots,) = cut(machine.pages, 16, 1)
    gpa = machine.vmm.regions[0].gpa
    for left in range(rounds, 0, -1):
        yield side_by_side(world, machine, {vcpu: slots}, world.left // left)
        shared = [slot for slot in slots if machine.shared[slot[0]]]
        calls = []
        for first, count in world.chance.sample(shared, min(4, len(shared))):
            at = gpa + first * PAGE
            if world.chance.getrandbits(1):
                calls.append(Call(Op.MADVISE, at=at, size=count * PAGE, value=DONTNEED))
            else:
                calls += [
                    Call(Op.MADVISE, at=at + i * PAGE, size=PAGE, value=DONTNEED)
                    for i in range(count)
                ]
        yield {machine.main: machine.once(machine.main, calls)}


@workload(
    "migration-start",
    "a migration begins: the containers and ordinary memory log what is written, conversions go on",
    memory=bytes_of("memory that can be private", "2MiB", most=128 << 20),
    ordinary=bytes_of("memory that cannot", "16MiB", most=16 << 30),
    rounds=number_of("passes over the dirty pages", "3", most=1000),
)
def migration_start(world: World, memory: int, ordinary: int, rounds: int) -> Iterator[Phase]:
    from tracekit.synth.vmm import Region

    region = Region(gpa=VIRTIO_MEM_GPA, size=ordinary, host=VIRTIO_MEM_HOST, fd=-1, gmem=-1)
    machine = world.machine(max(memory, 128 << 10), devices=1, more=(region,))
    yield from machine.boot()
    vcpu = machine.vcpus[0]
    (slots,) = cut(machine.pages, 8, 1)
    yield side_by_side(world, machine, {vcpu: slots}, world.left // (rounds + 1))
    command = DIRTY_PAGES if world.backend == "type1" else SET_DIRTY_TRACKING
    logging = [
        Call(Op.SLOT, at=region.gpa, size=region.size, value=1, parts=((LOG_DIRTY, 0),)),
        Call(Op.IOCTL, value=command),
    ]
    yield {machine.main: machine.once(machine.main, logging)}
    for left in range(rounds, 0, -1):
        slots = [s for s in slots if s not in machine.retired]
        yield side_by_side(world, machine, {vcpu: slots}, world.left // left)
        yield {machine.main: machine.once(machine.main, [Call(Op.IOCTL, value=command)])}
