# SPDX-License-Identifier: Apache-2.0
"""A guest asks for memory to change hands (QEMU 10.1 and later)."""

from collections.abc import Callable

from replay.models.errors import AbortError
from replay.models.flat_view import FlatView
from replay.models.kvm_conversion import (
    ConvertTrace,
    check_request,
    discard_other_side,
    find_section,
)
from replay.models.kvm_memory_attributes import KvmMemoryAttributes

__all__ = ("kvm_convert_memory",)


def kvm_convert_memory(
    view: FlatView,
    kvm: KvmMemoryAttributes,
    start: int,
    size: int,
    to_private: bool,
    *,
    trace: Callable[[ConvertTrace], None] | None = None,
) -> None:
    """Convert guest addresses ``[start, start + size)``.

    To shared: KVM attribute, bitmap, VFIO map, punch guest_memfd.  To private: KVM attribute,
    bitmap, VFIO unmap, discard of the shared side.  In both directions the attribute comes first,
    which in-place conversion would not stand.

    Bugs kept: the attribute of the **whole** request changes, however little of it is memory that
    can be private, and stays changed when the state change fails.  Only the first of several
    ranges is looked up, but the whole size is applied from there: behind a hole that shifts the
    request; across a region's end the state change refuses it, after the attribute changed.

    C: ``kvm_convert_memory()``, accel/kvm/kvm-all.c.

    :raises ConvertError: unaligned, empty, or not memory that can be private
    :raises SetAttributesError: KVM refused; nothing else happened
    :raises UpstreamError: what the state change or the discard raised
    """
    check_request(start, size, to_private, trace)
    section = find_section(view, start, size, to_private)
    if section is None:
        return
    if to_private:
        kvm.set_memory_attributes_private(start, size)
    else:
        kvm.set_memory_attributes_shared(start, size)
    block = section.mr.ram_block
    attributes = None if block is None else block.attributes
    if attributes is None:
        raise AbortError("the RAM block has no RamBlockAttributes", "kvm_convert_memory")
    attributes.state_change(section.offset_within_region, size, to_private)
    discard_other_side(section, size, to_private)
