# SPDX-License-Identifier: Apache-2.0
"""A TDX guest converts memory with TDG.VP.VMCALL<MapGPA>, and KVM cuts it up.

How sure: [K] for pieces of 2 MiB and the retry, which the facts have; [D] for the order of checks
and the status of each, from the kernel's tdx_map_gpa(), not run.
"""

from collections.abc import Callable
from enum import Enum
from typing import NamedTuple

from replay.models.kvm_exits import (
    KVM_MAP_GPA_RANGE_DECRYPTED,
    KVM_MAP_GPA_RANGE_ENCRYPTED,
    PAGE_SIZE,
    Convert,
    HcMapGpaRange,
    handle_hc_map_gpa_range,
)
from replay.models.memory_region_section import U64_MAX, check_u64

__all__ = ("TDX_MAP_GPA_MAX_LEN", "MapGpaResult", "TdvmcallStatus", "TdxMapGpa")

#: So that a vCPU looks at its interrupts now and then.
TDX_MAP_GPA_MAX_LEN = 2 << 20


class TdvmcallStatus(Enum):
    """R10 on return to the guest.  C: ``TDVMCALL_STATUS_*``, arch/x86/include/asm/shared/tdx.h."""

    SUCCESS = 0
    RETRY = 1
    INVALID_OPERAND = 1 << 63
    ALIGN_ERROR = (1 << 63) | 2


class MapGpaResult(NamedTuple):
    """What the guest sees: with RETRY or an error ``next_gpa`` says where it stopped."""

    status: TdvmcallStatus
    next_gpa: int = 0


class TdxMapGpa:
    """One guest's MapGPA calls.

    ``shared_bit`` in a guest address asks for shared, its absence for private.  ``has_events``
    says, between two pieces, whether an interrupt is waiting; then the guest has to call again.
    ``exits`` lists what reached QEMU.

    C: ``tdx_map_gpa()``, ``__tdx_map_gpa()`` and ``tdx_complete_vmcall_map_gpa()``,
    arch/x86/kvm/vmx/tdx.c.
    """

    def __init__(
        self,
        convert: Convert,
        *,
        shared_bit: int = 1 << 47,
        has_events: Callable[[], bool] = lambda: False,
    ) -> None:
        self.convert = convert
        self.shared_bit = shared_bit
        self.has_events = has_events
        self.exits: list[HcMapGpaRange] = []

    def map_gpa(self, gpa: int, size: int) -> MapGpaResult:
        """One TDVMCALL.  Pieces count from ``gpa``, so they need not be aligned to 2 MiB.

        C: ``tdx_map_gpa()``, arch/x86/kvm/vmx/tdx.c.
        """
        check_u64("gpa", gpa)
        check_u64("size", size)
        end = gpa + size
        if size == 0 or end > U64_MAX or (gpa ^ (end - 1)) & self.shared_bit:
            return MapGpaResult(TdvmcallStatus.INVALID_OPERAND)
        if gpa % PAGE_SIZE or size % PAGE_SIZE:
            return MapGpaResult(TdvmcallStatus.ALIGN_ERROR)
        attributes = (
            KVM_MAP_GPA_RANGE_DECRYPTED if gpa & self.shared_bit else KVM_MAP_GPA_RANGE_ENCRYPTED
        )
        following = gpa
        while True:
            length = min(end - following, TDX_MAP_GPA_MAX_LEN)
            exit_ = HcMapGpaRange(following & ~self.shared_bit, length // PAGE_SIZE, attributes)
            self.exits.append(exit_)
            if handle_hc_map_gpa_range(exit_, self.convert):
                return MapGpaResult(TdvmcallStatus.INVALID_OPERAND, following)
            following += TDX_MAP_GPA_MAX_LEN
            if following >= end:
                return MapGpaResult(TdvmcallStatus.SUCCESS)
            if self.has_events():
                return MapGpaResult(TdvmcallStatus.RETRY, following)

    def map_gpa_until_done(self, gpa: int, size: int) -> MapGpaResult:
        """What a guest does: call again from where it stopped for as long as it is told RETRY.

        C: ``tdx_map_gpa()``, arch/x86/coco/tdx/tdx.c (the guest's); it gives up after three
        calls without progress, which cannot happen here.
        """
        end = gpa + size
        while True:
            result = self.map_gpa(gpa, end - gpa)
            if result.status is not TdvmcallStatus.RETRY:
                return result
            gpa = result.next_gpa

    def __repr__(self) -> str:
        return f"TdxMapGpa({len(self.exits)} exits so far)"
