"""Guests driven at random through a generation, and what conformance says of the recording."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from replay.conformance.calls import COLUMNS
from replay.conformance.conformance import AUTO, Conformance, Follower
from tracekit.events import Event
from tracekit.store import open_trace, write_events
from tracekit.synth.calls import Call, Op
from tracekit.synth.guest import PAGE, Guest
from tracekit.synth.render import Renderer
from tracekit.synth.vmm import Region, Vmm

__all__ = ("beside", "changed", "driven", "events_of", "followed", "hazards", "hotplugged",
           "of_process", "requests", "together", "ways")  # fmt: skip

VM_FD = 6


def driven(generation: str, seed: int) -> Guest:
    """Random requests, devices, refusals and full containers; the same for each generation."""
    chance = random.Random(seed)
    blocks = chance.choice((8, 32, 64))
    guest = Guest(generation, blocks=blocks, fd_backed=chance.random() < 0.5)
    for _ in range(chance.choice((0, 1, 1, 1, 2))):
        guest.plug_device(chance.choice((65535, 65535, 65535, chance.randrange(1, blocks))))
    for _ in range(chance.randrange(8, 40)):
        if chance.random() < 0.05:
            guest.fail_attribute(1, 12)
        first = chance.randrange(blocks)
        count = chance.randrange(1, blocks - first + 1)
        guest.convert(first, count, private=chance.random() < 0.5)
        if chance.random() < 0.03 and len(guest.containers) < 3:
            guest.plug_device()
    return guest


def hotplugged(generation: str) -> Guest:
    """Three shared runs, and then a device, and then conversions."""
    guest = Guest(generation, blocks=64)
    guest.plug_device()
    for first, count in ((2, 3), (10, 1), (20, 8)):
        guest.convert(first, count, private=False)
    guest.plug_device()
    guest.convert(2, 3, private=True)
    guest.convert(40, 2, private=False)
    return guest


def events_of(guest: Guest, calls: Sequence[Call] | None = None) -> list[Event]:
    """What a kernel records of calls, by default the guest's as they are now."""
    renderer = Renderer(guest.vmm, tid=guest.vmm.tid)
    renderer.calls[:] = guest.rendered.calls if calls is None else calls
    return renderer.events


def changed(guest: Guest, calls: list[Call]) -> Guest:
    """The guest's recording with other calls in it."""
    guest.rendered.calls[:] = calls
    return guest


def beside(generation: str, tid: int, seed: int, *, host: int = 0x7F00_0000_0000) -> Guest:
    """Thirty random conversions of a VM with a device of its own."""
    chance = random.Random(seed)
    region = Region(size=32 * PAGE, host=host)
    made = Guest(generation, blocks=32, vmm=Vmm(tid=tid, regions=(region,)))
    made.plug_device(space=tid % 10)
    for _ in range(30):
        first = chance.randrange(32)
        size = chance.randrange(1, 33 - first)
        made.convert(first, size, private=chance.random() < 0.5)
    return made


def together(*guests: Sequence[Event]) -> list[Event]:
    """Their recordings as one, in order of time; the guests are at their work in turn."""
    late = [
        (event.ts_ns + number * 37, number, place, event)
        for number, events in enumerate(guests)
        for place, event in enumerate(events)
    ]
    return [replace(event, ts_ns=ts) for ts, _, _, event in sorted(late, key=lambda e: e[:3])]


def of_process(events: Sequence[Event], pid: int, vm_fd: int) -> list[Event]:
    """The recording as if another process's thread had made it, with another VM file."""
    out = []
    for event in events:
        changes: dict[str, Any] = {"pid": pid}
        if event.name_.startswith("ioctl.") and getattr(event, "fd", None) == VM_FD:
            changes["fd"] = vm_fd
        if event.name_ == "ioctl.returned" and getattr(event, "ret", None) == VM_FD:
            changes["ret"] = vm_fd
        out.append(replace(event, **changes))
    return out


def requests(guest: Guest) -> list[tuple[Call, ...]]:
    """The calls of each request, in order: every request ends when the guest runs again."""
    out: list[tuple[Call, ...]] = []
    begun: list[Call] = []
    for call in guest.rendered.calls:
        begun.append(call)
        if call.op is Op.RUN:
            out.append(tuple(begun))
            begun = []
    return [*out, tuple(begun)] if begun else out


def followed(
    events: Iterable[Event],
    folder: Path,
    generation: str = AUTO,
    *,
    compiled: bool = False,
    without: Iterable[str] = (),
) -> Conformance:
    """What conformance says of events, written down and read again."""
    path = folder / "conforming.parquet"
    path.unlink(missing_ok=True)
    left_out = set(without)
    write_events(path, (e for e in events if e.name_ not in left_out))
    trace = open_trace(path)
    follower = Follower(trace.manifest.events, generation=generation, compiled=compiled)
    for batch in trace.batches(COLUMNS):
        follower.feed(batch)
    return follower.finish()


def ways(conformance: Conformance) -> list[str]:
    """How each divergence differs, as a cause key."""
    from replay.conformance.kernel import layout as K
    from replay.conformance.told import kind_of

    told = (K.W_DIVERGES, K.W_REPLAY)
    return [kind_of(d) for d in conformance.deviations if d.what in told]


def hazards(conformance: Conformance) -> list[str]:
    """The names of the known bugs that were seen, in order."""
    from replay.conformance.told import HAZARDS

    return [HAZARDS[d.what][0] for d in conformance.deviations if d.what in HAZARDS]
