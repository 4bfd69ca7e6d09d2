"""Written and recorded requests in other worlds: what each would have done about them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from judging import events_of
from recorded.recordings import Recording, recordings

from replay import run
from replay.whatif import (
    Answer,
    Granularity,
    Iommu,
    Kind,
    Request,
    Requests,
    World,
    requests_of,
    standard_worlds,
    what_if,
)
from replay.whatif.boot import all_shared, boot, bounce_buffer
from replay.whatif.machine import play
from replay.whatif.runs import count
from replay.whatif.text import text_of
from replay.whatif.world import UNLIMITED
from tracekit.errors import UnknownNameError, UsageError
from tracekit.store import open_trace, write_events

GIB = 1 << 30
PAGE = 4096

CONVERTING = """
    0us    vmm  create-vm
    1us    vmm  memory
    2us    vmm  set-iommu
    10us   vmm  private 0x0+16M
    20us   vmm  shared 0x100000+64K
    25us   vmm  map 0x100000+64K each=4K
    40us   vmm  private 0x104000+16K
    45us   vmm  unmap 0x104000+16K
    60us   vmm  shared 0x104000+8K
    65us   vmm  map 0x104000+8K each=4K
    80us   vmm  map 0x40000000+4M
    90us   vmm  unmap 0x40000000+4M
    99us   end
"""


def requests(text: str, folder: Path) -> Requests:
    path = folder / "t.parquet"
    write_events(path, events_of(text))
    (told,) = requests_of(open_trace(path))
    return told


def answer(told: Requests, world: World) -> Answer:
    return what_if(told, [world])[0]


def test_requests_are_what_was_asked_and_not_what_was_done(tmp_path: Path) -> None:
    told = requests(CONVERTING, tmp_path)
    assert told.regions == ((0, 16 << 20),)
    assert [(r.kind, r.gpa, r.size) for r in told.requests] == [
        (Kind.TO_SHARED, 0x100000, 64 << 10),
        (Kind.TO_PRIVATE, 0x104000, 16 << 10),
        (Kind.TO_SHARED, 0x104000, 8 << 10),
        (Kind.ADD, 0x40000000, 4 << 20),
        (Kind.REMOVE, 0x40000000, 4 << 20),
    ]


def test_memory_that_was_never_made_private_at_first_was_shared(tmp_path: Path) -> None:
    text = "1us vmm set-iommu\n3us vmm map 0x100000+8K\n9us vmm private 0x100000+8K\n12us end"
    told = requests(text, tmp_path)
    assert [r.kind for r in told.requests] == [Kind.TO_SHARED, Kind.TO_PRIVATE]
    told = requests(
        """
        1us  vmm set-iommu
        9us  vmm private 0x100000+8K
        12us vmm shared  0x102000+8K
        20us vmm private 0x100000+16K
        30us end
        """,
        tmp_path,
    )
    first = told.requests[0]
    assert (first.kind, first.gpa, first.size) == (Kind.TO_SHARED, 0x100000, 16 << 10)


def test_a_container_that_closes_takes_its_memory_along(tmp_path: Path) -> None:
    text = "1us vmm set-iommu\n3us vmm map 0x0+4M\n9us vmm close 8\n12us vmm map 0x0+4M\n20us end"
    kinds = [r.kind for r in requests(text, tmp_path).requests]
    assert kinds == [Kind.ADD, Kind.REMOVE, Kind.ADD]


def test_the_calls_of_each_world(tmp_path: Path) -> None:
    told = requests(CONVERTING, tmp_path)
    pages = answer(told, World()).counts
    assert (pages.peak, pages.entries) == (16, 14)
    assert (pages.maps, pages.unmaps, pages.flushes) == (16 + 2 + 1, 2, 4 + 1)
    assert pages.failure is None
    assert pages.doubled == 64 << 10
    cut = answer(told, World(granularity=Granularity.CUT)).counts
    assert (cut.maps, cut.unmaps, cut.splits) == (3, 2, 2)
    assert (cut.peak, cut.entries) == (4, 3)


@pytest.mark.parametrize(("iommu", "errno"), [(Iommu.TYPE1, "EINVAL"), (Iommu.IOMMUFD, "ENOENT")])
def test_whole_maps_and_no_split_leave_memory_mapped(
    tmp_path: Path, iommu: Iommu, errno: str
) -> None:
    told = requests(CONVERTING, tmp_path)
    got = answer(told, World(granularity=Granularity.NATURAL, iommu=iommu))
    failure = got.counts.failure
    assert failure is not None
    assert (failure.call, failure.errno, failure.request) == ("unmap", errno, 1)
    assert failure.broken == "16 KiB stay mapped while private (TK101)"
    assert got.enough is None


def test_a_limit_that_is_too_low_breaks_what_the_generation_breaks(tmp_path: Path) -> None:
    told = requests(CONVERTING, tmp_path)
    v4 = answer(told, World(generation="v4", dma_entry_limit=15))
    assert v4.counts.failure is not None
    assert (v4.counts.failure.errno, v4.counts.failure.address) == ("ENOSPC", 0x10F000)
    assert v4.counts.failure.broken == "the conversion is refused, and undone"
    assert (v4.needed, v4.enough) == (16, 16)
    assert answer(told, World(generation="v4", dma_entry_limit=16)).counts.failure is None
    merged = answer(told, World(dma_entry_limit=15))
    assert merged.counts.failure is not None
    assert merged.counts.failure.call == "device"
    assert merged.enough is not None
    assert answer(told, World(dma_entry_limit=merged.enough)).counts.failure is None
    less = answer(told, World(dma_entry_limit=merged.enough - 1)).counts.failure
    assert less is not None
    assert less.call == "device"


def test_in_place_memory_wants_the_order_of_v4(tmp_path: Path) -> None:
    told = requests(CONVERTING, tmp_path)
    assert answer(told, World(generation="v4", in_place=True)).counts.failure is None
    merged = answer(told, World(in_place=True)).counts
    assert merged.rejected == 1
    assert merged.first_rejected is not None
    assert (merged.first_rejected.call, merged.first_rejected.address) == ("attribute", 0x104000)
    assert merged.doubled == 0
    early = World(generation="v4", in_place=True, vfio_priority=-1)
    first = answer(told, early).counts.first_rejected
    assert first is not None
    assert (first.call, first.errno) == ("map", "EFAULT")


def test_a_listener_that_hears_before_the_attribute_maps_what_is_private(tmp_path: Path) -> None:
    told = requests(CONVERTING, tmp_path)
    early = answer(told, World(generation="v4", vfio_priority=-1)).counts
    assert (early.failure, early.premature) == (None, 16 + 2)
    assert answer(told, World(generation="v4")).counts.premature == 0
    assert "18 maps of private memory (TK103)" in text_of(
        told, what_if(told, [World(generation="v4", vfio_priority=-1)])
    )


def test_the_text_says_what_cut_mapping_saves_and_says_equal_things_once(tmp_path: Path) -> None:
    told = requests(CONVERTING, tmp_path)
    text = text_of(told, what_if(told, standard_worlds()))
    saved = " ".join(text.split("\ncut-mapping ")[1].split("\n\n")[0].split())
    assert saved == (
        "(merged, type1) takes 4 entries in place of 16, 3 map calls in place of 19,"
        " 2 flushes in place of 5, and 2 splits"
    )
    assert text.count("iommufd has no limit") == 1
    assert "4,096 DMA entries of 4 KiB" in text
    assert "x first failure" in text


def test_a_guest_of_16_gib_is_told_its_4194304_entries() -> None:
    asked = (Request(Kind.TO_SHARED, 0, 2 << 20),)
    told = Requests(process=1, regions=((0, 16 * GIB),), requests=asked)
    world = World(granularity=Granularity.CUT, iommu=Iommu.IOMMUFD)
    assert "4,194,304 DMA entries of 4 KiB" in text_of(told, what_if(told, [world]))


def test_the_series_say_how_things_stand_after_each_request(tmp_path: Path) -> None:
    told = requests(CONVERTING, tmp_path)
    counts = answer(told, World()).counts
    assert [p.ts_ns for p in counts.series] == [r.ts_ns for r in told.requests]
    assert [p.entries for p in counts.series] == [16, 12, 14, 15, 14]
    assert [p.maps for p in counts.series] == [16, 16, 18, 19, 19]
    assert [p.flushes for p in counts.series] == [0, 4, 4, 4, 5]
    natural = answer(told, World(granularity=Granularity.NATURAL)).counts
    assert natural.series[-1].doubled == natural.doubled_left > 0


def test_worlds_that_cannot_be_are_refused() -> None:
    with pytest.raises(UnknownNameError):
        World(generation="12.0")
    with pytest.raises(UsageError):
        World(dma_entry_limit=-1)
    with pytest.raises(UsageError):
        World(vfio_priority=5)


def test_the_cover_letters_example_a_guest_of_16_gib_needs_4194304_entries() -> None:
    world = World(generation="v4", dma_entry_limit=UNLIMITED)
    assert count(16 * GIB, all_shared(16 * GIB), world).peak == 4194304
    enough = replace(world, dma_entry_limit=4194304)
    assert count(16 * GIB, all_shared(16 * GIB), enough).failure is None
    short = count(16 * GIB, all_shared(16 * GIB), replace(world, dma_entry_limit=4194303)).failure
    assert short is not None
    assert (short.errno, short.address) == ("ENOSPC", 16 * GIB - PAGE)
    usual = count(16 * GIB, all_shared(16 * GIB), World(generation="v4")).failure
    assert usual is not None
    assert usual.address == 65535 * PAGE
    cut = count(16 * GIB, all_shared(16 * GIB), replace(world, granularity=Granularity.CUT))
    assert cut.peak == 8192
    iommufd = World(generation="v4", iommu=Iommu.IOMMUFD)
    assert count(16 * GIB, all_shared(16 * GIB), iommufd).failure is None


@pytest.mark.parametrize("world", standard_worlds(), ids=lambda w: w.name)
def test_a_small_boot_through_the_models_is_counted_the_same(world: World) -> None:
    size = 80 << 20
    world = replace(world, dma_entry_limit=UNLIMITED)
    for asked in (boot(size), all_shared(16 << 20)):
        told = Requests(process=1, regions=((0, size),), requests=tuple(asked))
        models, runs = play(told, world), count(size, asked, world)
        assert (models.failure is None) == (runs.failure is None)
        if models.failure is None:
            assert models == runs


def test_the_priorities_of_v4_change_no_count() -> None:
    size = 80 << 20
    for asked in (boot(size), all_shared(16 << 20)):
        told = Requests(process=1, regions=((0, size),), requests=tuple(asked))
        usual = World(generation="v4", dma_entry_limit=UNLIMITED)
        late, early = play(told, usual), play(told, replace(usual, vfio_priority=-1))
        assert (late.premature, early.premature) == (0, early.maps)
        assert early == replace(late, premature=early.premature)
        refused = play(told, replace(usual, vfio_priority=-1, in_place=True))
        assert refused.first_rejected is not None
        assert (refused.first_rejected.call, refused.first_rejected.errno) == ("map", "EFAULT")
        assert refused.peak == 0


def test_the_bounce_buffer_is_what_linux_takes() -> None:
    assert bounce_buffer(GIB) == 64 << 20
    assert bounce_buffer(1 << 40) == GIB
    assert bounce_buffer(8 * GIB) == 8 * GIB * 6 // 100 // (2 << 20) * (2 << 20)


def converting() -> list[Recording]:
    return [r for r in recordings() if r.group == "kvm"]


@pytest.mark.parametrize("recording", converting(), ids=lambda r: r.name)
def test_recorded_requests_fit_every_sound_world(recording: Recording) -> None:
    trace = open_trace(recording.imported(probes=False))
    told = requests_of(trace)[0]
    assert told.regions
    sound = [World(generation=g, in_place=g == "v4") for g in ("v4", "merged", "11.1")]
    for got in what_if(told, [*sound, World(granularity=Granularity.CUT)]):
        assert got.counts.failure is None, got
        assert got.counts.conversions == sum(r.kind.converts for r in told.requests)


def in_qemus_order() -> list[Recording | None]:
    return [None, *(r for r in converting() if "qemuorder-type1-correct" in r.name)]


@pytest.mark.parametrize("recording", in_qemus_order(), ids=lambda r: r.name if r else "written")
def test_in_place_rejects_what_tk111_says_of_the_same_order(
    recording: Recording | None, tmp_path: Path
) -> None:
    """In the order of the merged QEMU, model and engine must say the same."""
    path = tmp_path / "t.parquet"
    if recording is None:
        write_events(path, events_of(CONVERTING))
    trace = open_trace(path if recording is None else recording.imported(probes=False))
    told = requests_of(trace)[0]
    counts = answer(told, World(in_place=True)).counts
    findings = run(trace, only=["TK111"], in_place=True).findings
    late = [f for f in findings if f.cause == "unmap after private"]
    assert counts.rejected == sum(f.count for f in late) > 0
    first = min(o.gpa for f in late for o in f.occurrences[:1] if o.gpa is not None)
    assert counts.first_rejected is not None
    assert counts.first_rejected.address == first
