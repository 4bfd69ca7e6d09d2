# SPDX-License-Identifier: Apache-2.0
"""Which blocks of a guest_memfd-backed RAM block are shared, as one source of several (11.1)."""

from collections.abc import Callable

from replay.models.block_bitmap import BlockBitmap, SectionCallback
from replay.models.errors import AbortError, InvalidRangeError, UndefinedBehaviourError
from replay.models.memory_region import MemoryRegion
from replay.models.memory_region_section import MemoryRegionSection, check_section, check_u64
from replay.models.shown import shown, size_of
from replay.models.sources.ram_discard_manager import RamDiscardManager
from replay.models.sources.ram_discard_source import RamDiscardSource
from replay.models.state_change_trace import StateChangeTrace

__all__ = ("RamBlockAttributes",)

HOST_PAGE_SIZE = 4096


class RamBlockAttributes(RamDiscardSource):
    """Everything is private (discarded) at first; a conversion tells the manager.

    ``region`` may be a size: then a region of that size with guest_memfd is made for it.
    ``trace``, where given, gets the trace event of every state change.

    C: ``RamBlockAttributes``, system/ram-block-attributes.c.
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
        self.mr = mr
        self.ram_block = mr.ram_block
        self.ram_block.attributes = self
        self.bitmap = BlockBitmap(mr.size, HOST_PAGE_SIZE)
        self.trace = trace
        self.manager = RamDiscardManager.of(mr)
        self.manager.add_source(self)

    def shared_ranges(self) -> list[tuple[int, int]]:
        """Byte ranges ``(start, end)`` that are shared, ascending."""
        return self.bitmap.ranges()

    def get_min_granularity(self, mr: MemoryRegion) -> int:
        """C: ``ram_block_attributes_rds_get_min_granularity()``."""
        if mr is not self.mr:
            raise AbortError("another region", "ram_block_attributes_rds_get_min_granularity")
        return HOST_PAGE_SIZE

    def is_populated(self, section: MemoryRegionSection) -> bool:
        """Whether all whole blocks of a section are shared.

        Bug kept: start and size are rounded down, so a section smaller than a block is populated
        everywhere but in block 0, where it is not.

        C: ``ram_block_attributes_rds_is_populated()``.

        :raises UndefinedBehaviourError: the section ends past the bitmap, which is not checked
        """
        first = section.offset_within_region // HOST_PAGE_SIZE
        count = section.size // HOST_PAGE_SIZE
        if count == 0:
            return first != 0  # the last bit wraps below the first one
        bits = self.bitmap.bits
        if first + count > len(bits):
            raise UndefinedBehaviourError(
                "past the bitmap", "ram_block_attributes_rds_is_populated"
            )
        return bits.find(0, first, first + count) < 0

    def replay_populated(self, section: MemoryRegionSection, callback: SectionCallback) -> None:
        """Call back for each run of shared blocks; raising in it stops the replay.

        C: ``ram_block_attributes_rds_replay_populated()``.
        """
        for part in self.bitmap.sections(check_section(section, self.mr), 1):
            callback(part)

    def replay_discarded(self, section: MemoryRegionSection, callback: SectionCallback) -> None:
        """Call back for each run of private blocks; raising in it stops the replay.

        C: ``ram_block_attributes_rds_replay_discarded()``.
        """
        for part in self.bitmap.sections(check_section(section, self.mr), 0):
            callback(part)

    def unchanged_until(self, offset: int, block: int, end: int) -> int:
        """Ours: the end of the run of whole blocks that ``offset`` is in."""
        if block != HOST_PAGE_SIZE or offset % HOST_PAGE_SIZE or end - offset < HOST_PAGE_SIZE:
            return super().unchanged_until(offset, block, end)
        bits = self.bitmap.bits
        first = offset // HOST_PAGE_SIZE
        last = min(end // HOST_PAGE_SIZE, len(bits))
        if first >= last:
            return super().unchanged_until(offset, block, end)
        found = bits.find(1 - bits[first], first + 1, last)
        return (last if found < 0 else found) * HOST_PAGE_SIZE

    def state_change(self, offset: int, size: int, to_private: bool) -> None:
        """Make ``[offset, offset + size)`` private or shared.

        A range in the wanted state already notifies nobody.  A uniform one notifies once, a mixed
        one once per block that changes.  The bitmap changes first.

        Bug kept: when a listener refuses a change to shared, the manager sends discards to undo
        it, but **the bits stay set**, so that a second attempt maps nothing.

        C: ``ram_block_attributes_state_change()``.

        :raises InvalidRangeError: unaligned, empty, wraps, or past the end
        :raises UpstreamError: what a listener answered to a change to shared
        """
        check_u64("offset", offset)
        check_u64("size", size)
        block = HOST_PAGE_SIZE
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
        if not (has_shared if to_private else has_private):
            return
        if has_shared and has_private:
            self._change_mixture(first, last, to_private)
        elif to_private:
            self.bitmap.clear(first, count)
            self.manager.notify_discard(self, offset, size)
        else:
            self.bitmap.set(first, count)
            self.manager.notify_populate(self, offset, size)

    def _change_mixture(self, first: int, last: int, to_private: bool) -> None:
        bits = self.bitmap.bits
        block = HOST_PAGE_SIZE
        notify = self.manager.notify_discard if to_private else self.manager.notify_populate
        bit = bits.find(to_private, first, last)
        while bit >= 0:
            bits[bit] = not to_private
            notify(self, bit * block, block)  # what it raises leaves this bit set
            bit = bits.find(to_private, bit + 1, last)

    def _repr_html_(self) -> str:
        ranges, size = self.shared_ranges(), self.mr.size
        shared = sum(end - start for start, end in ranges)
        facts = [("shared", f"{size_of(shared)} of {size_of(size)}")]
        return shown(f"RamBlockAttributes {self.mr.name}", facts, ranges, (0, size))

    def __repr__(self) -> str:
        shared = self.bitmap.bits.count(1)
        return (
            f"RamBlockAttributes({self.mr.name!r}: {shared} of {len(self.bitmap.bits)} blocks "
            f"shared, a source of {self.manager!r})"
        )
