# SPDX-License-Identifier: Apache-2.0
"""Generation 2: what was merged, QEMU 10.1 to 11.0."""

from replay.models.merged.kvm_convert_memory import kvm_convert_memory
from replay.models.merged.kvm_memory_slots import KvmMemorySlots
from replay.models.merged.migration_ram import (
    clear_discarded_pages,
    page_is_discarded,
    populated_sections,
)
from replay.models.merged.ram_block_add import ram_block_add
from replay.models.merged.ram_block_attributes import RamBlockAttributes
from replay.models.merged.ram_block_attributes_10_1_0 import RamBlockAttributes_10_1_0
from replay.models.merged.ram_discard_manager import RamDiscardListener, RamDiscardManager
from replay.models.merged.recording_listener import RecordingListener
from replay.models.merged.vfio_dirty_sync import (
    dirty_queries,
    sync_ram_discard_listener_dirty_bitmap,
)
from replay.models.merged.vfio_listener import VfioListener
from replay.models.merged.vfio_memory_listener import VfioMemoryListener
from replay.models.merged.virtio_mem import VirtioMem

__all__ = (
    "KvmMemorySlots",
    "RamBlockAttributes",
    "RamBlockAttributes_10_1_0",
    "RamDiscardListener",
    "RamDiscardManager",
    "RecordingListener",
    "VfioListener",
    "VfioMemoryListener",
    "VirtioMem",
    "clear_discarded_pages",
    "dirty_queries",
    "kvm_convert_memory",
    "page_is_discarded",
    "populated_sections",
    "ram_block_add",
    "sync_ram_discard_listener_dirty_bitmap",
)
