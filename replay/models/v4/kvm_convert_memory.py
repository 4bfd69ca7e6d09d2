# SPDX-License-Identifier: Apache-2.0
"""A guest asks for memory to change hands, as in the v4 series."""

from collections.abc import Callable

from replay.models.errors import AbortError
from replay.models.flat_view import FlatView
from replay.models.kvm_conversion import (
    ConvertTrace,
    check_request,
    discard_other_side,
    find_section,
)

__all__ = ("kvm_convert_memory",)


def kvm_convert_memory(
    view: FlatView,
    start: int,
    size: int,
    to_private: bool,
    *,
    trace: Callable[[ConvertTrace], None] | None = None,
) -> None:
    """Convert guest addresses ``[start, start + size)``.

    To shared: bitmap, KVM attribute (priority 0), VFIO map (priority 10), punch guest_memfd.
    To private: bitmap, VFIO unmap, KVM attribute, discard of the shared side.  Whatever fails on
    the way to shared is rolled back by the state change.

    Bug kept: only the first of several ranges is looked up, but the **whole** size is applied from
    there.  Behind a hole that shifts the request; across a region's end the state change refuses
    it, before anything is touched.

    C: ``kvm_convert_memory()``, accel/kvm/kvm-all.c of the v4 series (patch 11).

    :raises ConvertError: unaligned, empty, or not memory that can be private
    :raises InvalidRangeError: runs past the end of the RAM block (upstream: -1)
    :raises UpstreamError: what a listener or a discard answered
    :raises FatalEnd: as ``RamBlockAttribute.state_change()``
    """
    check_request(start, size, to_private, trace)
    section = find_section(view, start, size, to_private)
    if section is None:
        return
    block = section.mr.ram_block
    attribute = None if block is None else block.attributes
    if attribute is None:
        raise AbortError("the RAM block has no RamBlockAttribute", "kvm_convert_memory")
    attribute.state_change(section.offset_within_region, size, to_private)
    discard_other_side(section, size, to_private)
