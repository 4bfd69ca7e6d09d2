# SPDX-License-Identifier: Apache-2.0
"""QEMU's side of a VFIO container: what the listeners call to map and unmap."""

from abc import ABC, abstractmethod
from typing import NamedTuple, Protocol

from replay.models.counted import counted
from replay.models.dma_entries import DmaEntries
from replay.models.errors import ModelError, UpstreamError
from replay.models.memory_region import MemoryRegion

__all__ = ("DmaLimitWarning", "RegisteredListener", "VfioContainer")


class DmaLimitWarning(NamedTuple):
    """QEMU 10.0 prints a warning and goes on; this is what it says."""

    needed: int
    dma_max_mappings: int


class RegisteredListener(Protocol):
    """What the container remembers of a listener: where it is, and its granularity."""

    mr: MemoryRegion
    offset_within_address_space: int
    size: int
    granularity: int


class VfioContainer(ABC):
    """One address space of devices, with the listeners registered for it.

    ``dma_max_mappings`` is what QEMU believes to be the limit, 0 for none.  Failed unmaps of the
    discard path, which upstream only prints, are collected in ``reported``.

    C: ``VFIOContainerBase`` (10.x) and ``VFIOContainer`` (11.x).
    """

    def __init__(self, name: str, dma_max_mappings: int, pgsize: int) -> None:
        self.name = name
        self.dma_max_mappings = dma_max_mappings
        self.pgsize = pgsize
        #: Newest first, as ``QLIST_INSERT_HEAD()`` leaves it.
        self.vrdl_list: list[RegisteredListener] = []
        #: Private/shared listeners, which v4 keeps apart.
        self.vpsl_list: list[RegisteredListener] = []
        #: Set once a device is realized; an error of region_add is fatal from then on.
        self.initialized = False
        #: The first error of region_add before that; it fails the device.
        self.error: ModelError | None = None
        self.reported: list[UpstreamError] = []
        self.dma_limit_warnings: list[DmaLimitWarning] = []

    @property
    @abstractmethod
    def entries(self) -> DmaEntries:
        """What the kernel has mapped."""

    @abstractmethod
    def dma_map(self, iova: int, size: int, vaddr: int, readonly: bool = False) -> None:
        """Map one piece.

        C: ``vfio_container_dma_map()``, hw/vfio/container-base.c.
        """

    @abstractmethod
    def dma_unmap(self, iova: int, size: int) -> int:
        """Unmap a range; returns the bytes unmapped.

        C: ``vfio_container_dma_unmap()``, hw/vfio/container-base.c.
        """

    def __repr__(self) -> str:
        entries = counted(len(self.entries), "entry", "entries")
        ranges = counted(len(self.entries.ranges()), "range")
        listeners = counted(len(self.vrdl_list) + len(self.vpsl_list), "listener")
        return (
            f"{type(self).__name__}({self.name!r}: {entries} in {ranges}{self._room()}, "
            f"{listeners})"
        )

    def _room(self) -> str:
        return ""
