"""Virtual machines whose models decide what they do, and the phases in which their threads do it.

A workload makes machines and yields *phases*: for each thread that is busy, the blocks of what it
does.  Threads of a phase run side by side; the next phase begins when all of them are done, as
QEMU's big lock has it for what one thread does for the whole machine.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from tracekit.synth.calls import PAGE, Call, Op
from tracekit.synth.faults._define import Fault, Plan, Request
from tracekit.synth.guest import Guest
from tracekit.synth.tape import Pieces, Tape, Thread
from tracekit.synth.truth import Planted, Violation
from tracekit.synth.vmm import FIRMWARE, Region, Vmm

__all__ = ("BATCH_EVENTS", "Block", "Machine", "Phase", "World")

BATCH_EVENTS = 1 << 16
HYPERCALL, MEMORY_FAULT = 3, 39
CPUS = 8
DEVICE_GET_INFO, SIGNAL_MSI = 0x3B6B, 0x4020AEA5


@dataclass(frozen=True)
class Block:
    """What a thread does next; ``planted``: violations by the block's calls, and their machine."""

    pieces: Pieces
    planted: tuple[Planted, ...] = ()
    machine: Machine | None = None


Phase = Mapping[Thread, Iterator[Block]]


@dataclass(frozen=True)
class Shape:
    """What a conversion of one shape does: its calls with addresses from :data:`BASE` on."""

    calls: tuple[Call, ...]
    pieces: Pieces
    events: int


@dataclass
class World:
    """Everything of one trace.

    ``events``: how many are wanted, about.  ``fault``: yet to strike; ``struck``: it has.
    ``chance`` decides all that is not a model's.
    """

    seed: int
    generation: str
    backend: str
    events: int
    guest_ns: int = 200_000
    fault: Fault | None = None
    struck: Fault | None = None
    in_place: bool = False
    machines: list[Machine] = field(default_factory=list)
    violations: list[Violation] = field(default_factory=list)
    made: int = 0

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self.tape = Tape(self.guest_ns)

    @property
    def left(self) -> int:
        """Events that are still wanted."""
        return max(0, self.events - self.made)

    def machine(
        self,
        memory: int,
        *,
        vcpus: int = 1,
        devices: int = 0,
        domains: int = 1,
        fd_backed: bool = False,
        page_size: int = PAGE,
        more: Sequence[Region] = (),
        managed: bool = False,
    ) -> Machine:
        """A new VM with ``memory`` bytes, in a process of its own.

        ``more``: regions without a private side; ``managed``: by a virtio-mem device, which maps
        what is plugged.  ``devices``: containers that it starts with.
        """
        number = len(self.machines)
        main = 1000 + 100 * number
        regions = (
            Region(size=memory, fd=4 if fd_backed else -1, host=0x7F00_0000_0000 + (number << 40)),
            FIRMWARE,
            *more,
        )
        vmm = Vmm(
            tid=main,
            vcpus=tuple(range(main + 3, main + 3 + vcpus)),
            backend=self.backend,
            domains=domains,
            regions=regions,
            map_file=self.generation == "11.1" and fd_backed,
            paddr=(1 + number) << 40,
        )
        made = Machine(self, vmm, fd_backed, page_size, devices, managed)
        self.machines.append(made)
        return made


class Machine:
    """A VM: its pages' states, its containers, and its threads.

    ``shared``: one byte a page of its first region.  ``spaces``: containers, oldest first.
    ``retired``: buffers that a fault struck.
    """

    def __init__(
        self,
        world: World,
        vmm: Vmm,
        fd_backed: bool,
        page_size: int,
        devices: int,
        managed: bool,
    ) -> None:
        self.world, self.vmm = world, vmm
        self._fd_backed, self._page_size = fd_backed, page_size
        self.pages = vmm.regions[0].size // PAGE
        self.shared = bytearray(self.pages)
        self.spaces: list[int] = []
        self.retired: set[tuple[int, int]] = set()
        self._devices, self._managed = devices, managed
        self._shapes: dict[tuple[bytes, tuple[int, ...], bool], Shape] = {}
        cpu = len(world.tape.threads)
        self.main = world.tape.thread(vmm, vmm.tid, vmm.comm, cpu % CPUS)
        self.vcpus = [
            world.tape.thread(vmm, tid, f"CPU {i}/KVM", (cpu + 1 + i) % CPUS)
            for i, tid in enumerate(vmm.vcpus)
        ]

    # -- what the main thread does -----------------------------------------------------------------

    def boot(self) -> Iterator[Phase]:
        """The process makes its VM, its memory and its threads; the vCPUs enter the guest."""
        calls = [Call(Op.CREATE_VM)]
        if self.vmm.regions[0].gmem >= 0:
            first = self.vmm.regions[0]
            calls.append(Call(Op.CREATE_GMEM, at=first.gpa, size=first.size))
        huge = 0x40000 | 0x1 if self._page_size != PAGE else 0
        for number, region in enumerate(self.vmm.regions):
            flags = 0 if number else huge
            calls.append(Call(Op.MMAP, at=region.gpa, size=region.size, value=flags))
            if number > 1 and self._managed:
                calls.append(Call(Op.MADVISE, at=region.gpa, size=region.size, value=4))
        for number, region in enumerate(self.vmm.regions):
            calls.append(Call(Op.SLOT, at=region.gpa, size=region.size, value=number))
            if region.gmem >= 0:
                whole = ((region.gpa, region.size),)
                calls.append(
                    Call(Op.ATTRIBUTE, at=region.gpa, size=region.size, value=8, parts=whole)
                )
        calls += [Call(Op.FORK, value=t.tid) for t in self.vcpus]
        for space in range(self._devices):
            calls += self.plug_calls(space)
        yield {self.main: self.once(self.main, calls)}
        yield {t: self.once(t, [Call(Op.ENTER)]) for t in self.vcpus}

    def plug_calls(self, space: int) -> list[Call]:
        """A device comes, in a container of its own, which hears of everything shared."""
        guest = self._guest(bytes(self.shared))
        made = guest.calls_of(lambda: guest.plug_device(space=space, announce=False))
        self.spaces.append(space)
        others = [
            Call(Op.MAP, at=r.gpa, size=r.size, space=space) for r in self._ordinary
        ]  # fmt: skip
        opened = [Call(Op.OPEN, space=space), Call(Op.ATTACH, space=space)]
        asked = [Call(Op.IOCTL, value=DEVICE_GET_INFO, space=space), Call(Op.LOOK_UP)]
        return [*opened, *others, *made, *asked]

    def unplug_calls(self, space: int) -> list[Call]:
        """A device goes, and its container with it."""
        guest = self._guest(bytes(self.shared))
        index = self.spaces.index(space)
        made = guest.calls_of(lambda: guest.unplug_device(index))
        self.spaces.remove(space)
        others = [
            Call(Op.UNMAP, at=r.gpa, size=r.size, space=space, parts=((r.gpa, r.size),))
            for r in self._ordinary
        ]
        return [*others, *made, Call(Op.CLOSE, space=space)]

    @property
    def _ordinary(self) -> Sequence[Region]:
        """The regions that a container maps as a whole."""
        return self.vmm.regions[1:2] if self._managed else self.vmm.regions[1:]

    def unplug(self, space: int, *, last: bool) -> Iterator[Block]:
        """A device goes; the world's fault may strike the last time that one does.

        What it leaves behind would be in the way of every conversion that follows.
        """
        calls = self.unplug_calls(space)
        fault = self.world.fault
        strikes = last and fault is not None and fault.request is Request.UNPLUG
        if strikes and any(self.shared):
            yield self.struck(self.main, calls, 0, self.pages, private=False)
        else:
            yield from self.once(self.main, calls)

    def struck(
        self, thread: Thread, calls: list[Call], first: int, count: int, *, private: bool
    ) -> Block:
        """The calls as the world's fault leaves them; it strikes once."""
        world = self.world
        assert world.fault is not None
        plan = Plan(
            gpa=self.vmm.regions[0].gpa + first * PAGE,
            size=count * PAGE,
            private=private,
            calls=calls,
            chance=world.chance,
            generation=world.generation,
            backend=world.backend,
            spaces=tuple(self.spaces),
            in_place=world.in_place,
        )
        world.fault.change(plan)
        if world.fault.request is Request.CONVERSION:
            self.shared[first : first + count] = plan.shared_after()
        world.fault, world.struck = None, world.fault
        return Block(world.tape.pieces(plan.calls, thread), plan.violations(), self)

    def once(self, thread: Thread, calls: Sequence[Call]) -> Iterator[Block]:
        """A thread makes these calls, and that is all."""
        if calls:
            yield Block(self.world.tape.pieces(calls, thread))

    # -- conversions -------------------------------------------------------------------------------

    def shape(self, first: int, count: int, *, private: bool) -> Shape:
        """What converting ``count`` pages from ``first`` does now; the models are asked once."""
        before = bytes(self.shared[first : first + count])
        key = (before, tuple(self.spaces), private)
        found = self._shapes.get(key)
        if found is None:
            guest = self._guest(before)
            calls = guest.calls_of(lambda: guest.convert(0, count, private=private))
            pieces = self.world.tape.pieces(calls, self.main)
            events = int(self.world.tape.lengths(pieces.numbers).sum())
            found = self._shapes[key] = Shape(tuple(calls), pieces, events)
        return found

    def convert(self, first: int, count: int, *, private: bool) -> Shape:
        """The same, and the pages' states change."""
        shape = self.shape(first, count, private=private)
        self.shared[first : first + count] = bytes([not private]) * count
        return shape

    def plan(self, first: int, count: int, *, private: bool, reason: int) -> list[Call]:
        """All calls of one conversion, from leaving the guest to entering it again."""
        shape = self.convert(first, count, private=private)
        moved = [_moved(c, first * PAGE) for c in shape.calls]
        return [Call(Op.LEAVE, value=reason), *moved, Call(Op.ENTER)]

    def requests(
        self,
        thread: Thread,
        wanted: Iterable[tuple[int, int, bool]],
        reason: int = HYPERCALL,
    ) -> Iterator[Block]:
        """A vCPU's conversions (first page, pages, to private), one after the other."""
        tape = self.world.tape
        leave = tape.pieces([Call(Op.LEAVE, value=reason)], thread)
        enter = tape.pieces([Call(Op.ENTER)], thread)
        numbers, shifts, events = [], [], 0
        for first, count, private in wanted:
            shape = self.convert(first, count, private=private)
            numbers += [leave.numbers, shape.pieces.numbers, enter.numbers]
            shifts += [leave.shifts, shape.pieces.shifts + first * PAGE, enter.shifts]
            events += shape.events
            if events >= BATCH_EVENTS:
                yield Block(Pieces(np.concatenate(numbers), np.concatenate(shifts)))
                numbers, shifts, events = [], [], 0
        if numbers:
            yield Block(Pieces(np.concatenate(numbers), np.concatenate(shifts)))

    def steady(
        self,
        thread: Thread,
        slots: Sequence[tuple[int, int]],
        events: int,
        *,
        reason: int = HYPERCALL,
    ) -> Iterator[Block]:
        """A vCPU converts one of its buffers (first page, pages) after the other, at random, there
        and back, until about ``events`` events are made.

        The world's fault, where it applies, strikes one of them, which is left alone afterwards.
        """
        from tracekit.synth.steady import Buffers

        yield from Buffers(self, thread, slots, reason).blocks(events)

    def _guest(self, shared: bytes) -> Guest:
        """A guest in this state, with this machine's containers, of which nothing is recorded."""
        guest = Guest(
            self.world.generation,
            blocks=len(shared),
            fd_backed=self._fd_backed,
            page_size=self._page_size,
            vmm=self.vmm,
            booted=False,
        )
        for space in self.spaces:
            guest.plug_device(1 << 30, space=space, announce=False)
        guest.arrange(shared)
        guest.rendered.calls.clear()
        return guest


def _moved(call: Call, by: int) -> Call:
    parts = tuple((at + by, size) for at, size in call.parts)
    return replace(call, at=call.at + by, parts=parts)
