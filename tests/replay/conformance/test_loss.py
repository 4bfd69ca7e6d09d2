"""Lost events: what they may have changed is not compared until it is seen again."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from conforming import events_of, followed, ways

from replay.conformance.matcher import Tally
from tracekit.events import Event
from tracekit.events.trace import EventsLost
from tracekit.synth.calls import Call, Op
from tracekit.synth.guest import BASE, GENERATIONS, PAGE, Guest

QEMUS = ("merged", "11.1")


def with_devices(generation: str, count: int) -> Guest:
    guest = Guest(generation)
    for _ in range(count):
        guest.plug_device()
    return guest


def after(guest: Guest, calls: int) -> int:
    """How many events the guest's first calls are."""
    return len(events_of(guest, guest.rendered.calls[:calls]))


def lossy(events: list[Event], first: int, last: int) -> list[Event]:
    """Events without [first, last), and a mark for them."""
    begin, end = events[first - 1].ts_ns, events[last].ts_ns
    mark = EventsLost(ts_ns=begin, until_ns=end, count=last - first)
    return [*events[:first], mark, *events[last:]]


def without(guest: Guest, first: int, last: int) -> list[Event]:
    """The guest's recording, in which its calls [first, last) are lost."""
    return lossy(events_of(guest), after(guest, first), after(guest, last))


def place(guest: Guest, op: Op, space: int) -> int:
    """The first such call's place."""
    return next(i for i, c in enumerate(guest.rendered.calls) if (c.op, c.space) == (op, space))


def unplugged(guest: Guest) -> None:
    """The second device goes."""
    guest.unplug_device(1)
    guest.containers.pop()


def converted(guest: Guest, end: int) -> None:
    """Blocks up to ``end``, two at a time, become shared and private again."""
    for first in range(0, end, 2):
        guest.convert(first, 2, private=False)
        guest.convert(first, 2, private=True)


def tally_of(generation: str, events: list[Event], folder: Path) -> Tally:
    """What was compared of a recording in which nothing diverges."""
    c = followed(events, folder, generation)
    assert ways(c) == []
    return c.tally


@pytest.mark.parametrize("generation", GENERATIONS)
def test_a_container_whose_beginning_was_lost_is_no_divergence(
    generation: str, tmp_path: Path
) -> None:
    guest = with_devices(generation, 1)
    converted(guest, 8)
    begin = len(guest.rendered.calls)
    guest.plug_device()
    end = len(guest.rendered.calls)
    converted(guest, 24)
    tally = tally_of(generation, without(guest, begin, end), tmp_path)
    assert tally.conforming >= 18
    assert tally.reasons["unknown_container"] <= 1


@pytest.mark.parametrize("generation", GENERATIONS)
def test_a_container_whose_end_was_lost_is_not_waited_for(generation: str, tmp_path: Path) -> None:
    guest = with_devices(generation, 2)
    converted(guest, 8)
    begin = len(guest.rendered.calls)
    unplugged(guest)
    end = len(guest.rendered.calls)
    converted(guest, 24)
    assert tally_of(generation, without(guest, begin, end), tmp_path).conforming >= 18


@pytest.mark.parametrize("generation", GENERATIONS)
def test_a_slot_whose_call_was_lost_is_memory_all_the_same(generation: str, tmp_path: Path) -> None:
    guest = Guest(generation)
    at = next(i for i, c in enumerate(guest.rendered.calls) if c.op is Op.SLOT)
    guest.plug_device()
    converted(guest, 16)
    events = without(guest, at, at + 1)
    assert tally_of(generation, events, tmp_path).conforming > 10


@pytest.mark.parametrize("generation", GENERATIONS)
def test_how_old_containers_are_is_learned_from_a_conversion(
    generation: str, tmp_path: Path
) -> None:
    """After a loss, or where the trace begins late: whichever thread maps what first."""
    for late in (False, True):
        guest = with_devices(generation, 3)
        begin = len(guest.rendered.calls)
        firmware = [
            Call(Op.UNMAP, at=BASE + (1 << 30), size=PAGE, space=space, ret=0)
            for space in (1, 0, 2)
        ]
        guest.rendered.calls += firmware
        guest.rendered.run()
        converted(guest, 24)
        events = events_of(guest)
        first = after(guest, begin)
        events = events[first:] if late else lossy(events, first - 3, first)
        assert tally_of(generation, events, tmp_path).conforming > 10


@pytest.mark.parametrize("generation", GENERATIONS)
def test_without_slots_any_unmap_may_be_of_a_listener_that_goes(
    generation: str, tmp_path: Path
) -> None:
    """The trace begins late; the device's file stays open."""
    guest = with_devices(generation, 2)
    begin = len(guest.rendered.calls)
    converted(guest, 8)
    guest.convert(0, 8, private=False)
    unplugged(guest)
    converted(guest, 8)
    assert tally_of(generation, events_of(guest)[after(guest, begin) :], tmp_path).conforming > 8


@pytest.mark.parametrize("generation", GENERATIONS)
def test_a_discard_that_was_lost_is_not_missed_although_others_are_seen(
    generation: str, tmp_path: Path
) -> None:
    """Of a file, of which only a discard shows that it is not of huge pages."""
    guest = Guest(generation, fd_backed=True)
    guest.plug_device()
    converted(guest, 8)
    first = guest.rendered.calls.index(
        next(c for c in guest.rendered.calls if c.op is Op.FALLOCATE and c.at == BASE)
    )
    events = without(guest, first, first + 1)
    assert tally_of(generation, events, tmp_path).reasons["loss"] >= 1


@pytest.mark.parametrize("generation", GENERATIONS)
def test_what_happens_while_events_are_lost_is_not_compared(
    generation: str, tmp_path: Path
) -> None:
    """A hole is one CPU's: the others' events in it are there, and are half of what happened."""
    guest = with_devices(generation, 2)
    begin = len(guest.rendered.calls)
    guest.convert(8, 4, private=False)  # tells both containers
    gone = len(guest.rendered.calls)
    unplugged(guest)
    end = len(guest.rendered.calls)
    guest.convert(8, 4, private=True)
    converted(guest, 24)
    events = events_of(guest)
    first, hole, last = (after(guest, calls) for calls in (begin, gone, end))
    mark = EventsLost(ts_ns=events[first - 1].ts_ns, until_ns=events[last].ts_ns, count=last - hole)
    assert (
        tally_of(
            generation, [*events[:first], mark, *events[first:hole], *events[last:]], tmp_path
        ).conforming
        > 10
    )


def test_in_v4_a_loss_hides_how_large_a_request_was(tmp_path: Path) -> None:
    """A mixed range is changed block by block, and the discard that tells it is lost."""
    guest = Guest("v4")
    guest.plug_device()
    guest.convert(4, 2, private=False)
    guest.convert(0, 8, private=False)
    guest.convert(2, 2, private=True)
    begin = len(guest.rendered.calls)
    guest.convert(0, 8, private=True)
    calls = guest.rendered.calls
    changes = [i for i in range(begin, len(calls)) if calls[i].op is Op.ATTRIBUTE]
    guest.rendered.run()
    assert len(changes) == 6
    events = without(guest, changes[1] + 1, len(calls) - 1)
    assert ways(followed(events, tmp_path, "v4")) == []


@pytest.mark.parametrize("generation", QEMUS)
def test_a_divergence_is_found_again_after_a_loss(generation: str, tmp_path: Path) -> None:
    guest = with_devices(generation, 2)
    at = len(guest.rendered.calls)
    converted(guest, 8)
    begin = len(guest.rendered.calls)
    guest.convert(0, 2, private=False)
    guest.convert(0, 2, private=True)
    calls = guest.rendered.calls
    unmaps = [i for i in range(begin, len(calls)) if calls[i].op is Op.UNMAP]
    calls.pop(unmaps[-1])
    events = without(guest, at - 1, at)
    c = followed(events, tmp_path, generation)
    assert len(ways(c)) == 1
    assert dataclasses.astuple(c.deviations[0].expected)[0] == "unmap"
    assert place(guest, Op.ATTACH, 1)
