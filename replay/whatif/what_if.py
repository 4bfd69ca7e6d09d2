"""The same requests in several worlds, side by side."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from replay.whatif.counts import Counts
from replay.whatif.machine import play
from replay.whatif.requests import Requests
from replay.whatif.runs import device_check
from replay.whatif.world import UNLIMITED, Granularity, Iommu, World

__all__ = ("Answer", "enough_text", "what_if")


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What became of the requests in one world.

    ``needed``: DMA entries at peak without any limit, as far as the requests got.  ``enough``: the
    ``dma_entry_limit`` that would have been enough, which from QEMU 10.1 on is what its own check
    wants; None: no limit is (the failure is of another sort), or there is none (iommufd).
    """

    world: World
    counts: Counts
    needed: int
    enough: int | None


def what_if(
    requests: Requests, worlds: Sequence[World], *, progress: Callable[[int], None] | None = None
) -> list[Answer]:
    """Play the requests of one process in each world.

    A world whose limit was met is played once more without one, to see what it would have taken.
    ``progress`` is called with the number of requests played so far, over all worlds.

    :raises TracekitError: too much memory or too many calls to be played page by page
    """
    answers = []
    total = len(requests.requests)
    for number, world in enumerate(worlds):

        def told(done: int, base: int = number * total) -> None:
            if progress is not None:
                progress(base + done)

        counts = play(requests, world, progress=told)
        free = counts
        if _is_limited(world, counts):
            free = play(requests, replace(world, dma_entry_limit=UNLIMITED), progress=told)
        answers.append(
            Answer(
                world=world,
                counts=counts,
                needed=free.peak,
                enough=_enough(requests, world, free),
            )
        )
    return answers


def enough_text(world: World, needed: int, enough: int | None) -> str:
    """The setting that would have been enough, in words."""
    if world.iommu is Iommu.IOMMUFD:
        return "iommufd has no limit"
    if enough is None:
        return "no dma_entry_limit"
    why = f" ({needed:,} used)" if enough != needed else ""
    return f"dma_entry_limit={enough}{why}"


def _is_limited(world: World, counts: Counts) -> bool:
    failure = counts.failure
    limited = failure is not None and (failure.errno == "ENOSPC" or failure.call == "device")
    return limited and world.iommu is Iommu.TYPE1


def _enough(requests: Requests, world: World, free: Counts) -> int | None:
    if world.iommu is Iommu.IOMMUFD:
        return None
    if world.granularity is Granularity.NATURAL and free.failure is not None:
        return None
    if free.failure is not None and world.in_place:
        return None
    check = device_check(sum(size for _, size in requests.regions), world)
    if not requests.regions:
        check = 0
    elif world.granularity is not Granularity.PAGE and check:
        check += len(requests.regions) - 1
    return max(free.peak, check)
