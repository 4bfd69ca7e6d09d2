# SPDX-License-Identifier: Apache-2.0
"""The steps that ``kvm_convert_memory()`` has in common in all generations."""

from collections.abc import Callable
from typing import NamedTuple

from replay.models.errors import ConvertError
from replay.models.flat_view import FlatView
from replay.models.memory_region import RegionKind
from replay.models.memory_region_section import MemoryRegionSection, check_u64

__all__ = ("ConvertTrace", "check_request", "discard_other_side", "find_section")

HOST_PAGE_SIZE = 4096


class ConvertTrace(NamedTuple):
    """Trace event ``kvm_convert_memory``; emitted before every check, so for bad requests too."""

    start: int
    size: int
    message: str


def check_request(
    start: int, size: int, to_private: bool, trace: Callable[[ConvertTrace], None] | None
) -> None:
    """Emit the trace event, then refuse what is unaligned or empty.

    C: the beginning of ``kvm_convert_memory()``, accel/kvm/kvm-all.c.
    """
    check_u64("start", start)
    check_u64("size", size)
    if trace is not None:
        message = "shared_to_private" if to_private else "private_to_shared"
        trace(ConvertTrace(start, size, message))
    if start % HOST_PAGE_SIZE or size % HOST_PAGE_SIZE:
        raise ConvertError(f"[{start:#x}, +{size:#x}) is not aligned to host pages")
    if size == 0:
        raise ConvertError("nothing to convert: size is 0")


def find_section(
    view: FlatView, start: int, size: int, to_private: bool
) -> MemoryRegionSection | None:
    """The lowest section in the range, or ``None`` if there is nothing to do and that is fine.

    A guest may make device memory and holes shared, which they are.  It may not make them
    private, and it may not convert memory that has no private side.

    C: the lookup in ``kvm_convert_memory()``, accel/kvm/kvm-all.c.
    """
    section = view.find(start, size)
    if section is None:
        if to_private:
            raise ConvertError(f"[{start:#x}, +{size:#x}) is a hole")
        return None
    if not section.mr.has_guest_memfd:
        if not to_private and section.mr.kind is RegionKind.MMIO:
            return None
        raise ConvertError(f"[{start:#x}, +{size:#x}) is {section.mr!r}, without guest_memfd")
    return section


def discard_other_side(section: MemoryRegionSection, size: int, to_private: bool) -> None:
    """Throw away the backing that the guest no longer uses.

    On the way to private the shared side of hugetlbfs is kept, because its pages are larger than
    what was converted.  A failure is returned and nothing is undone.

    C: the end of ``kvm_convert_memory()``, accel/kvm/kvm-all.c.
    """
    block = section.mr.ram_block
    assert block is not None
    if not to_private:
        block.discard_guest_memfd_range(section.offset_within_region, size)
    elif block.page_size == HOST_PAGE_SIZE:
        block.discard_shared_range(section.offset_within_region, size)
