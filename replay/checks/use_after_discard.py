"""TK102."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from replay.checks._define import Need, check
from replay.checks.violations import Cause, Violations, grouped, size_text
from tracekit.events.iommu import IommuMap
from tracekit.events.syscall import FallocateEntered, IoctlArguments, MadviseEntered
from tracekit.events.vfio import IommufdIoctl, VfioType1Ioctl
from tracekit.findings import Finding, Judged, Severity

__all__ = ("UseAfterDiscard",)


@check
class UseAfterDiscard:
    """A device can still reach memory whose backing the host has thrown away.

    What it finds
        A successful discard (a punched hole, MADV_DONTNEED, MADV_REMOVE) of what backs a live
        mapping. Removed again within the grace it is a note, because QEMU's virtio-mem unplugs in
        that order; removed later, a warning; still there when the thread runs the guest again or
        ends, or when the range is mapped, shared or populated again, an error.

    Why it matters
        VFIO still pins the old pages: the device works on them while the CPU gets new ones, so the
        two see different memory, and the discarded pages are not free.

    Example
        0us    vmm  memory
        1us    vmm  create-vm
        5us    vmm  map      0x100000+64K
        40us   vmm  punch    0x100000+64K
        80us   vmm  run

    What to look at
        Who discarded: the call of the finding's first event. QEMU's ram_block_discard_range (its
        trace event names the RAM block), the balloon, free page reporting, virtio-mem. Whether
        discards were coordinated: ram_block_discard_require().

    Known limits
        A discard through a file needs the file's mmap in the trace, or the invalidation that KVM
        traces inside the call, to know which addresses it backs. What another thread maps during
        the discard counts as mapped after it. Swapping and migration of pages are no discards
        and are not judged.
    """

    code: ClassVar[str] = "TK102"
    name: ClassVar[str] = "use-after-discard"
    severity: ClassVar[Severity] = Severity.ERROR
    needs: ClassVar[tuple[Need, ...]] = (
        (FallocateEntered, MadviseEntered),
        (IommuMap, VfioType1Ioctl, IommufdIoctl, IoctlArguments),
    )

    def findings(self, violations: Violations) -> Iterator[Finding]:
        """One finding a container, severity and confidence: a discard under a live mapping."""
        return grouped(
            violations, 102, code=self.code, name=self.name, cause=lambda v: "discard", title=_title
        )

    def judged(self, violations: Violations) -> Judged:
        """Discards of what backs DMA mappings."""
        return violations.counters[102]


def _title(of: Cause) -> str:
    size = size_text(of.size)
    if of.first.severity is Severity.ERROR:
        return f"{size} of discarded guest memory stayed mapped for a device"
    if of.first.severity is Severity.WARNING:
        return f"{size} of discarded guest memory was unmapped for a device late"
    return f"{size} of guest memory was discarded before it was unmapped for a device"
