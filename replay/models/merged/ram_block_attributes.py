# SPDX-License-Identifier: Apache-2.0
"""Which blocks of a guest_memfd-backed RAM block are shared, as merged (QEMU 10.1 to 11.0).

The posted v4, with priorities and rollback, is ``replay.models.v4.RamBlockAttribute``.  Read in
QEMU 10.2.2.
"""

from collections.abc import Callable

from replay.models.block_bitmap import BlockBitmap, SectionCallback
from replay.models.counted import counted
from replay.models.errors import (
    AbortError,
    ExitError,
    InvalidRangeError,
    UndefinedBehaviourError,
    UpstreamError,
)
from replay.models.memory_region import MemoryRegion
from replay.models.memory_region_section import MemoryRegionSection, check_section, check_u64
from replay.models.merged.ram_discard_manager import RamDiscardListener, RamDiscardManager
from replay.models.shown import shown, size_of
from replay.models.state_change_trace import StateChangeTrace

__all__ = ("RamBlockAttributes",)

HOST_PAGE_SIZE = 4096


class RamBlockAttributes(RamDiscardManager):
    """Everything is private (discarded) at first; a conversion tells the listeners, newest first.

    ``region`` may be a size: then a region of that size with guest_memfd is made for it.
    ``trace``, where given, gets the trace event of every state change.

    C: ``RamBlockAttributes``, system/ram-block-attributes.c.

    :raises BusyError: the region has a manager already
    """

    def __init__(
        self,
        region: MemoryRegion | int,
        *,
        trace: Callable[[StateChangeTrace], None] | None = None,
    ) -> None:
        mr = MemoryRegion.ram("ram0", region) if isinstance(region, int) else region
        if not isinstance(mr, MemoryRegion):
            raise TypeError(f"expected a MemoryRegion or a size, not {type(region).__name__}")
        if not mr.has_guest_memfd or mr.ram_block is None:
            raise ValueError(f"{mr!r} has no guest_memfd, so none of it can be private")
        mr.set_manager(self)
        self.mr = mr
        self.ram_block = mr.ram_block
        self.ram_block.attributes = self
        self.bitmap = BlockBitmap(mr.size, HOST_PAGE_SIZE)
        self.trace = trace
        self._listeners: list[RamDiscardListener] = []

    @property
    def listeners(self) -> tuple[RamDiscardListener, ...]:
        """Registered listeners, newest first: the order of every notification."""
        return tuple(self._listeners)

    def shared_ranges(self) -> list[tuple[int, int]]:
        """Byte ranges ``(start, end)`` that are shared, ascending."""
        return self.bitmap.ranges()

    def get_block_size(self) -> int:
        """The host page, whatever the pages of the shared side are.

        C: ``ram_block_attributes_get_block_size()``.
        """
        return HOST_PAGE_SIZE

    def get_min_granularity(self, mr: MemoryRegion) -> int:
        """C: ``ram_block_attributes_rdm_get_min_granularity()``."""
        if mr is not self.mr:
            raise AbortError("another region", "ram_block_attributes_rdm_get_min_granularity")
        return self.get_block_size()

    def is_populated(self, section: MemoryRegionSection) -> bool:
        """Whether all whole blocks of a section are shared.

        Bug kept: start and size are rounded down, so a section smaller than a block is populated
        everywhere but in block 0, where it is not.

        C: ``ram_block_attributes_rdm_is_populated()``.

        :raises UndefinedBehaviourError: the section ends past the bitmap, which is not checked
        """
        check_section(section, self.mr)
        block = self.get_block_size()
        first, count = section.offset_within_region // block, section.size // block
        if count == 0:
            return first != 0  # the last bit wraps below the first one
        bits = self.bitmap.bits
        if first + count > len(bits):
            raise UndefinedBehaviourError(
                "past the bitmap", "ram_block_attributes_rdm_is_populated"
            )
        return bits.find(0, first, first + count) < 0

    def replay_populated(self, section: MemoryRegionSection, callback: SectionCallback) -> None:
        """Call back for each run of shared blocks; raising in it stops the replay.

        C: ``ram_block_attributes_rdm_replay_populated()``.
        """
        for part in self.bitmap.sections(check_section(section, self.mr), 1):
            callback(part)

    def replay_discarded(self, section: MemoryRegionSection, callback: SectionCallback) -> None:
        """Call back for each run of private blocks; raising in it stops the replay.

        C: ``ram_block_attributes_rdm_replay_discarded()``.
        """
        for part in self.bitmap.sections(check_section(section, self.mr), 0):
            callback(part)

    def register_listener(self, listener: RamDiscardListener, section: MemoryRegionSection) -> None:
        """Insert at the head, then tell it what is shared.

        Bug kept: a listener that refuses a part of it ends QEMU.  Hot-plugging a device when the
        DMA entries run out is enough.

        C: ``ram_block_attributes_rdm_register_listener()``.

        :raises ExitError: the listener refused
        """
        if not isinstance(listener, RamDiscardListener):
            raise TypeError(f"expected a RamDiscardListener, not {type(listener).__name__}")
        if listener.section is not None:
            raise ValueError(f"{listener!r} is registered already")
        listener.section = check_section(section, self.mr)
        self._listeners.insert(0, listener)
        self.get_block_size()
        try:
            for part in self.bitmap.sections(section, 1):
                listener.notify_populate(part)
        except UpstreamError as error:
            raise ExitError(
                f"replaying to a new listener failed: {error}",
                "ram_block_attributes_rdm_register_listener",
            ) from error

    def unregister_listener(self, listener: RamDiscardListener) -> None:
        """Tell it that all is gone and forget it.

        With ``double_discard_supported`` that is one discard of the whole section, private parts
        included; hazard kept: VFIO then unmaps what another listener mapped in that range.

        C: ``ram_block_attributes_rdm_unregister_listener()``.
        """
        if listener not in self._listeners:
            raise ValueError(f"{listener!r} is not registered here")
        section = listener.section
        assert section is not None
        if listener.double_discard_supported:
            listener.notify_discard(section)
        else:
            for part in self.bitmap.sections(section, 1):
                listener.notify_discard(part)
        listener.section = None
        self._listeners.remove(listener)

    def state_change(self, offset: int, size: int, to_private: bool) -> None:
        """Make ``[offset, offset + size)`` private or shared.

        A range in the wanted state already notifies nobody.  A uniform one notifies once, a mixed
        one once per block that changes.  The bitmap changes first, so whoever is notified sees the
        new state.

        Bugs kept: when a listener refuses a change to shared, **nothing is undone**.  Listeners
        before it keep their mapping, those behind it never hear of it, and the bits stay set, so
        that a second attempt finds the range shared already and maps nothing.

        C: ``ram_block_attributes_state_change()``.

        :raises InvalidRangeError: unaligned, empty, wraps, or past the end
        :raises UpstreamError: what a listener answered to a change to shared
        """
        check_u64("offset", offset)
        check_u64("size", size)
        block = self.get_block_size()
        first, count = offset // block, size // block
        last = first + count
        if offset % block or size % block or not size or offset + size > self.mr.size:
            raise InvalidRangeError(f"[{offset:#x}, +{size:#x}) in {self.mr!r}")
        bits = self.bitmap.bits
        has_shared = bits.find(1, first, last) >= 0
        has_private = bits.find(0, first, last) >= 0
        if self.trace is not None:
            before = "mixture" if has_private else "populated"
            self.trace(
                StateChangeTrace(
                    offset,
                    size,
                    before if has_shared else "discarded",
                    "discarded" if to_private else "populated",
                )
            )
        if to_private:
            if not has_shared:
                return
            if not has_private:
                self.bitmap.clear(first, count)
                self.notify_discard(offset, size)
                return
        else:
            if not has_private:
                return
            if not has_shared:
                self.bitmap.set(first, count)
                self.notify_populate(offset, size)
                return
        self._change_mixture(first, last, to_private)

    def _change_mixture(self, first: int, last: int, to_private: bool) -> None:
        bits = self.bitmap.bits
        block = HOST_PAGE_SIZE
        notify = self.notify_discard if to_private else self.notify_populate
        bit = bits.find(to_private, first, last)
        while bit >= 0:
            bits[bit] = not to_private
            notify(bit * block, block)  # what it raises leaves this bit and those before it set
            bit = bits.find(to_private, bit + 1, last)

    def notify_populate(self, offset: int, size: int) -> None:
        """Tell the listeners, newest first; the first refusal ends it and undoes nothing.

        C: ``ram_block_attributes_notify_populate()``.
        """
        for listener in self._listeners:
            assert listener.section is not None
            part = listener.section.intersect_range(offset, size)
            if part is not None:
                listener.notify_populate(part)

    def notify_discard(self, offset: int, size: int) -> None:
        """Tell the listeners, newest first: the same order as populate.

        C: ``ram_block_attributes_notify_discard()``.
        """
        for listener in self._listeners:
            assert listener.section is not None
            part = listener.section.intersect_range(offset, size)
            if part is not None:
                listener.notify_discard(part)

    def _repr_html_(self) -> str:
        ranges, size = self.shared_ranges(), self.mr.size
        shared = sum(end - start for start, end in ranges)
        facts = [("shared", f"{size_of(shared)} of {size_of(size)}")]
        return shown(f"RamBlockAttributes {self.mr.name}", facts, ranges, (0, size))

    def __repr__(self) -> str:
        shared = self.bitmap.bits.count(1)
        return (
            f"RamBlockAttributes({self.mr.name!r}: {shared} of {len(self.bitmap.bits)} blocks "
            f"shared, {counted(len(self._listeners), 'listener')})"
        )
