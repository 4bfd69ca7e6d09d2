"""TK103."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from replay.checks._define import Need, check
from replay.checks.violations import Cause, Violations, grouped, size_text
from tracekit.events.iommu import IommuMap
from tracekit.events.kvm import KvmAttributes, KvmVmIoctl
from tracekit.events.syscall import IoctlArguments
from tracekit.events.vfio import IommufdIoctl, VfioType1Ioctl
from tracekit.findings import Finding, Judged, Severity

__all__ = ("PrematureMap",)


@check
class PrematureMap:
    """A device was given memory that was private at that moment.

    What it finds
        A DMA map that took effect while its pages were private, before the change to shared was
        committed, or without one.

    Why it matters
        A device that starts at once reads or writes memory that the guest has not released. With
        conversion in place the map pins the page, and the conversion fails.

    Example
        0us   vmm  create-vm
        5us   vmm  private  0x0+16M
        40us  vmm  map      0x200000+64K
        60us  vmm  shared   0x200000+64K

    What to look at
        The order of the two calls in the VMM: QEMU changes the attribute first and maps then
        (kvm_convert_memory() in accel/kvm/kvm-all.c).

    Known limits
        Guest physical address and IOVA are taken to be equal (no vIOMMU). Maps of private memory
        for trusted devices (TDISP) are legitimate and not told apart.
    """

    code: ClassVar[str] = "TK103"
    name: ClassVar[str] = "premature-map"
    severity: ClassVar[Severity] = Severity.ERROR
    needs: ClassVar[tuple[Need, ...]] = (
        (KvmAttributes, KvmVmIoctl, IoctlArguments),
        (IommuMap, VfioType1Ioctl, IommufdIoctl, IoctlArguments),
    )

    def findings(self, violations: Violations) -> Iterator[Finding]:
        """One finding a container, severity and confidence: a map that came too early."""
        return grouped(
            violations, 103, code=self.code, name=self.name, cause=lambda v: "dma_map", title=_title
        )

    def judged(self, violations: Violations) -> Judged:
        """Successful DMA maps."""
        return violations.counters[103]


def _title(of: Cause) -> str:
    return f"{size_text(of.size)} was mapped for a device while private"
