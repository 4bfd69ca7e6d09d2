"""TK101."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from replay.checks._define import Need, check
from replay.checks.violations import Cause, Violations, grouped, size_text
from tracekit.events.iommu import IommuMap, IommuUnmap
from tracekit.events.kvm import KvmAttributes, KvmVmIoctl
from tracekit.events.syscall import IoctlArguments
from tracekit.events.vfio import IommufdIoctl, VfioType1Ioctl
from tracekit.findings import Finding, Judged, Severity

__all__ = ("StaleIommuMapping",)


@check
class StaleIommuMapping:
    """A device can still reach memory that the guest made private.

    What it finds
        A mapping that was live when its page became private and is still live when the conversion
        is over: when the shared backing is discarded, when the thread runs the guest again or
        ends, or when the range is converted again. A mapping that is removed too late, but before
        any of these, is a warning.

    Why it matters
        The device can read and write these pages although the guest made them private. The host
        frees or reuses the pages behind the mapping, so the guest and the device no longer see the
        same memory, and data of one reaches the other.

    Example
        0us    vmm  memory
        1us    vmm  shared   0x100000+2M
        20us   vmm  map      0x100000+2M
        40us   vmm  private  0x100000+2M
        60us   vmm  unmap    0x100000+1M
        80us   vmm  punch    0x100000+2M
        100us  vmm  unmap    0x200000+1M

    What to look at
        QEMU hw/vfio/listener.c, vfio_ram_discard_notify_discard(): it returns nothing, so a failed
        unmap is only printed. Search QEMU's log near the time for "vfio_container_dma_unmap()
        failed", and see whether a TK105 of the same pages came first.

    Known limits
        Guest physical address and IOVA are taken to be equal (no vIOMMU). A conversion during which
        events were lost is not checked. VMMs that hand a whole region's unmap to another thread are
        judged by the grace.
    """

    code: ClassVar[str] = "TK101"
    name: ClassVar[str] = "stale-iommu-mapping"
    severity: ClassVar[Severity] = Severity.ERROR
    needs: ClassVar[tuple[Need, ...]] = (
        (KvmAttributes, KvmVmIoctl, IoctlArguments),
        (IommuMap, VfioType1Ioctl, IommufdIoctl, IoctlArguments),
        (IommuUnmap, VfioType1Ioctl, IommufdIoctl, IoctlArguments),
    )

    def findings(self, violations: Violations) -> Iterator[Finding]:
        """One finding a container, severity and confidence: an unmap that came late or never."""
        return grouped(
            violations,
            101,
            code=self.code,
            name=self.name,
            cause=lambda v: "dma_unmap",
            title=_title,
        )

    def judged(self, violations: Violations) -> Judged:
        """Conversions to private."""
        return violations.counters[101]


def _title(of: Cause) -> str:
    size = size_text(of.size)
    if of.endless:
        return f"{size} of private guest memory is still mapped for a device"
    if of.first.severity is Severity.ERROR:
        return f"{size} of private guest memory stayed mapped for a device after its conversion"
    return f"{size} of private guest memory was unmapped for a device late"
