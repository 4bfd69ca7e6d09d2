# SPDX-License-Identifier: Apache-2.0
"""The two ways in which KVM tells QEMU that the guest wants memory to change hands.

How sure: [D], read in QEMU 10.2.2, not run; what they call was run.
"""

from collections.abc import Callable
from typing import NamedTuple

from replay.models.errors import UpstreamError

__all__ = (
    "KVM_MAP_GPA_RANGE_DECRYPTED",
    "KVM_MAP_GPA_RANGE_ENCRYPTED",
    "KVM_MEMORY_EXIT_FLAG_PRIVATE",
    "Convert",
    "HcMapGpaRange",
    "handle_hc_map_gpa_range",
    "handle_memory_fault",
)

#: ``kvm_convert_memory`` of a generation, bound to its machine: (start, size, to_private).
Convert = Callable[[int, int, bool], None]

PAGE_SIZE = 4096
KVM_MEMORY_EXIT_FLAG_PRIVATE = 1 << 3
KVM_MAP_GPA_RANGE_ENCRYPTED = 1 << 4
KVM_MAP_GPA_RANGE_DECRYPTED = 0


class HcMapGpaRange(NamedTuple):
    """KVM_EXIT_HYPERCALL with KVM_HC_MAP_GPA_RANGE, as the kernel fills it in."""

    gpa: int
    npages: int
    attributes: int

    @property
    def to_private(self) -> bool:
        """Encrypted is the hypercall's word for private."""
        return bool(self.attributes & KVM_MAP_GPA_RANGE_ENCRYPTED)


def handle_hc_map_gpa_range(exit_: HcMapGpaRange, convert: Convert) -> int:
    """Convert; returns what goes back to the kernel in ``hypercall.ret``: 0 or -errno.

    C: ``kvm_handle_hc_map_gpa_range()``, target/i386/kvm/kvm.c.
    """
    try:
        convert(exit_.gpa, exit_.npages * PAGE_SIZE, exit_.to_private)
    except UpstreamError as error:
        return error.returned
    return 0


def handle_memory_fault(gpa: int, size: int, flags: int, convert: Convert) -> bool:
    """KVM_EXIT_MEMORY_FAULT: convert; returns whether the vCPU may go on.

    Bug kept: any failure stops the vCPU, one that a retry would cure too.

    C: KVM_EXIT_MEMORY_FAULT in ``kvm_cpu_exec()``, accel/kvm/kvm-all.c.
    """
    if flags & ~KVM_MEMORY_EXIT_FLAG_PRIVATE:
        return False
    try:
        convert(gpa, size, bool(flags & KVM_MEMORY_EXIT_FLAG_PRIVATE))
    except UpstreamError:
        return False
    return True
