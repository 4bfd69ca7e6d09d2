# SPDX-License-Identifier: Apache-2.0
"""virtio-mem as the manager of its region (QEMU up to 11.0)."""

from contextlib import suppress

from replay.models.block_bitmap import SectionCallback
from replay.models.errors import AbortError, UpstreamError
from replay.models.memory_region import MemoryRegion
from replay.models.memory_region_section import MemoryRegionSection, check_section
from replay.models.merged.ram_discard_manager import RamDiscardListener, RamDiscardManager
from replay.models.virtio_mem_device import THP_SIZE, VirtioMemDevice

__all__ = ("VirtioMem",)


class VirtioMem(VirtioMemDevice, RamDiscardManager):
    """The device, and the manager that its listeners register with.

    C: ``VirtIOMEM``, hw/virtio/virtio-mem.c.

    :raises BusyError: the region has a manager already; a guest_memfd block's always has
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
        mr.set_manager(self)
        self._listeners: list[RamDiscardListener] = []

    def get_min_granularity(self, mr: MemoryRegion) -> int:
        """C: ``virtio_mem_rdm_get_min_granularity()``."""
        if mr is not self.mr:
            raise AbortError("another region", "virtio_mem_rdm_get_min_granularity")
        return self.block_size

    def is_populated(self, section: MemoryRegionSection) -> bool:
        """C: ``virtio_mem_rdm_is_populated()``."""
        return self.is_range_plugged(check_section(section, self.mr))

    def replay_populated(self, section: MemoryRegionSection, callback: SectionCallback) -> None:
        """C: ``virtio_mem_rdm_replay_populated()``."""
        for part in self.bitmap.sections(check_section(section, self.mr), 1):
            callback(part)

    def replay_discarded(self, section: MemoryRegionSection, callback: SectionCallback) -> None:
        """C: ``virtio_mem_rdm_replay_discarded()``."""
        for part in self.bitmap.sections(check_section(section, self.mr), 0):
            callback(part)

    def register_listener(self, listener: RamDiscardListener, section: MemoryRegionSection) -> None:
        """Insert at the head, then tell it what is plugged; a refusal is only printed about.

        C: ``virtio_mem_rdm_register_listener()``.
        """
        if not isinstance(listener, RamDiscardListener):
            raise TypeError(f"expected a RamDiscardListener, not {type(listener).__name__}")
        if listener.section is not None:
            raise ValueError(f"{listener!r} is registered already")
        listener.section = check_section(section, self.mr)
        self._listeners.insert(0, listener)
        with suppress(UpstreamError):  # error_report() only
            self.replay_populated(section, listener.notify_populate)

    def unregister_listener(self, listener: RamDiscardListener) -> None:
        """C: ``virtio_mem_rdm_unregister_listener()``."""
        if listener not in self._listeners:
            raise ValueError(f"{listener!r} is not registered here")
        self._discard_all(listener)
        listener.section = None
        self._listeners.remove(listener)

    def notify_plug(self, offset: int, size: int) -> None:
        """Newest first; when one refuses, those before it get a discard, itself not.

        C: ``virtio_mem_notify_plug()``.
        """
        for index, listener in enumerate(self._listeners):
            part = _clip(listener, offset, size)
            if part is None:
                continue
            try:
                listener.notify_populate(part)
            except UpstreamError:
                for told in self._listeners[:index]:
                    part = _clip(told, offset, size)
                    if part is not None:
                        told.notify_discard(part)
                raise

    def notify_unplug(self, offset: int, size: int) -> None:
        """C: ``virtio_mem_notify_unplug()``."""
        for listener in self._listeners:
            part = _clip(listener, offset, size)
            if part is not None:
                listener.notify_discard(part)

    def notify_unplug_all(self) -> None:
        """C: ``virtio_mem_notify_unplug_all()``."""
        for listener in self._listeners:
            self._discard_all(listener)

    def post_load(self) -> None:
        """Tell every listener what is plugged.

        C: ``virtio_mem_post_load()``.

        :raises UpstreamError: what the first listener answered that refused
        """
        for listener in self._listeners:
            assert listener.section is not None
            self.replay_populated(listener.section, listener.notify_populate)

    def _discard_all(self, listener: RamDiscardListener) -> None:
        assert listener.section is not None
        if listener.double_discard_supported:
            listener.notify_discard(listener.section)
        else:
            self.replay_populated(listener.section, listener.notify_discard)


def _clip(listener: RamDiscardListener, offset: int, size: int) -> MemoryRegionSection | None:
    assert listener.section is not None
    return listener.section.intersect_range(offset, size)
