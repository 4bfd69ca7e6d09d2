"""TK105."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from replay.checks._define import Need, check
from replay.checks.violations import Cause, Violations, grouped, size_text
from tracekit.events.syscall import IoctlArguments, IoctlReturned
from tracekit.events.vfio import (
    IommufdIoctl,
    IommufdIoctlReturned,
    IoptUnmapReturned,
    VfioType1Ioctl,
    VfioType1IoctlReturned,
)
from tracekit.findings import Confidence, Finding, Judged, Severity

__all__ = ("BisectedUnmap",)


@check
class BisectedUnmap:
    """A DMA unmap would have cut an entry in two, or removed less than it said.

    What it finds
        An unmap whose range begins or ends inside an entry, refused by the kernel (EINVAL from
        type1, ENOENT from iommufd): a warning. An unmap that returned success while pages of its
        range are still translated: an error.

    Why it matters
        After a refused unmap the whole range is still mapped, and QEMU goes on as if it were not:
        this is how stale mappings begin. iommufd may have removed the areas before the one that was
        cut.

    Example
        0us   vmm  set-iommu
        5us   vmm  map    0x0+2M
        40us  vmm  unmap  0x100000+4K  ret=-22

    What to look at
        Map and unmap with the same granularity (QEMU: 4 KiB for guest_memfd, the virtio-mem block
        size). What mapped the range in one piece: the map event of the same pages.

    Known limits
        Entries made before the recording began are unknown: then a refused unmap is a warning of
        confidence likely. ENOENT of iommufd where nothing was mapped is usual and no finding.
    """

    code: ClassVar[str] = "TK105"
    name: ClassVar[str] = "bisected-unmap"
    severity: ClassVar[Severity] = Severity.ERROR
    needs: ClassVar[tuple[Need, ...]] = (
        (VfioType1Ioctl, IommufdIoctl, IoctlArguments),
        (VfioType1IoctlReturned, IommufdIoctlReturned, IoptUnmapReturned, IoctlReturned),
    )

    def findings(self, violations: Violations) -> Iterator[Finding]:
        """One finding a container, severity and errno."""
        return grouped(
            violations,
            105,
            code=self.code,
            name=self.name,
            cause=lambda v: f"dma_unmap errno {v.errno}" if v.errno else "dma_unmap short",
            title=_title,
        )

    def judged(self, violations: Violations) -> Judged:
        """DMA unmaps."""
        return violations.counters[105]


def _title(of: Cause) -> str:
    if of.first.severity is Severity.ERROR:
        size = size_text(of.size)
        return f"{size} is still mapped for a device after a successful unmap"
    name = {22: "EINVAL", 2: "ENOENT"}.get(of.first.errno, str(of.first.errno))
    what = "would cut an entry" if of.first.confidence is Confidence.CERTAIN else "may cut an entry"
    many = f"{of.count} DMA unmaps that" if of.count > 1 else "a DMA unmap that"
    return f"{many} {what} {'were' if of.count > 1 else 'was'} refused ({name})"
