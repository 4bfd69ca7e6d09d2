# SPDX-License-Identifier: Apache-2.0
"""virtio-mem in the words of the v4 series (patch 04)."""

from contextlib import suppress

from replay.models.block_bitmap import SectionCallback
from replay.models.errors import AbortError, UpstreamError
from replay.models.memory_region import MemoryRegion
from replay.models.memory_region_section import MemoryRegionSection, check_section
from replay.models.v4.generic_state_manager import StateChangeListener
from replay.models.v4.ram_discard_manager import RamDiscardListener, RamDiscardManager
from replay.models.virtio_mem_device import THP_SIZE, VirtioMemDevice

__all__ = ("VirtioMem",)


class VirtioMem(VirtioMemDevice, RamDiscardManager):
    """The device, and the manager that its listeners register with.

    C: ``VirtIOMEM``, hw/virtio/virtio-mem.c of the v4 series.

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

    def is_state_set(self, section: MemoryRegionSection) -> bool:
        """C: ``virtio_mem_rdm_is_populated()``."""
        return self.is_range_plugged(check_section(section, self.mr))

    def replay_on_state_set(self, section: MemoryRegionSection, callback: SectionCallback) -> None:
        """C: ``virtio_mem_rdm_replay_populated()``."""
        for part in self.bitmap.sections(check_section(section, self.mr), 1):
            callback(part)

    def replay_on_state_clear(
        self, section: MemoryRegionSection, callback: SectionCallback
    ) -> None:
        """C: ``virtio_mem_rdm_replay_discarded()``."""
        for part in self.bitmap.sections(check_section(section, self.mr), 0):
            callback(part)

    def register_listener(
        self, listener: StateChangeListener, section: MemoryRegionSection
    ) -> None:
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
            self.replay_on_state_set(section, listener.notify_to_state_set)

    def unregister_listener(self, listener: StateChangeListener) -> None:
        """C: ``virtio_mem_rdm_unregister_listener()``."""
        if not isinstance(listener, RamDiscardListener) or listener not in self._listeners:
            raise ValueError(f"{listener!r} is not registered here")
        self._clear_all(listener)
        listener.section = None
        self._listeners.remove(listener)

    def notify_plug(self, offset: int, size: int) -> None:
        """Newest first; when one refuses, those before it are told to clear, itself not.

        C: ``virtio_mem_notify_plug()``.
        """
        for index, listener in enumerate(self._listeners):
            assert listener.section is not None
            part = listener.section.intersect_range(offset, size)
            if part is None:
                continue
            try:
                listener.notify_to_state_set(part)
            except UpstreamError:
                for told in self._listeners[:index]:
                    assert told.section is not None
                    _clear(told, told.section.intersect_range(offset, size))
                raise

    def notify_unplug(self, offset: int, size: int) -> None:
        """C: ``virtio_mem_notify_unplug()``."""
        for listener in self._listeners:
            assert listener.section is not None
            _clear(listener, listener.section.intersect_range(offset, size))

    def notify_unplug_all(self) -> None:
        """C: ``virtio_mem_notify_unplug_all()``."""
        for listener in self._listeners:
            self._clear_all(listener)

    def post_load(self) -> None:
        """Tell every listener what is plugged.

        C: ``virtio_mem_post_load()``.

        :raises UpstreamError: what the first listener answered that refused
        """
        for listener in self._listeners:
            assert listener.section is not None
            self.replay_on_state_set(listener.section, listener.notify_to_state_set)

    def _clear_all(self, listener: RamDiscardListener) -> None:
        assert listener.section is not None
        if listener.double_discard_supported:
            _clear(listener, listener.section)
        else:
            for part in self.bitmap.sections(listener.section, 1):
                _clear(listener, part)


def _clear(listener: RamDiscardListener, part: MemoryRegionSection | None) -> None:
    """The result, which patch 10 introduced, interests nobody here [D]."""
    if part is None:
        return
    with suppress(UpstreamError):
        listener.notify_to_state_clear(part)
