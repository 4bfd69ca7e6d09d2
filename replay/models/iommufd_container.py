# SPDX-License-Identifier: Apache-2.0
"""The VFIO container on top of iommufd.

How sure: [D], read in QEMU 10.2.2; its ENOENT for nothing was seen in recordings.
"""

from errno import ENOENT

from replay.models.dma_entries import DmaEntries
from replay.models.errors import UpstreamError
from replay.models.iommufd_ioas import IommufdIoas
from replay.models.vfio_container import VfioContainer

__all__ = ("IommufdContainer",)


class IommufdContainer(VfioContainer):
    """QEMU's iommufd container; it knows no limit of entries (``dma_max_mappings`` is 0).

    Unmaps that the kernel refused with ENOENT are in ``reported``: upstream has a trace event of
    its own for them and tells the caller nothing.

    C: ``VFIOIOMMUFDContainer``, hw/vfio/iommufd.c, and ``IOMMUFDBackend``, backends/iommufd.c.
    """

    def __init__(self, *, name: str = "iommufd", ioas: IommufdIoas | None = None) -> None:
        self.ioas = IommufdIoas() if ioas is None else ioas
        super().__init__(name, 0, self.ioas.iova_alignment)

    @property
    def entries(self) -> DmaEntries:
        """What the kernel has mapped."""
        return self.ioas.entries

    def dma_map(self, iova: int, size: int, vaddr: int, readonly: bool = False) -> None:
        """Map one piece; no retry.

        C: ``iommufd_backend_map_dma()``, backends/iommufd.c.
        """
        self.ioas.map(iova, size, vaddr, readonly)

    def dma_unmap(self, iova: int, size: int) -> int:
        """Unmap a range; returns the bytes unmapped.

        Bug kept: ENOENT counts as success, because a vIOMMU unmaps what was never mapped.  The
        kernel says ENOENT for a cut area as well [K], so a stale mapping looks like success.

        C: ``iommufd_backend_unmap_dma()``, backends/iommufd.c.
        """
        before = self.ioas.mapped_bytes
        try:
            return self.ioas.unmap(iova, size)
        except UpstreamError as error:
            if error.errno != ENOENT:
                raise
            self.reported.append(error)
            return before - self.ioas.mapped_bytes
