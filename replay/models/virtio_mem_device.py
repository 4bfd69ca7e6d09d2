# SPDX-License-Identifier: Apache-2.0
"""virtio-mem: blocks that the guest plugs and unplugs, with a bitmap of its own.

Its order is the opposite of ``RamBlockAttributes``: the callbacks run first, the bitmap changes
after them.

How sure: [D], read in QEMU 10.0.2, 10.2.2 and at the June 2026 commits; that an unplug discards
the backing before it unmaps, and that plug maps block by block, was seen in recordings.
"""

from abc import ABC, abstractmethod
from enum import Enum

from replay.models.block_bitmap import BlockBitmap
from replay.models.errors import BusyError, InvalidRangeError, UpstreamError
from replay.models.memory_region import MemoryRegion
from replay.models.memory_region_section import MemoryRegionSection, check_u64
from replay.models.shown import shown, size_of

__all__ = ("THP_SIZE", "VirtioMemDevice", "VirtioMemResponse")

#: Size of a transparent huge page, and the smallest block that QEMU chooses by itself.
THP_SIZE = 2 << 20


class VirtioMemResponse(Enum):
    """What the guest gets to read.  C: ``VIRTIO_MEM_RESP_*``, linux/virtio_mem.h."""

    ACK = 0
    NACK = 1
    BUSY = 2
    ERROR = 3


class VirtioMemDevice(ABC):
    """The device without its listeners, which every generation keeps elsewhere.

    ``requested_size`` is what the host wants plugged; the guest may not go beyond it.

    C: ``VirtIOMEM``, hw/virtio/virtio-mem.c.
    """

    def __init__(
        self,
        mr: MemoryRegion,
        *,
        block_size: int = THP_SIZE,
        address: int = 0,
        requested_size: int | None = None,
    ) -> None:
        if block_size <= 0 or block_size & (block_size - 1):
            raise ValueError(f"block_size is a power of two, {block_size} is not")
        if mr.size % block_size or address % block_size:
            raise ValueError(f"region and address are multiples of block_size {block_size:#x}")
        if mr.ram_block is None:
            raise ValueError(f"{mr!r} has no RAM block to plug")
        self.mr = mr
        self.ram_block = mr.ram_block
        self.block_size = block_size
        self.address = check_u64("address", address)
        self.requested_size = mr.size if requested_size is None else requested_size
        self.bitmap = BlockBitmap(mr.size, block_size)

    @property
    def size(self) -> int:
        """Bytes plugged."""
        return self.bitmap.bits.count(1) * self.block_size

    def plug_request(self, address: int, nb_blocks: int) -> VirtioMemResponse:
        """The guest asks for blocks.  C: ``virtio_mem_plug_request()``."""
        return self._state_change_request(address, nb_blocks, True)

    def unplug_request(self, address: int, nb_blocks: int) -> VirtioMemResponse:
        """The guest gives blocks back.  C: ``virtio_mem_unplug_request()``."""
        return self._state_change_request(address, nb_blocks, False)

    def unplug_all_request(self) -> VirtioMemResponse:
        """The guest, or a reset, gives everything back.

        One discard of the whole block, then the listeners, then the bitmap.

        C: ``virtio_mem_unplug_all()``.
        """
        if not self.size:
            return VirtioMemResponse.ACK
        try:
            self.discard(0, self.mr.size)
        except UpstreamError:
            return VirtioMemResponse.BUSY
        self.notify_unplug_all()
        self.bitmap.clear(0, len(self.bitmap.bits))
        return VirtioMemResponse.ACK

    def set_block_state(self, offset: int, size: int, plug: bool) -> None:
        """Plug: listeners, then bitmap.  Unplug: discard, then listeners, then bitmap.

        A listener that refuses a plug is answered with a discard of the RAM, and EBUSY whatever
        its errno was.

        C: ``virtio_mem_set_block_state()``.

        :raises BusyError: a listener or the discard refused
        """
        first, count = offset // self.block_size, size // self.block_size
        if offset % self.block_size or size % self.block_size or not size:
            raise InvalidRangeError(f"[{offset:#x}, +{size:#x}) is not made of whole blocks")
        if first + count > len(self.bitmap.bits):
            raise InvalidRangeError(f"[{offset:#x}, +{size:#x}) ends past {self.mr!r}")
        if not plug:
            try:
                self.discard(offset, size)
            except UpstreamError as error:
                raise BusyError(f"unplug: {error}") from error
            self.notify_unplug(offset, size)
            self.bitmap.clear(first, count)
            return
        try:
            self.notify_plug(offset, size)
        except UpstreamError as error:
            self.discard(offset, size)
            raise BusyError(f"plug: {error}") from error
        self.bitmap.set(first, count)

    def discard(self, offset: int, size: int) -> None:
        """Throw the backing away, the shared side only.

        Bug kept: with guest_memfd the private pages stay allocated, until 11.1.

        C: ``ram_block_discard_range()`` as called by ``virtio_mem_set_block_state()``.
        """
        self.ram_block.discard_shared_range(offset, size)

    @abstractmethod
    def notify_plug(self, offset: int, size: int) -> None:
        """C: ``virtio_mem_notify_plug()``."""

    @abstractmethod
    def notify_unplug(self, offset: int, size: int) -> None:
        """C: ``virtio_mem_notify_unplug()``."""

    @abstractmethod
    def notify_unplug_all(self) -> None:
        """C: ``virtio_mem_notify_unplug_all()``."""

    @abstractmethod
    def post_load(self) -> None:
        """After an incoming migration; an error fails it.  C: ``virtio_mem_post_load()``."""

    def is_range_plugged(self, section: MemoryRegionSection) -> bool:
        """Whether all blocks that a section touches are plugged; beyond the region: no.

        C: ``virtio_mem_rdm_is_populated()``.
        """
        first = section.offset_within_region // self.block_size
        last = -(-section.end_within_region // self.block_size)
        bits = self.bitmap.bits
        return first < last <= len(bits) and bits.find(0, first, last) < 0

    def _state_change_request(self, address: int, nb_blocks: int, plug: bool) -> VirtioMemResponse:
        """C: ``virtio_mem_state_change_request()``."""
        offset, size = check_u64("address", address) - self.address, nb_blocks * self.block_size
        if offset < 0 or offset % self.block_size or not 0 < size <= self.mr.size - offset:
            return VirtioMemResponse.ERROR
        if plug and self.size + size > self.requested_size:
            return VirtioMemResponse.NACK
        first, last = offset // self.block_size, (offset + size) // self.block_size
        if self.bitmap.bits.find(plug, first, last) >= 0:
            return VirtioMemResponse.ERROR
        try:
            self.set_block_state(offset, size, plug)
        except UpstreamError:
            return VirtioMemResponse.BUSY
        return VirtioMemResponse.ACK

    def _repr_html_(self) -> str:
        facts = [
            ("plugged", f"{size_of(self.size)} of {size_of(self.mr.size)}"),
            ("requested", size_of(self.requested_size)),
            ("block", size_of(self.block_size)),
        ]
        name = f"{type(self).__name__} {self.mr.name}"
        return shown(name, facts, self.bitmap.ranges(), (0, self.mr.size))

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}({self.mr.name!r}: {self.bitmap.bits.count(1)} of "
            f"{len(self.bitmap.bits)} blocks of {self.block_size:#x} plugged)"
        )
