# SPDX-License-Identifier: Apache-2.0
"""The first release of the merged code, which does not start with hugetlbfs.

How sure: [D], from the report and its fix, not run.
"""

from replay.models.errors import AbortError
from replay.models.merged.ram_block_attributes import HOST_PAGE_SIZE, RamBlockAttributes

__all__ = ("RamBlockAttributes_10_1_0",)


class RamBlockAttributes_10_1_0(RamBlockAttributes):
    """Like ``RamBlockAttributes``, with an assertion that was dropped for 10.2.

    C: ``RamBlockAttributes``, system/ram-block-attributes.c of QEMU 10.1.0.
    """

    def get_block_size(self) -> int:
        """Bug kept: asserts that the pages of the shared side are the host's.

        C: ``ram_block_attributes_get_block_size()``.

        :raises AbortError: the RAM block's pages are not the host's
        """
        if self.ram_block.page_size != HOST_PAGE_SIZE:
            raise AbortError(
                f"page size of {self.ram_block.idstr} is {self.ram_block.page_size:#x}",
                "ram_block_attributes_get_block_size",
            )
        return HOST_PAGE_SIZE
