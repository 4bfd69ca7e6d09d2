# SPDX-License-Identifier: Apache-2.0
"""Generation 1: the series "Enable shared device assignment" v4, as posted on 7 April 2025."""

from replay.models.v4.cvm_private_shared_listener import CVMPrivateSharedListener
from replay.models.v4.generic_state_manager import GenericStateManager, StateChangeListener
from replay.models.v4.kvm_convert_memory import kvm_convert_memory
from replay.models.v4.kvm_memory_slots import KvmMemorySlots
from replay.models.v4.migration_ram import (
    clear_discarded_pages,
    page_is_discarded,
    populated_sections,
)
from replay.models.v4.private_shared_manager import (
    PRIORITY_COMMON,
    PRIORITY_MIN,
    PrivateSharedListener,
    PrivateSharedManager,
)
from replay.models.v4.ram_block_add import ram_block_add
from replay.models.v4.ram_block_attribute import RamBlockAttribute
from replay.models.v4.ram_discard_manager import RamDiscardListener, RamDiscardManager
from replay.models.v4.recording_listener import RecordingListener
from replay.models.v4.vfio_listener import VfioPrivateSharedListener, VfioRamDiscardListener
from replay.models.v4.vfio_memory_listener import VfioMemoryListener
from replay.models.v4.virtio_mem import VirtioMem

__all__ = (
    "PRIORITY_COMMON",
    "PRIORITY_MIN",
    "CVMPrivateSharedListener",
    "GenericStateManager",
    "KvmMemorySlots",
    "PrivateSharedListener",
    "PrivateSharedManager",
    "RamBlockAttribute",
    "RamDiscardListener",
    "RamDiscardManager",
    "RecordingListener",
    "StateChangeListener",
    "VfioMemoryListener",
    "VfioPrivateSharedListener",
    "VfioRamDiscardListener",
    "VirtioMem",
    "clear_discarded_pages",
    "kvm_convert_memory",
    "page_is_discarded",
    "populated_sections",
    "ram_block_add",
)
