# SPDX-License-Identifier: Apache-2.0
"""The VFIO container of old: ``/dev/vfio/vfio`` with a type1 IOMMU."""

from errno import EBUSY

from replay.models.dma_entries import DmaEntries
from replay.models.errors import UpstreamError
from replay.models.type1_iommu import DMA_ENTRY_LIMIT, Type1Iommu
from replay.models.vfio_container import VfioContainer

__all__ = ("Type1Container",)


class Type1Container(VfioContainer):
    """QEMU's legacy container on top of the kernel's type1.

    ``dma_max_mappings`` is the number of entries that the kernel reports as available at open,
    65535 from a kernel that does not say; by default what ``iommu`` has left.  Neither map nor
    unmap has a trace event upstream.

    C: ``VFIOLegacyContainer``, hw/vfio/container.c (container-legacy.c in 11.x).
    """

    def __init__(
        self,
        dma_entry_limit: int = DMA_ENTRY_LIMIT,
        *,
        name: str = "type1",
        dma_max_mappings: int | None = None,
        iommu: Type1Iommu | None = None,
    ) -> None:
        self.iommu = Type1Iommu(dma_entry_limit) if iommu is None else iommu
        limit = self.iommu.dma_avail if dma_max_mappings is None else dma_max_mappings
        super().__init__(name, limit, self.iommu.pgsize)

    @property
    def entries(self) -> DmaEntries:
        """What the kernel has mapped."""
        return self.iommu.entries

    def dma_map(self, iova: int, size: int, vaddr: int, readonly: bool = False) -> None:
        """Map one piece; on EBUSY unmap the range and try once more.

        EBUSY was an old kernel's word for an overlap.  Kernels of today say EEXIST, so the retry
        never happens and mapping twice is an error [K].

        C: ``vfio_legacy_dma_map()``, hw/vfio/container.c.
        """
        try:
            self.iommu.map_dma(iova, size, vaddr, readonly)
        except UpstreamError as error:
            if error.errno != EBUSY:
                raise
            try:
                self.dma_unmap(iova, size)
            except UpstreamError:
                raise error from None
            self.iommu.map_dma(iova, size, vaddr, readonly)

    def dma_unmap(self, iova: int, size: int) -> int:
        """Unmap a range; how much of it was mapped is not looked at.

        C: ``vfio_legacy_dma_unmap()``, hw/vfio/container.c.
        """
        return self.iommu.unmap_dma(iova, size)

    def _room(self) -> str:
        return f", {self.iommu.dma_avail} left"
