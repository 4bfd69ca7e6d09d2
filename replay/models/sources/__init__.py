# SPDX-License-Identifier: Apache-2.0
"""Generation 3: a manager with several sources, QEMU 11.1.

What did not change since generation 2 is that generation's: listeners, conversion, VFIO.
"""

from replay.models.merged.kvm_convert_memory import kvm_convert_memory
from replay.models.merged.kvm_memory_slots import KvmMemorySlots
from replay.models.merged.migration_ram import (
    clear_discarded_pages,
    page_is_discarded,
    populated_sections,
)
from replay.models.merged.ram_discard_manager import RamDiscardListener
from replay.models.merged.recording_listener import RecordingListener
from replay.models.merged.vfio_dirty_sync import (
    dirty_queries,
    sync_ram_discard_listener_dirty_bitmap,
)
from replay.models.merged.vfio_listener import VfioListener
from replay.models.merged.vfio_memory_listener import VfioMemoryListener
from replay.models.sources.ram_block_add import ram_block_add
from replay.models.sources.ram_block_attributes import RamBlockAttributes
from replay.models.sources.ram_discard_manager import RamDiscardManager
from replay.models.sources.ram_discard_source import RamDiscardSource
from replay.models.sources.virtio_mem import VirtioMem

__all__ = (
    "KvmMemorySlots",
    "RamBlockAttributes",
    "RamDiscardListener",
    "RamDiscardManager",
    "RamDiscardSource",
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
