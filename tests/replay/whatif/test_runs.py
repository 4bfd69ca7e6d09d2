"""Arithmetic on runs counts what the models count page by page, in every world."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from replay.whatif import Granularity, Iommu, Kind, Request, Requests, World
from replay.whatif.counts import Counts, Failure
from replay.whatif.machine import KVM_MEMSLOTS, play
from replay.whatif.runs import count, device_check
from replay.whatif.world import UNLIMITED

PAGE = 4096
PAGES = 24

requests = st.builds(
    lambda kind, first, pages, each: Request(
        kind, first * PAGE, min(pages, PAGES - first) * PAGE, 0, each * PAGE
    ),
    st.sampled_from((Kind.TO_SHARED, Kind.TO_PRIVATE)),
    st.integers(0, PAGES - 1),
    st.integers(1, PAGES),
    st.sampled_from((0, 0, 1, 2, 4, 5)),
)
worlds = st.builds(
    lambda generation, granularity, iommu: World(
        generation=generation, granularity=granularity, iommu=iommu, dma_entry_limit=UNLIMITED
    ),
    st.sampled_from(("v4", "merged", "11.1")),
    st.sampled_from(Granularity),
    st.sampled_from(Iommu),
)


def by_models(asked: list[Request], world: World) -> Counts:
    return play(
        Requests(process=1, regions=((0, PAGES * PAGE),), requests=tuple(asked)), world
    )  # fmt: skip


def what(failure: Failure | None) -> tuple[object, ...] | None:
    if failure is None:
        return None
    return (failure.request, failure.call, failure.address, failure.size, failure.errno)


def counted(counts: Counts) -> tuple[object, ...]:
    return (
        counts.conversions,
        counts.maps,
        counts.unmaps,
        counts.flushes,
        counts.splits,
        counts.entries,
        counts.peak,
        counts.doubled,
        counts.series,
    )


@settings(deadline=None, max_examples=300)
@given(st.lists(requests, max_size=12), worlds)
def test_both_count_the_same_or_fail_first_at_the_same_call(
    asked: list[Request], world: World
) -> None:
    models, arithmetic = by_models(asked, world), count(PAGES * PAGE, asked, world)
    assert what(models.failure) == what(arithmetic.failure)
    if models.failure is None:
        assert counted(models) == counted(arithmetic)


@settings(deadline=None, max_examples=200)
@given(st.lists(requests, max_size=10), worlds, st.integers(0, PAGES))
@example(  # the last of a series is shorter, and cuts an entry when the one before it made room
    [
        Request(Kind.TO_SHARED, 3 * PAGE, 21 * PAGE, 0, 5 * PAGE),
        Request(Kind.TO_PRIVATE, 8 * PAGE, 6 * PAGE, 0, 5 * PAGE),
    ],
    World(granularity=Granularity.CUT),
    5,
)
def test_with_few_entries_both_run_out_at_the_same_call(
    asked: list[Request], world: World, limit: int
) -> None:
    world = replace(world, generation="v4", iommu=Iommu.TYPE1, dma_entry_limit=limit)
    models, arithmetic = by_models(asked, world), count(PAGES * PAGE, asked, world)
    assert what(models.failure) == what(arithmetic.failure)


@pytest.mark.parametrize("generation", ["v4", "merged", "11.1"])
@pytest.mark.parametrize("granularity", Granularity)
@pytest.mark.parametrize("short", [0, 1])
def test_both_refuse_a_device_for_the_same_limit(
    generation: str, granularity: Granularity, short: int
) -> None:
    world = World(generation=generation, granularity=granularity)
    wanted = device_check(PAGES * PAGE, world)
    world = replace(world, dma_entry_limit=max(wanted, 1) - short)
    models, arithmetic = by_models([], world), count(PAGES * PAGE, [], world)
    refused = bool(short) and generation != "v4"
    assert (models.failure is not None, arithmetic.failure is not None) == (refused, refused)
    if refused:
        assert models.failure == arithmetic.failure
        assert wanted > KVM_MEMSLOTS - 1
