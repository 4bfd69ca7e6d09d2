# SPDX-License-Identifier: Apache-2.0
"""One question to the IOMMU: which pages of this range did a device write?"""

from typing import NamedTuple

__all__ = ("DirtyQuery",)


class DirtyQuery(NamedTuple):
    """Trace event ``vfio_container_query_dirty_bitmap``: where the device sees the range, and
    where the answer goes in the RAM block."""

    iova: int
    size: int
    offset: int
