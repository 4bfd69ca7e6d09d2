# SPDX-License-Identifier: Apache-2.0
"""An SEV-SNP guest converts memory with page-state-change requests, and KVM joins neighbours.

How sure: [K], from reading the kernel's snp_begin_psc() (arch/x86/kvm/svm/sev.c), not run.
"""

from collections.abc import Iterable
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

__all__ = (
    "VMGEXIT_PSC_MAX_COUNT",
    "PageStateChange",
    "PscEntry",
    "PscOperation",
    "PscResult",
    "psc_entries",
)

#: Entries that fit into one request; a larger conversion is several requests.
VMGEXIT_PSC_MAX_COUNT = 253
PAGES_PER_HUGE_PAGE = 512


class PscOperation(Enum):
    """What an entry asks for.  C: ``enum psc_op``, arch/x86/include/asm/sev-common.h."""

    PRIVATE = 1
    SHARED = 2


class PscEntry(NamedTuple):
    """One page; a huge one counts 512 small pages from ``cur_page`` on."""

    gfn: int
    operation: PscOperation
    huge: bool = False
    cur_page: int = 0

    @property
    def npages(self) -> int:
        """Small pages of the whole entry."""
        return PAGES_PER_HUGE_PAGE if self.huge else 1


class PscResult(Enum):
    """How a request ends.  C: ``VMGEXIT_PSC_ERROR_*``, arch/x86/include/asm/sev-common.h."""

    DONE = 0
    GENERIC_ERROR = 0x100 << 32
    INVALID_HEADER = 1 << 32 | 1
    INVALID_ENTRY = 1 << 32 | 2


class PageStateChange:
    """One guest's requests; ``exits`` lists what reached QEMU.

    C: ``snp_begin_psc()`` and ``snp_complete_psc()``, arch/x86/kvm/svm/sev.c.
    """

    def __init__(self, convert: Convert) -> None:
        self.convert = convert
        self.exits: list[HcMapGpaRange] = []

    def request(self, entries: list[PscEntry]) -> PscResult:
        """One request.  Neighbours with one operation and one page size become one exit.

        What was converted before an error stays converted.

        C: ``snp_begin_psc()``, arch/x86/kvm/svm/sev.c.
        """
        if len(entries) > VMGEXIT_PSC_MAX_COUNT:
            return PscResult.INVALID_HEADER
        index = 0
        while index < len(entries):
            first = entries[index]
            pages, gfn, huge = first.npages, first.gfn, first.huge
            if first.cur_page > pages or gfn % pages:
                return PscResult.INVALID_ENTRY
            if first.cur_page:  # begun before: the rest goes in small pages
                pages -= first.cur_page
                gfn += first.cur_page
                huge = False
            index += 1
            if not pages:
                continue
            while index < len(entries):
                entry = entries[index]
                if (
                    entry.operation is not first.operation
                    or entry.gfn != gfn + pages
                    or entry.cur_page
                    or entry.huge != huge
                ):
                    break
                pages += entry.npages
                index += 1
            attributes = (
                KVM_MAP_GPA_RANGE_ENCRYPTED
                if first.operation is PscOperation.PRIVATE
                else KVM_MAP_GPA_RANGE_DECRYPTED
            )
            exit_ = HcMapGpaRange(gfn * PAGE_SIZE, pages, attributes)
            self.exits.append(exit_)
            if handle_hc_map_gpa_range(exit_, self.convert):
                return PscResult.GENERIC_ERROR
        return PscResult.DONE

    def convert_range(self, gpa: int, size: int, to_private: bool) -> PscResult:
        """What a guest does with a range: fill requests, stop at the first error.

        C: ``set_pages_state()``, arch/x86/coco/sev (the guest's).
        """
        entries = list(psc_entries(gpa, size, to_private))
        for start in range(0, len(entries), VMGEXIT_PSC_MAX_COUNT):
            result = self.request(entries[start : start + VMGEXIT_PSC_MAX_COUNT])
            if result is not PscResult.DONE:
                return result
        return PscResult.DONE

    def __repr__(self) -> str:
        return f"PageStateChange({len(self.exits)} exits so far)"


def psc_entries(gpa: int, size: int, to_private: bool) -> Iterable[PscEntry]:
    """Huge entries where alignment and size allow, small ones elsewhere.

    C: ``__set_pages_state()``, arch/x86/coco/sev (the guest's).
    """
    if gpa % PAGE_SIZE or size % PAGE_SIZE:
        raise ValueError(f"[{gpa:#x}, +{size:#x}) is not made of whole pages")
    operation = PscOperation.PRIVATE if to_private else PscOperation.SHARED
    gfn, end = gpa // PAGE_SIZE, (gpa + size) // PAGE_SIZE
    while gfn < end:
        huge = gfn % PAGES_PER_HUGE_PAGE == 0 and end - gfn >= PAGES_PER_HUGE_PAGE
        yield PscEntry(gfn, operation, huge)
        gfn += PAGES_PER_HUGE_PAGE if huge else 1
