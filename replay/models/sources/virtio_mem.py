# SPDX-License-Identifier: Apache-2.0
"""virtio-mem as one source of several (QEMU 11.1)."""

from replay.models.block_bitmap import SectionCallback
from replay.models.errors import AbortError
from replay.models.memory_region import MemoryRegion
from replay.models.memory_region_section import MemoryRegionSection, check_section
from replay.models.sources.ram_discard_manager import RamDiscardManager
from replay.models.sources.ram_discard_source import RamDiscardSource
from replay.models.virtio_mem_device import THP_SIZE, VirtioMemDevice

__all__ = ("VirtioMem",)


class VirtioMem(VirtioMemDevice, RamDiscardSource):
    """The device; it may share its region with ``RamBlockAttributes``.

    Because the manager leaves out the source that notifies, its opposite order of bitmap and
    callbacks does no harm.

    C: ``VirtIOMEM``, hw/virtio/virtio-mem.c of QEMU 11.1.
    """

    def __init__(
        self,
        mr: MemoryRegion,
        *,
        block_size: int = THP_SIZE,
        address: int = 0,
        requested_size: int | None = None,
    ) -> None:
        super().__init__(mr, block_size=block_size, address=address, requested_size=requested_size)
        self.manager = RamDiscardManager.of(mr)
        self.manager.add_source(self)

    def get_min_granularity(self, mr: MemoryRegion) -> int:
        """C: ``virtio_mem_rds_get_min_granularity()``."""
        if mr is not self.mr:
            raise AbortError("another region", "virtio_mem_rds_get_min_granularity")
        return self.block_size

    def is_populated(self, section: MemoryRegionSection) -> bool:
        """C: ``virtio_mem_rds_is_populated()``."""
        return self.is_range_plugged(check_section(section, self.mr))

    def replay_populated(self, section: MemoryRegionSection, callback: SectionCallback) -> None:
        """C: ``virtio_mem_rds_replay_populated()``."""
        for part in self.bitmap.sections(check_section(section, self.mr), 1):
            callback(part)

    def replay_discarded(self, section: MemoryRegionSection, callback: SectionCallback) -> None:
        """C: ``virtio_mem_rds_replay_discarded()``."""
        for part in self.bitmap.sections(check_section(section, self.mr), 0):
            callback(part)

    def discard(self, offset: int, size: int) -> None:
        """Throw both backings away.

        QEMU commit 1f3241bc (in v11.1) added the private one; which goes first is [D].

        C: as called by ``virtio_mem_set_block_state()``.
        """
        self.ram_block.discard_shared_range(offset, size)
        if self.ram_block.guest_memfd:
            self.ram_block.discard_guest_memfd_range(offset, size)

    def notify_plug(self, offset: int, size: int) -> None:
        """C: ``virtio_mem_notify_plug()``."""
        self.manager.notify_populate(self, offset, size)

    def notify_unplug(self, offset: int, size: int) -> None:
        """C: ``virtio_mem_notify_unplug()``."""
        self.manager.notify_discard(self, offset, size)

    def notify_unplug_all(self) -> None:
        """C: ``virtio_mem_notify_unplug_all()``."""
        self.manager.notify_discard_all(self)

    def post_load(self) -> None:
        """C: ``virtio_mem_post_load()``."""
        self.manager.replay_populated_to_listeners()
