"""Several VMs in one process, and several processes: each has a state of its own."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conforming import followed, ways

from replay.conformance.told import violations_of
from tracekit.events import Event
from tracekit.synth.guest import GENERATIONS, PAGE, Guest
from tracekit.synth.vmm import Region, Vmm

VM_FD = 6


def guest(generation: str, tid: int, seed: int, *, host: int = 0x7F00_0000_0000) -> Guest:
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


@pytest.mark.parametrize("generation", GENERATIONS)
def test_two_processes_do_not_mix(generation: str, tmp_path: Path) -> None:
    one, two = guest(generation, 100, 1), guest(generation, 200, 2)
    c = followed(together(one.events, two.events), tmp_path, generation)
    alone = [followed(g.events, tmp_path, generation).tally for g in (one, two)]
    assert ways(c) == []
    assert c.tally.conforming == sum(t.conforming for t in alone)
    assert c.tally.compared == sum(t.compared for t in alone)


@pytest.mark.parametrize("generation", GENERATIONS)
def test_two_vms_of_a_process_do_not_mix(generation: str, tmp_path: Path) -> None:
    """The same guest addresses, different states, containers of their own."""
    one = guest(generation, 101, 1)
    two = guest(generation, 202, 2, host=0x7E00_0000_0000)
    events = together(one.events, of_process(two.events, 101, 8))
    c = followed(events, tmp_path, generation)
    alone = [followed(g.events, tmp_path, generation).tally for g in (one, two)]
    assert ways(c) == []
    assert c.tally.conforming >= sum(t.conforming for t in alone) - 2  # the first of each
    assert c.tally.compared > 30
    assert c.tids.count(101) == 2


def test_a_fault_in_one_vm_is_told_of_it_alone(tmp_path: Path) -> None:
    one = guest("merged", 101, 1)
    two = guest("merged", 202, 2, host=0x7E00_0000_0000)
    unmaps = [i for i, call in enumerate(two.rendered.calls) if call.op.value == "unmap"]
    del two.rendered.calls[unmaps[0]]
    events = together(one.events, of_process(two.events, 101, 8))
    c = followed(events, tmp_path, "merged")
    assert ways(c) == ["discard-for-unmap"]
    (deviation,) = c.deviations
    assert deviation.thread == c.tids.index(202)
    (told,) = violations_of(c)
    assert told.identity.vm.pid == 101
    assert deviation.process != c.tids.index(101)
