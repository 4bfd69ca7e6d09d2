# SPDX-License-Identifier: Apache-2.0
"""Which blocks of a guest_memfd-backed RAM block are shared, as posted on 7 April 2025.

Upstream's singular name: the merged ``RamBlockAttributes`` is another file.
"""

from bisect import bisect_right

from replay.models.block_bitmap import BlockBitmap, SectionCallback
from replay.models.counted import counted
from replay.models.errors import (
    AbortError,
    InvalidRangeError,
    UndefinedBehaviourError,
    UpstreamError,
)
from replay.models.memory_region import MemoryRegion
from replay.models.memory_region_section import (
    U64_MAX,
    MemoryRegionSection,
    check_section,
    check_u64,
)
from replay.models.shown import shown, size_of
from replay.models.v4.generic_state_manager import StateChangeListener
from replay.models.v4.private_shared_manager import PrivateSharedListener, PrivateSharedManager

__all__ = ("RamBlockAttribute",)

HOST_PAGE_SIZE = 4096
BITS_PER_LONG = 64
EPERM = 1  # upstream returns a bare -1


class RamBlockAttribute(PrivateSharedManager):
    """Everything is private at first.  Listeners with a low priority hear first on the way to
    shared and last on the way to private; a failure on the way to shared is rolled back.

    ``region`` may be a size: then a region of that size with guest_memfd is made for it.

    C: ``RamBlockAttribute``, system/ram-block-attribute.c of the v4 series (patches 07, 08, 12).

    :raises BusyError: the region has a manager already
    """

    def __init__(self, region: MemoryRegion | int) -> None:
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
        self._listeners: list[PrivateSharedListener] = []

    @property
    def listeners(self) -> tuple[PrivateSharedListener, ...]:
        """Registered listeners, in the order of a change to shared."""
        return tuple(self._listeners)

    def shared_ranges(self) -> list[tuple[int, int]]:
        """Byte ranges ``(start, end)`` that are shared, ascending."""
        return self.bitmap.ranges()

    def get_block_size(self) -> int:
        """The host page; a block of larger pages (hugetlbfs) is an assertion.

        C: ``ram_block_attribute_get_block_size()``.

        :raises AbortError: the RAM block's pages are not the host's
        """
        if self.ram_block.page_size != HOST_PAGE_SIZE:
            raise AbortError(
                f"page size of {self.ram_block.idstr} is {self.ram_block.page_size:#x}",
                "ram_block_attribute_get_block_size",
            )
        return HOST_PAGE_SIZE

    def get_min_granularity(self, mr: MemoryRegion) -> int:
        """C: ``ram_block_attribute_psm_get_min_granularity()``."""
        if mr is not self.mr:
            raise AbortError("another region", "ram_block_attribute_psm_get_min_granularity")
        return self.get_block_size()

    def is_state_set(self, section: MemoryRegionSection) -> bool:
        """Whether all whole blocks of a section are shared.

        Bug kept: start and size are rounded down, so a section smaller than a block is *shared*
        everywhere but in block 0, where it is *private*.

        C: ``ram_block_attribute_psm_is_shared()``.

        :raises UndefinedBehaviourError: the section ends past the bitmap, which is not checked
        """
        check_section(section, self.mr)
        block = self.get_block_size()
        return self._is_uniform(1, section.offset_within_region, section.size, block)

    def replay_on_state_set(self, section: MemoryRegionSection, callback: SectionCallback) -> None:
        """Call back for each run of shared blocks; raising in it stops the replay.

        C: ``ram_block_attribute_psm_replay_on_shared()``.
        """
        check_section(section, self.mr)
        self.get_block_size()
        for part in self.bitmap.sections(section, 1):
            callback(part)

    def replay_on_state_clear(
        self, section: MemoryRegionSection, callback: SectionCallback
    ) -> None:
        """Call back for each run of private blocks; raising in it stops the replay.

        C: ``ram_block_attribute_psm_replay_on_private()``.
        """
        check_section(section, self.mr)
        self.get_block_size()
        for part in self.bitmap.sections(section, 0):
            callback(part)

    def register_listener(
        self, listener: StateChangeListener, section: MemoryRegionSection
    ) -> None:
        """Insert by priority, behind its equals, then tell it what is shared.

        Bug kept: a listener that refuses a part is only printed about.  It stays registered and
        keeps the parts before the one it refused.

        C: ``ram_block_attribute_psm_register_listener()``.
        """
        if not isinstance(listener, PrivateSharedListener):
            raise TypeError(f"expected a PrivateSharedListener, not {type(listener).__name__}")
        if listener.section is not None:
            raise ValueError(f"{listener!r} is registered already")
        check_section(section, self.mr)
        listener.section = section
        priorities = [other.priority for other in self._listeners]
        self._listeners.insert(bisect_right(priorities, listener.priority), listener)
        self.get_block_size()
        try:
            for part in self.bitmap.sections(section, 1):
                listener.notify_to_state_set(part)
        except UpstreamError:
            pass  # error_report() only

    def unregister_listener(self, listener: StateChangeListener) -> None:
        """Tell it that each shared run is gone, whatever it answers, and forget it.

        C: ``ram_block_attribute_psm_unregister_listener()``.
        """
        if not isinstance(listener, PrivateSharedListener) or listener not in self._listeners:
            raise ValueError(f"{listener!r} is not registered here")
        assert listener.section is not None
        self.get_block_size()
        for part in self.bitmap.sections(listener.section, 1):
            try:
                listener.notify_to_state_clear(part)
            except UpstreamError:
                continue  # the one place where v4 ignores a failed discard
        listener.section = None
        self._listeners.remove(listener)

    def state_change(self, offset: int, size: int, to_private: bool) -> None:
        """Make ``[offset, offset + size)`` private or shared.

        A range in the wanted state already notifies nobody.  A uniform one notifies once, a mixed
        one once per block that changes.  The bitmap changes first, so whoever is notified sees the
        new state.

        Bugs kept: ``size`` may be no multiple of a block.  The bitmap then counts whole blocks
        (rounded down), notifications carry the raw size, and the walk over a mixed range rounds
        up.  Below one block a change is a no-op, except at offset 0, where block 0 is converted
        whole; to shared that writes behind a scratch bitmap of zero bits.

        C: ``ram_block_attribute_state_change()``.

        :raises InvalidRangeError: unaligned offset, empty, wraps or past the end (upstream: -1)
        :raises UpstreamError: what a listener answered to a change to shared; all undone
        :raises AbortError: a listener refused a change to private, in a rollback too
        :raises UndefinedBehaviourError: the scratch bitmap of a mixed change is overrun
        """
        block = self.get_block_size()
        check_u64("offset", offset)
        check_u64("size", size)
        if not self._is_valid_range(offset, size, block):
            raise InvalidRangeError(f"[{offset:#x}, +{size:#x}) in {self.mr!r}", EPERM)
        if self._is_uniform(0 if to_private else 1, offset, size, block):
            return
        uniform = self._is_uniform(1 if to_private else 0, offset, size, block)
        if to_private:
            self._to_private(offset, size, uniform)
        elif uniform:
            self._uniform_to_shared(offset, size)
        else:
            self._mixture_to_shared(offset, size)

    def _is_valid_range(self, offset: int, size: int, block: int) -> bool:
        """C: ``ram_block_attribute_is_valid_range()``."""
        if offset % block or size == 0 or offset + size > U64_MAX:
            return False
        return offset < self.mr.size and offset + size <= self.mr.size

    def _is_uniform(self, value: int, offset: int, size: int, block: int) -> bool:
        """C: ``ram_block_attribute_is_range_shared()`` and ``..._is_range_private()``."""
        first, count = offset // block, size // block
        if count == 0:
            return first != 0  # the last bit wraps below the first one
        if first + count > len(self.bitmap.bits):
            raise UndefinedBehaviourError("past the bitmap", "ram_block_attribute_psm_is_shared")
        return self.bitmap.bits.find(1 - value, first, first + count) < 0

    def _to_private(self, offset: int, size: int, uniform: bool) -> None:
        if uniform:
            self.bitmap.clear(offset // HOST_PAGE_SIZE, size // HOST_PAGE_SIZE)
            self.notify_to_private(offset, size)
            return
        bits = self.bitmap.bits
        for current in range(offset, offset + size, HOST_PAGE_SIZE):
            bit = current // HOST_PAGE_SIZE
            if bits[bit]:
                bits[bit] = 0
                self.notify_to_private(current, HOST_PAGE_SIZE)

    def _uniform_to_shared(self, offset: int, size: int) -> None:
        first, count = offset // HOST_PAGE_SIZE, size // HOST_PAGE_SIZE
        self.bitmap.set(first, count)
        try:
            self.notify_to_shared(offset, size)
        except UpstreamError:
            self.bitmap.clear(first, count)
            raise

    def _mixture_to_shared(self, offset: int, size: int) -> None:
        bits = self.bitmap.bits
        scratch_bits = -(-(size // HOST_PAGE_SIZE) // BITS_PER_LONG) * BITS_PER_LONG
        converted: list[int] = []
        for current in range(offset, offset + size, HOST_PAGE_SIZE):
            bit = current // HOST_PAGE_SIZE
            if bits[bit]:
                continue
            bits[bit] = 1
            try:
                self.notify_to_shared(current, HOST_PAGE_SIZE)
            except UpstreamError:
                bits[bit] = 0
                for undone in converted:  # ascending, although reverse would undo in order
                    bits[undone] = 0
                    self.notify_to_private(undone * HOST_PAGE_SIZE, HOST_PAGE_SIZE)
                raise
            if bit - offset // HOST_PAGE_SIZE >= scratch_bits:
                raise UndefinedBehaviourError(
                    "writes behind the scratch bitmap", "ram_block_attribute_state_change"
                )
            converted.append(bit)

    def notify_to_shared(self, offset: int, size: int) -> None:
        """Tell the listeners in order of priority; the first refusal ends it.

        Those before the one that refused are told to go back, **in the same order**: bug kept,
        priorities exist to undo in reverse.

        C: ``ram_block_attribute_notify_to_shared()``.
        """
        for index, listener in enumerate(self._listeners):
            assert listener.section is not None
            part = listener.section.intersect_range(offset, size)
            if part is None:
                continue
            try:
                listener.notify_to_state_set(part)
            except UpstreamError:
                self._tell_to_private(
                    self._listeners[:index], offset, size, "ram_block_attribute_notify_to_shared"
                )
                raise

    def notify_to_private(self, offset: int, size: int) -> None:
        """Tell the listeners in reverse order; a refusal is fatal.

        C: ``ram_block_attribute_notify_to_private()``.

        :raises AbortError: a listener refused
        """
        self._tell_to_private(
            self._listeners[::-1], offset, size, "ram_block_attribute_notify_to_private"
        )

    def _tell_to_private(
        self, listeners: list[PrivateSharedListener], offset: int, size: int, function: str
    ) -> None:
        for listener in listeners:
            assert listener.section is not None
            part = listener.section.intersect_range(offset, size)
            if part is None:
                continue
            try:
                listener.notify_to_state_clear(part)
            except UpstreamError as error:
                raise AbortError(f"a change to private failed: {error}", function) from error

    def _repr_html_(self) -> str:
        ranges, size = self.shared_ranges(), self.mr.size
        shared = sum(end - start for start, end in ranges)
        facts = [("shared", f"{size_of(shared)} of {size_of(size)}")]
        return shown(f"RamBlockAttribute {self.mr.name}", facts, ranges, (0, size))

    def __repr__(self) -> str:
        shared = self.bitmap.bits.count(1)
        return (
            f"RamBlockAttribute({self.mr.name!r}: {shared} of {len(self.bitmap.bits)} blocks "
            f"shared, {counted(len(self._listeners), 'listener')})"
        )
