# SPDX-License-Identifier: Apache-2.0
"""The kernel's side of a type1 container, interface version 1, for comparison.

QEMU asks for version 2 and takes 1 only from a kernel without it.
"""

from replay.models.type1_iommu import Type1Iommu

__all__ = ("Type1V1Iommu",)


class Type1V1Iommu(Type1Iommu):
    """Like version 2, but an unmap never fails because of entries: it removes less or more.

    C: ``struct vfio_iommu`` with ``v2`` false, drivers/vfio/vfio_iommu_type1.c.
    """

    def unmap_dma(self, iova: int, size: int) -> int:
        """Remove every entry that begins in the range, whole; returns the bytes removed.

        The result may exceed ``size``, when the last entry reaches beyond the range, and is 0 when
        the range begins inside an entry.

        How sure: [K].  When one entry begins before the range and others lie inside, the kernel
        stops as soon as its tree search returns the first of them, so what it removed by then
        depends on the shape of the tree; here it is met first and nothing is removed.

        C: ``vfio_dma_do_unmap()``, drivers/vfio/vfio_iommu_type1.c.
        """
        self._check(iova, size, 0)
        first = self.entries.at(iova)
        if first is not None and first.iova != iova:
            return 0
        return self._remove(self.entries.starting_in(iova, size))
