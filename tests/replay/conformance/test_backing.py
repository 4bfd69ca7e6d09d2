"""QEMU discards no huge pages: what the trace says of the memory decides what is expected."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from conforming import events_of, followed, ways

from replay.conformance.told import judged, violations_of
from tracekit.synth.calls import Op
from tracekit.synth.guest import BASE, PAGE, Guest
from tracekit.synth.vmm import Region, Vmm

QEMUS = ("merged", "11.1")
HUGE = 2 << 20
MAP_SHARED, MAP_ANONYMOUS, MAP_HUGETLB = 0x1, 0x22, 0x40000
DISCARDS = (Op.FALLOCATE, Op.MADVISE)


def converting(generation: str, *, flags: int, page_size: int = PAGE) -> Guest:
    """Four buffers become shared, and private again; ``flags`` of the memory's mmap()."""
    blocks = 512
    region = Region(size=blocks * PAGE, fd=-1 if flags & MAP_ANONYMOUS == MAP_ANONYMOUS else 4)
    guest = Guest(
        generation, blocks=blocks, fd_backed=region.fd >= 0, page_size=page_size,
        vmm=Vmm(regions=(region,)),
    )  # fmt: skip
    guest.plug_device()
    for private in (False, True):
        for first in range(0, 64, 16):
            guest.convert(first, 16, private=private)
    calls = guest.rendered.calls
    calls[:] = [replace(c, value=flags) if c.op is Op.MMAP else c for c in calls]
    return guest


def without_discards(guest: Guest, *numbers: int) -> Guest:
    """Some of the conversions to private keep the shared side."""
    gone = {BASE + 16 * PAGE * number for number in numbers}
    calls = guest.rendered.calls
    calls[:] = [c for c in calls if not (c.op in DISCARDS and c.at in gone)]
    return guest


@pytest.mark.parametrize("generation", QEMUS)
@pytest.mark.parametrize("flags", [MAP_ANONYMOUS | MAP_HUGETLB, MAP_SHARED | MAP_HUGETLB])
def test_what_is_of_huge_pages_is_not_discarded(
    generation: str, flags: int, tmp_path: Path
) -> None:
    guest = converting(generation, flags=flags, page_size=HUGE)
    assert not any(c.op in DISCARDS for c in guest.rendered.calls)
    c = followed(events_of(guest), tmp_path, generation)
    assert ways(c) == []
    assert (c.tally.conforming, c.tally.diverging) == (8, 0)
    assert judged(c).undecided == 0


@pytest.mark.parametrize("generation", QEMUS)
def test_a_discard_of_huge_pages_diverges(generation: str, tmp_path: Path) -> None:
    guest = converting(generation, flags=MAP_SHARED | MAP_HUGETLB)
    c = followed(events_of(guest), tmp_path, generation)
    assert ways(c) == ["extra-discard"] * 4
    first = next(violations_of(c))
    assert any(note.startswith(f"3. {generation}: nothing | seen: disc") for note in first.notes)


@pytest.mark.parametrize("generation", QEMUS)
def test_anonymous_memory_of_small_pages_is_discarded(generation: str, tmp_path: Path) -> None:
    guest = without_discards(converting(generation, flags=MAP_ANONYMOUS), 0, 1, 2, 3)
    assert ways(followed(events_of(guest), tmp_path, generation)) == ["missing-discard"] * 4


@pytest.mark.parametrize("generation", QEMUS)
@pytest.mark.parametrize("without", [(), ("mmap.entered", "mmap.returned")])
def test_of_a_file_it_is_not_known_until_a_conversion_discards(
    generation: str, without: tuple[str, ...], tmp_path: Path
) -> None:
    """hugetlbfs looks like any file.  Those before the first discard are told all the same."""
    for gone, told in (((0, 1, 2, 3), 0), ((0, 1), 2), ((3,), 1), ((), 0)):
        guest = without_discards(converting(generation, flags=MAP_SHARED), *gone)
        c = followed(events_of(guest), tmp_path, generation, without=without)
        assert ways(c) == ["missing-discard"] * told
        assert (c.tally.conforming, c.tally.diverging) == (8 - told, told)
        assert [d.gpa for d in c.deviations] == [BASE + 16 * PAGE * n for n in gone[:told]]


def test_what_is_mapped_over_huge_pages_is_what_counts(tmp_path: Path) -> None:
    """QEMU reserves addresses before it maps memory there."""
    guest = without_discards(converting("merged", flags=MAP_ANONYMOUS), 0, 1, 2, 3)
    calls = guest.rendered.calls
    at = next(i for i, c in enumerate(calls) if c.op is Op.MMAP)
    over = replace(calls[at], value=MAP_SHARED | MAP_HUGETLB)
    calls.insert(at + 1, over)
    assert ways(followed(events_of(guest), tmp_path, "merged")) == []
    calls[at], calls[at + 1] = calls[at + 1], calls[at]
    assert ways(followed(events_of(guest), tmp_path, "merged")) == ["missing-discard"] * 4
