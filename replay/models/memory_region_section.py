# SPDX-License-Identifier: Apache-2.0
"""A piece of a memory region, placed in an address space."""

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from replay.models.memory_region import MemoryRegion

__all__ = ("U64_MAX", "MemoryRegionSection", "check_section", "check_u64")

U64_MAX = (1 << 64) - 1

_new = tuple.__new__  # half the time of a call of the class; every notification makes one


class MemoryRegionSection(NamedTuple):
    """``size`` bytes of ``mr``, seen at ``offset_within_address_space``.

    ``size`` is 128 bit wide upstream and may exceed 2**64; the two offsets are 64 bit.

    C: ``MemoryRegionSection``, include/exec/memory.h.
    """

    mr: "MemoryRegion"
    offset_within_region: int
    size: int
    offset_within_address_space: int = 0

    @property
    def end_within_region(self) -> int:
        """First byte after the section, as an offset in the region."""
        return self.offset_within_region + self.size

    def intersect_range(self, offset: int, size: int) -> "MemoryRegionSection | None":
        """The part of this section inside ``[offset, offset + size)`` of the region.

        ``None`` when they do not meet; upstream then leaves the section unchanged and returns
        false.  The ends are computed in 128 bit, so nothing wraps at 2**64; the address is 64 bit
        and does wrap.

        C: ``memory_region_section_intersect_range()``, include/exec/memory.h.
        """
        mr, own, own_size, address = self
        start = own if own > offset else offset
        end = own + own_size
        if offset + size < end:
            end = offset + size
        if end <= start:
            return None
        return _new(
            MemoryRegionSection, (mr, start, end - start, (address + start - own) & U64_MAX)
        )

    def __repr__(self) -> str:
        return (
            f"MemoryRegionSection({self.mr.name} [{self.offset_within_region:#x}, "
            f"+{self.size:#x}) at {self.offset_within_address_space:#x})"
        )


def check_u64(name: str, value: object) -> int:
    """``value`` if it is an unsigned 64-bit integer; it is what every C caller passes."""
    if type(value) is int and 0 <= value <= U64_MAX:
        return value
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} is a number of bytes (int), not {type(value).__name__}")
    if 0 <= value <= U64_MAX:
        return int(value)
    raise ValueError(f"{name} is an unsigned 64-bit number, {value:#x} is not")


def check_section(section: object, mr: "MemoryRegion") -> MemoryRegionSection:
    """``section`` if it is a section of ``mr``; upstream asserts the region only when it leaves."""
    if not isinstance(section, MemoryRegionSection):
        raise TypeError(
            f"expected a MemoryRegionSection (MemoryRegion.section() makes one), "
            f"not {type(section).__name__}"
        )
    if section.mr is not mr:
        raise ValueError(f"expected a section of {mr!r}, this one is of {section.mr!r}")
    if section.size < 0 or section.offset_within_region < 0:
        raise ValueError(f"a section starts at 0 or later and has no negative size: {section!r}")
    return section
