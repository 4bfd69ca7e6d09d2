"""A confidential guest begins, and begins again: bounce buffers, page states, kexec."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from tracekit.synth.workloads._define import bytes_of, number_of, workload
from tracekit.synth.workloads.conversions import cut, side_by_side

if TYPE_CHECKING:
    from tracekit.synth.world import Machine, Phase, World

__all__: tuple[str, ...] = ()

PAGE = 4096
Ranges = list[tuple[int, int, bool]]


def _exits(machine: Machine, kind: str, first: int, pages: int, *, private: bool) -> Ranges:
    """The requests that reach QEMU when a guest converts a range: MapGPA pieces, or PSC batches."""
    from replay.models.snp_page_state_change import PageStateChange
    from replay.models.tdx_map_gpa import TdxMapGpa

    base = machine.vmm.regions[0].gpa
    out: Ranges = []

    def convert(gpa: int, size: int, to_private: bool) -> None:
        out.append(((gpa - base) // PAGE, size // PAGE, to_private))

    gpa, size = base + first * PAGE, pages * PAGE
    if kind == "tdx":
        guest = TdxMapGpa(convert)
        guest.map_gpa_until_done(gpa if private else gpa | guest.shared_bit, size)
    else:
        PageStateChange(convert).convert_range(gpa, size, private)
    return out


def _boot(world: World, kind: str, memory: int, bounce: int, vcpus: int) -> Iterator[Phase]:
    """The bounce buffers become shared, then drivers convert buffers of a few pages."""
    memory = max(memory, bounce + (vcpus << 20))
    machine = world.machine(memory, vcpus=vcpus, devices=1)
    yield from machine.boot()
    vcpu = machine.vcpus[0]
    first = _exits(machine, kind, 0, bounce // PAGE, private=False)
    yield {vcpu: machine.requests(vcpu, first)}
    at = bounce // PAGE
    dealt = [[(at + f, n) for f, n in part] for part in cut(min(512, machine.pages - at), 8, vcpus)]
    yield side_by_side(world, machine, dict(zip(machine.vcpus, dealt, strict=True)), world.left)


MEMORY = bytes_of("memory", "64MiB", most=16 << 30)
BOUNCE = bytes_of("bounce buffers (swiotlb), shared at once", "4MiB", most=192 << 20)
VCPUS = number_of("virtual CPUs", "2", most=16)


@workload(
    "tdx-boot",
    "a TDX guest boots: bounce buffers in MapGPA pieces of 2 MiB, then drivers' buffers",
    memory=MEMORY,
    bounce=BOUNCE,
    vcpus=VCPUS,
)
def tdx_boot(world: World, memory: int, bounce: int, vcpus: int) -> Iterator[Phase]:
    yield from _boot(world, "tdx", memory, bounce, vcpus)


@workload(
    "snp-boot",
    "an SEV-SNP guest boots: page-state changes in batches of 253 entries",
    memory=MEMORY,
    bounce=BOUNCE,
    vcpus=VCPUS,
)
def snp_boot(world: World, memory: int, bounce: int, vcpus: int) -> Iterator[Phase]:
    yield from _boot(world, "snp", memory, bounce, vcpus)


@workload(
    "reboot",
    "the guest runs, makes all of its memory private and starts another kernel (kexec), twice",
    memory=bytes_of("memory", "16MiB", most=16 << 30),
    bounce=bytes_of("bounce buffers (swiotlb), shared at once", "1MiB", most=192 << 20),
)
def reboot(world: World, memory: int, bounce: int) -> Iterator[Phase]:
    machine = world.machine(max(memory, bounce + (2 << 20)), devices=1)
    yield from machine.boot()
    vcpu = machine.vcpus[0]
    at = bounce // PAGE
    slots = [(at + f, n) for f, n in cut(256, 16, 1)[0]]
    rounds = 3
    for left in range(rounds, 0, -1):
        yield {vcpu: machine.requests(vcpu, _exits(machine, "tdx", 0, at, private=False))}
        yield side_by_side(world, machine, {vcpu: slots}, world.left // left)
        if left == 1:
            return
        shared = [s for s in slots if machine.shared[s[0]] and s not in machine.retired]
        back = _exits(machine, "tdx", 0, at, private=True)
        yield {vcpu: machine.requests(vcpu, [*back, *((f, n, True) for f, n in shared)])}
        slots = [s for s in slots if s not in machine.retired]
