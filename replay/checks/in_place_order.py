"""TK111."""

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

__all__ = ("InPlaceOrder",)


@check
class InPlaceOrder:
    """With in-place conversion: the pages were mapped when they changed sides.

    What it finds
        Only with `--in-place`: pages that a device could reach when they became private, even if
        they were unmapped in the same conversion; pages mapped before they became shared.

    Why it matters
        In-place conversion keeps one memory for both sides. A mapping that is still there when the
        page becomes private reaches private memory at once, and a pinned page makes the
        conversion fail.

    Example
        0us    vmm  create-vm
        1us    vmm  memory
        2us    vmm  set-iommu
        5us    vmm  map      0x0+64K
        10us   vmm  private  0x0+64K
        12us   vmm  unmap    0x0+64K
        30us   vmm  run

    What to look at
        The order of the listeners: unmap, then the attribute, to private; the attribute, then map,
        to shared. QEMU 10.1 to 11.1 change the attribute first in both directions.

    Known limits
        A trace does not say that conversion was in place: you do.
    """

    code: ClassVar[str] = "TK111"
    name: ClassVar[str] = "in-place-order"
    severity: ClassVar[Severity] = Severity.ERROR
    needs: ClassVar[tuple[Need, ...]] = (
        (KvmVmIoctl, KvmAttributes),
        (VfioType1Ioctl, IommufdIoctl, IoptMapUser, IoctlArguments, IommuMap),
    )

    def findings(self, violations: Violations) -> Iterator[Finding]:
        """One finding a container and direction."""
        return grouped(
            violations,
            111,
            code=self.code,
            name=self.name,
            cause=lambda v: "map before shared" if v.rule == "map" else "unmap after private",
            title=_title,
        )

    def judged(self, violations: Violations) -> Judged:
        """Conversions to private, and DMA maps."""
        return violations.counters[111]


def _title(of: Cause) -> str:
    size = size_text(of.size)
    if of.first.rule == "map":
        return f"{size} was mapped for a device before it became shared"
    return f"{size} was still mapped for a device when it became private"
