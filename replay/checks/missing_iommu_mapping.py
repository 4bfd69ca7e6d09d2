"""TK104."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from replay.checks._define import Need, check
from replay.checks.violations import Cause, Violations, grouped, size_text
from tracekit.events.iommu import IommuMap
from tracekit.events.kvm import KvmAttributes, KvmVmIoctl
from tracekit.events.syscall import IoctlArguments
from tracekit.events.vfio import IommufdIoctl, IoptMapUser, VfioType1Ioctl
from tracekit.findings import Finding, Judged, Severity

__all__ = ("MissingIommuMapping",)


@check
class MissingIommuMapping:
    """Memory became shared and was not mapped for a device that is to reach it.

    What it finds
        A conversion to shared that is over while its pages are mapped in no way in a container
        that held them before they became private, or that holds every other shared page of their
        memory slot.

    Why it matters
        The guest hands these pages to its device, and the device's DMA faults or goes nowhere.
        QEMU's own bitmap may say that they are shared, and then trying again changes nothing.

    Example
        0us    vmm  create-vm
        1us    vmm  memory
        2us    vmm  set-iommu
        5us    vmm  map      0x0+64K
        10us   vmm  unmap    0x0+64K
        12us   vmm  private  0x0+64K
        14us   vmm  punch    0x0+64K
        16us   vmm  run
        20us   vmm  shared   0x0+64K
        30us   vmm  run

    What to look at
        Whether the map was tried at all: a failed one in the same conversion is TK107's or TK108's.
        In QEMU, whether VFIO's listener is registered for the section, and what it logged.

    Known limits
        Shared memory that nobody converted is never missing: firmware unmaps and maps all of it on
        its own. A page that its container never held, in a slot that it does not hold in full, is
        not missed either.
    """

    code: ClassVar[str] = "TK104"
    name: ClassVar[str] = "missing-iommu-mapping"
    severity: ClassVar[Severity] = Severity.ERROR
    needs: ClassVar[tuple[Need, ...]] = (
        (KvmVmIoctl, KvmAttributes),
        (VfioType1Ioctl, IommufdIoctl, IoptMapUser, IoctlArguments, IommuMap),
    )

    def findings(self, violations: Violations) -> Iterator[Finding]:
        """One finding a container, severity and confidence."""
        return grouped(
            violations,
            104,
            code=self.code,
            name=self.name,
            cause=lambda v: "dma_map late" if v.rule == "grace" else "dma_map never came",
            title=_title,
        )

    def judged(self, violations: Violations) -> Judged:
        """Conversions to shared."""
        return violations.counters[104]


def _title(of: Cause) -> str:
    size = size_text(of.size)
    if not of.endless:
        return f"{size} of shared guest memory was mapped too late for a device"
    return f"{size} of shared guest memory is not mapped for a device"
