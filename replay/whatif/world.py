"""What a world is: which QEMU, how it maps, through which kernel interface, with which limit."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from replay.models.type1_iommu import DMA_ENTRY_LIMIT
from tracekit.errors import UnknownNameError, UsageError

__all__ = ("GENERATIONS", "UNLIMITED", "Granularity", "Iommu", "World", "standard_worlds")

GENERATIONS = ("v4", "merged", "11.1")
UNLIMITED = 1 << 62


class Granularity(Enum):
    """How large the pieces are in which shared memory is mapped for a device."""

    PAGE = "4k"
    """4 KiB, so that any unmap finds whole entries: what every generation of QEMU does."""
    CUT = "cut"
    """One map a notification; an unmap first splits the entries that it would cut.  The kernel has
    no such call yet: the series' cover letter hopes for it as cut_mapping."""
    NATURAL = "natural"
    """One map a notification and no split: an unmap that cuts an entry is refused."""


class Iommu(Enum):
    """The kernel's interface."""

    TYPE1 = "type1"
    IOMMUFD = "iommufd"


@dataclass(frozen=True, kw_only=True)
class World:
    """One way in which the requests could have been served.

    ``dma_entry_limit`` is type1's.  ``in_place``: private and shared memory are the same pages, so
    nothing is discarded, a page that is mapped for a device cannot become private, and one that is
    private cannot be mapped.  ``vfio_priority``: v4's, where the attribute's is 0; the lower one
    hears first on the way to shared and last on the way back.

    :raises UnknownNameError: no such generation
    :raises UsageError: a negative limit, or a priority where there is none
    """

    generation: str = "merged"
    granularity: Granularity = Granularity.PAGE
    iommu: Iommu = Iommu.TYPE1
    dma_entry_limit: int = DMA_ENTRY_LIMIT
    in_place: bool = False
    vfio_priority: int = 10

    def __post_init__(self) -> None:
        if self.generation not in GENERATIONS:
            raise UnknownNameError("generation", self.generation, GENERATIONS)
        if self.dma_entry_limit < 0:
            raise UsageError("dma_entry_limit is a number of entries and cannot be negative")
        if self.vfio_priority != 10 and self.generation != "v4":
            raise UsageError("only the listeners of v4 have priorities", help="--generation v4")

    @property
    def name(self) -> str:
        """``merged, 4k, type1``, and what is unusual about it."""
        words = [self.generation, self.granularity.value, self.iommu.value]
        if self.iommu is Iommu.TYPE1 and self.dma_entry_limit not in (DMA_ENTRY_LIMIT, UNLIMITED):
            words.append(f"limit {self.dma_entry_limit}")
        if self.vfio_priority != 10:
            words.append(f"VFIO priority {self.vfio_priority}")
        return ", ".join([*words, *(["in place"] if self.in_place else [])])


def standard_worlds(*, dma_entry_limit: int = DMA_ENTRY_LIMIT) -> tuple[World, ...]:
    """The worlds that are compared when none is asked for."""

    def world(
        generation: str,
        granularity: Granularity = Granularity.PAGE,
        iommu: Iommu = Iommu.TYPE1,
        in_place: bool = False,
    ) -> World:
        return World(
            generation=generation,
            granularity=granularity,
            iommu=iommu,
            dma_entry_limit=dma_entry_limit,
            in_place=in_place,
        )

    return (
        *(world(generation) for generation in GENERATIONS),
        world("merged", iommu=Iommu.IOMMUFD),
        world("merged", Granularity.CUT),
        world("merged", Granularity.CUT, Iommu.IOMMUFD),
        world("merged", Granularity.NATURAL),
        world("v4", in_place=True),
        world("merged", in_place=True),
    )
