"""Several machines, several containers, and devices that come and go."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from tracekit.synth.faults._define import Request
from tracekit.synth.workloads._define import bytes_of, number_of, workload
from tracekit.synth.workloads.conversions import cut, side_by_side

if TYPE_CHECKING:
    from tracekit.synth.world import Phase, World

__all__: tuple[str, ...] = ()

PAGE = 4096
MEMORY = bytes_of("memory of each VM", "2MiB", most=128 << 20)
BUFFER = bytes_of("one buffer", "32KiB", most=1 << 20)


@workload("two-vms", "two VMs on one host, each with a device, at the same time", memory=MEMORY,
          buffer=BUFFER)  # fmt: skip
def two_vms(world: World, memory: int, buffer: int) -> Iterator[Phase]:
    machines = [world.machine(max(memory, 2 * buffer), devices=1) for _ in range(2)]
    for machine in machines:
        yield from machine.boot()
    share = world.left // 2
    together: Phase = {}
    for machine in machines:
        (slots,) = cut(machine.pages, buffer // PAGE, 1)
        together = {
            **together, **side_by_side(world, machine, {machine.vcpus[0]: slots}, share)
        }  # fmt: skip
    yield together


@workload(
    "several-containers",
    "one VM whose devices are in containers of their own, each with its IOMMU domains",
    limits={"devices": 3},
    memory=MEMORY,
    buffer=BUFFER,
    containers=number_of("containers", "3", most=8),
    domains=number_of("IOMMU domains of each container", "1", most=4),
)
def several_containers(
    world: World, memory: int, buffer: int, containers: int, domains: int
) -> Iterator[Phase]:
    machine = world.machine(max(memory, 2 * buffer), devices=containers, domains=domains)
    yield from machine.boot()
    (slots,) = cut(machine.pages, buffer // PAGE, 1)
    yield side_by_side(world, machine, {machine.vcpus[0]: slots}, world.left)


@workload(
    "device-hotplug",
    "devices come and go while the guest has shared memory, which a new one maps at once",
    limits={"requests": (Request.CONVERSION, Request.UNPLUG)},
    memory=MEMORY,
    buffer=BUFFER,
    rounds=number_of("how often a device comes and goes", "3", most=1000),
)
def device_hotplug(world: World, memory: int, buffer: int, rounds: int) -> Iterator[Phase]:
    machine = world.machine(max(memory, 2 * buffer), devices=1)
    yield from machine.boot()
    vcpu = machine.vcpus[0]
    (slots,) = cut(machine.pages, buffer // PAGE, 1)
    for left in range(rounds, 0, -1):
        yield side_by_side(world, machine, {vcpu: slots}, world.left // (2 * left))
        slots = [s for s in slots if s not in machine.retired]
        yield {machine.main: machine.once(machine.main, machine.plug_calls(1))}
        yield side_by_side(world, machine, {vcpu: slots}, world.left // (2 * left))
        slots = [s for s in slots if s not in machine.retired]
        yield {machine.main: machine.unplug(1, last=left == 1)}
