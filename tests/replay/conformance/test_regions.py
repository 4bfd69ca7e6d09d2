"""QEMU without a conversion: its regions are its memory slots, and so it is known."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from conforming import followed

from replay.conformance.told import judged
from tracekit.events import Event
from tracekit.findings import Judged
from tracekit.synth.calls import PAGE, Call, Op
from tracekit.synth.render import Renderer
from tracekit.synth.vmm import BASE, Region, Vmm

SIZE = 64 * PAGE
PLACES = [BASE + i * (1 << 30) for i in range(5)]
VMM = Vmm(regions=tuple(Region(gpa=at, size=SIZE, host=at << 4, gmem=-1) for at in PLACES))


def slots(places: Sequence[int]) -> list[Call]:
    return [Call(Op.SLOT, at=at, size=SIZE, value=n) for n, at in enumerate(places)]


def maps(places: Sequence[int], size: int = SIZE) -> list[Call]:
    return [Call(Op.MAP, at=at, size=size) for at in places]


def recorded(calls: Sequence[Call]) -> list[Event]:
    renderer = Renderer(VMM)
    renderer.calls += [Call(Op.CREATE_VM), Call(Op.ATTACH), *calls]
    return renderer.events


def said(calls: Sequence[Call], folder: Path) -> Judged:
    unmaps = [Call(Op.UNMAP, at=c.at, size=c.size) for c in calls if c.op is Op.MAP]
    return judged(followed(recorded([*calls, *unmaps]), folder))


@pytest.mark.parametrize("later", [False, True])
def test_regions_that_are_slots_are_compared(later: bool, tmp_path: Path) -> None:
    """Slots come first where a device comes, and last where memory does."""
    first, last = slots(PLACES), maps(PLACES)
    if later:
        first, last = last, first
    told = said([*first, *last], tmp_path)
    assert (told.decided, told.undecided) == (10, 0)


def test_a_program_that_maps_other_memory_is_no_qemu(tmp_path: Path) -> None:
    for calls in ([*slots(PLACES), *maps(PLACES, SIZE // 2)], maps(PLACES), maps(PLACES[:2])):
        told = said(calls, tmp_path)
        assert told.decided == 0
        assert set(told.reasons) == {"no_generation"}


def test_the_few_maps_that_are_no_slots_are_not_compared(tmp_path: Path) -> None:
    told = said([*slots(PLACES), *maps(PLACES), *maps(PLACES[:1], PAGE)], tmp_path)
    assert told.reasons == {"no_generation": 1, "unknown_mapping": 1}
    assert told.decided == 10


def test_a_slot_that_is_gone_is_none(tmp_path: Path) -> None:
    gone = [Call(Op.SLOT, at=c.at, size=0, value=c.value) for c in slots(PLACES)]
    told = said([*slots(PLACES), *gone, *maps(PLACES)], tmp_path)
    assert told.decided == 0
