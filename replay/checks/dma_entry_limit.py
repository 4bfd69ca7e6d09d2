"""TK107."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from replay.checks._define import Need, check
from replay.checks.violations import Cause, Violations, grouped
from tracekit.events.syscall import IoctlArguments, IoctlReturned
from tracekit.events.vfio import VfioType1Ioctl, VfioType1IoctlReturned
from tracekit.findings import Finding, Judged, Severity

__all__ = ("DmaEntryLimit",)


@check
class DmaEntryLimit:
    """A VFIO type1 container ran out of DMA entries, or nearly.

    What it finds
        A DMA map that was refused with ENOSPC: a warning, and inside a conversion to shared an
        error. A container that reached nine tenths of the default limit of 65,535 entries and never
        passed it: a warning, likely.

    Why it matters
        With guest_memfd QEMU maps shared memory in entries of 4 KiB, so that the default limit is
        256 MiB of it. The map that is refused leaves the guest with memory that its device cannot
        reach.

    Example
        0us    vmm  create-vm
        1us    vmm  memory
        2us    vmm  set-iommu
        4us    vmm  private  0x0+64K
        10us   vmm  shared   0x0+8K
        12us   vmm  map      0x0+4K
        14us   vmm  map      0x1000+4K  ret=-28
        16us   vmm  unmap    0x0+4K
        18us   vmm  private  0x0+8K
        30us   vmm  run

    What to look at
        /sys/module/vfio_iommu_type1/parameters/dma_entry_limit, which counts for containers opened
        after it is set; 4194304 is enough for 16 GiB in entries of 4 KiB. iommufd has no such
        limit.

    Known limits
        The limit itself is not in a trace, so headroom is judged by the default. Entries are
        counted only in containers whose beginning was recorded.
    """

    code: ClassVar[str] = "TK107"
    name: ClassVar[str] = "dma-entry-limit"
    severity: ClassVar[Severity] = Severity.ERROR
    needs: ClassVar[tuple[Need, ...]] = (
        (VfioType1Ioctl, IoctlArguments),
        (VfioType1IoctlReturned, IoctlReturned),
    )

    def findings(self, violations: Violations) -> Iterator[Finding]:
        """One finding a container and severity."""
        return grouped(
            violations,
            107,
            code=self.code,
            name=self.name,
            cause=lambda v: "dma_map errno 28" if v.errno else "headroom",
            title=_title,
        )

    def judged(self, violations: Violations) -> Judged:
        """Type1 containers."""
        return violations.counters[107]


def _title(of: Cause) -> str:
    if not of.first.errno:
        return f"{of.first.peak:,} DMA entries at once: the default limit is 65,535"
    where = " in the middle of a conversion" if of.first.severity is Severity.ERROR else ""
    many = of.count > 1
    what = f"{of.count} DMA maps were" if many else "a DMA map was"
    return f"{what} refused{where}: no entry is left (ENOSPC)"
