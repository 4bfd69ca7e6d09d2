"""A listener is registered and maps all that is shared, run by run, or goes: compared as well."""

from __future__ import annotations

from pathlib import Path

import pytest
from conforming import changed, followed, hazards, hotplugged, ways

from tracekit.synth.calls import Call, Op
from tracekit.synth.guest import BASE, GENERATIONS, PAGE, Guest


def replugged(generation: str) -> Guest:
    """The second device goes, and comes back into the same container."""
    guest = hotplugged(generation)
    guest.unplug_device(1)
    guest.containers.pop()
    guest.plug_device(space=1, announce=False)
    guest.convert(20, 4, private=True)
    return guest


def replay_of(guest: Guest) -> list[int]:
    """Where the second container's maps of its registration are."""
    calls = guest.rendered.calls
    begin = next(i for i, c in enumerate(calls) if c.op is Op.ATTACH and c.space == 1)
    end = next(i for i in range(begin, len(calls)) if calls[i].op is Op.RUN)
    return [i for i in range(begin, end) if calls[i].op is Op.MAP]


@pytest.mark.parametrize("generation", GENERATIONS)
def test_a_device_that_comes_maps_what_is_shared(generation: str, tmp_path: Path) -> None:
    guest = hotplugged(generation)
    assert len(replay_of(guest)) == 12
    c = followed(guest.events, tmp_path, generation)
    assert ways(c) == []
    assert hazards(c) == []
    assert c.tally.replayed == 12
    assert c.tally.conforming == 5


@pytest.mark.parametrize("generation", GENERATIONS)
@pytest.mark.parametrize("run", [(0, 3), (3, 4), (4, 12)])
def test_a_run_that_is_left_out_is_noticed(
    generation: str, run: tuple[int, int], tmp_path: Path
) -> None:
    guest = hotplugged(generation)
    gone = set(replay_of(guest)[run[0] : run[1]])
    left = [c for i, c in enumerate(guest.rendered.calls) if i not in gone]
    c = followed(changed(guest, left).events, tmp_path, generation)
    assert "registration-map" in ways(c)


def test_a_run_in_one_piece_or_too_far_is_noticed(tmp_path: Path) -> None:
    guest = hotplugged("merged")
    at = replay_of(guest)[2]
    calls = list(guest.rendered.calls)
    past = Call(Op.MAP, at=calls[at].at + PAGE, size=PAGE, space=1)
    c = followed(changed(guest, [*calls[: at + 1], past, *calls[at + 1 :]]).events, tmp_path)
    assert c.generation == "merged"
    assert c.tally.replayed < 13


@pytest.mark.parametrize("generation", GENERATIONS)
def test_a_device_that_goes_is_told_no_more(generation: str, tmp_path: Path) -> None:
    """From 10.1 on one unmap of the section, in v4 one of each shared run."""
    guest = hotplugged(generation)
    begin = len(guest.rendered.calls)
    guest.unplug_device(1)
    unmaps = [c for c in guest.rendered.calls[begin:] if c.op is Op.UNMAP]
    assert len(unmaps) == (3 if generation == "v4" else 1)
    guest.convert(20, 4, private=True)
    guest.convert(50, 2, private=False)
    c = followed(guest.events, tmp_path, generation)
    assert ways(c) == []
    assert c.tally.conforming == 7
    assert c.tally.replayed == 12 + len(unmaps)


@pytest.mark.parametrize("generation", GENERATIONS)
def test_a_device_that_comes_again_maps_everything_again(generation: str, tmp_path: Path) -> None:
    assert ways(followed(replugged(generation).events, tmp_path, generation)) == []
    guest = replugged(generation)
    first = [i for i, call in enumerate(guest.rendered.calls) if call.op is Op.MAP][-3:]
    left = [call for i, call in enumerate(guest.rendered.calls) if i not in first]
    assert ways(followed(changed(guest, left).events, tmp_path, generation)) != []


def test_a_device_that_stays_has_to_be_told(tmp_path: Path) -> None:
    """In v4 an unmap of a part of a shared run unregisters nobody."""
    for first, told in ((20, False), (21, True)):
        guest = hotplugged("v4")
        at, size = BASE + first * PAGE, 8 * PAGE if first == 20 else PAGE
        guest.rendered.dma_unmap(1, at, size, ((at, size),))
        guest.rendered.run()
        guest.convert(10, 1, private=True)
        calls = [
            c
            for c in guest.rendered.calls
            if not (c.op is Op.UNMAP and c.space == 1 and c.at == BASE + 10 * PAGE)
        ]
        c = followed(changed(guest, calls).events, tmp_path, "v4")
        assert bool(ways(c)) is told
