# SPDX-License-Identifier: Apache-2.0
"""QEMU's own behaviour around private and shared memory, in three generations.

``v4`` is the series as posted in April 2025, ``merged`` what QEMU 10.1 to 11.0 ship, ``sources``
the manager with several sources of 11.1.  A class has upstream's name in each; the names here
are the merged ones, and those of v4 that exist in no other.

    from replay.models import RamBlockAttributes, Type1Container, VfioListener
    ram = RamBlockAttributes(1 << 20)
    container = Type1Container()
    VfioListener(container).register(ram.mr.section(address=1 << 32))
    ram.state_change(0, 64 << 10, to_private=False)
    container

A model says what QEMU would do, bugs included.  It takes integers, opens nothing, and raises
what upstream returns (``replay.models.errors``).
"""

from replay.models import merged, sources, v4
from replay.models.block_bitmap import BlockBitmap
from replay.models.coordinated_discard import CoordinatedDiscard, DiscardRequest, DiscardUser
from replay.models.dma_entries import DmaEntry, DmaRange
from replay.models.errors import DmaLimitError, FatalEnd, ListenerError, ModelError, UpstreamError
from replay.models.flat_view import FlatView
from replay.models.iommufd_container import IommufdContainer
from replay.models.iommufd_ioas import IommufdIoas
from replay.models.kvm_memory_attributes import KvmMemoryAttributes
from replay.models.memory_region import MemoryRegion, RegionKind
from replay.models.memory_region_section import MemoryRegionSection
from replay.models.merged import (
    RamBlockAttributes,
    RamDiscardListener,
    RamDiscardManager,
    RecordingListener,
    VfioListener,
    kvm_convert_memory,
)
from replay.models.ram_block import Discard, DiscardSide, RamBlock
from replay.models.ram_dirty_bitmap import RamDirtyBitmap
from replay.models.snp_page_state_change import PageStateChange
from replay.models.tdx_map_gpa import TdxMapGpa
from replay.models.type1_container import Type1Container
from replay.models.type1_iommu import Type1Iommu
from replay.models.type1_v1_iommu import Type1V1Iommu
from replay.models.v4 import (
    CVMPrivateSharedListener,
    GenericStateManager,
    PrivateSharedListener,
    PrivateSharedManager,
    RamBlockAttribute,
)

__all__ = (
    "BlockBitmap",
    "CVMPrivateSharedListener",
    "CoordinatedDiscard",
    "Discard",
    "DiscardRequest",
    "DiscardSide",
    "DiscardUser",
    "DmaEntry",
    "DmaLimitError",
    "DmaRange",
    "FatalEnd",
    "FlatView",
    "GenericStateManager",
    "IommufdContainer",
    "IommufdIoas",
    "KvmMemoryAttributes",
    "ListenerError",
    "MemoryRegion",
    "MemoryRegionSection",
    "ModelError",
    "PageStateChange",
    "PrivateSharedListener",
    "PrivateSharedManager",
    "RamBlock",
    "RamBlockAttribute",
    "RamBlockAttributes",
    "RamDirtyBitmap",
    "RamDiscardListener",
    "RamDiscardManager",
    "RecordingListener",
    "RegionKind",
    "TdxMapGpa",
    "Type1Container",
    "Type1Iommu",
    "Type1V1Iommu",
    "UpstreamError",
    "VfioListener",
    "kvm_convert_memory",
    "merged",
    "sources",
    "v4",
)
