"""TK108."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from replay.checks._define import Need, check
from replay.checks.violations import Cause, Violations, grouped, size_text
from tracekit.events.kvm import KvmAttributes, KvmVmIoctl, KvmVmIoctlReturned
from tracekit.events.syscall import IoctlArguments, IoctlReturned
from tracekit.events.vfio import IommufdIoctl, IoptMapUser, VfioType1Ioctl
from tracekit.findings import Finding, Judged, Severity

__all__ = ("LostRollback",)


@check
class LostRollback:
    """A conversion failed half-way, and its first half was left behind.

    What it finds
        A DMA map, an unmap or an attribute change failed in a conversion; when the thread goes on,
        pages are shared and not mapped, or private and still mapped, or were unmapped for nothing.

    Why it matters
        The two sides no longer agree about these pages, and the next conversion starts from a state
        that neither of them knows. QEMU 10.1 and later keep the bitmap of the failed change, so
        that trying again does nothing.

    Example
        0us    vmm  create-vm
        1us    vmm  memory
        2us    vmm  set-iommu
        4us    vmm  private  0x0+64K
        10us   vmm  shared   0x0+8K
        12us   vmm  map      0x0+4K
        14us   vmm  map      0x1000+4K  ret=-12
        18us   vmm  private  0x0+8K
        30us   vmm  run

    What to look at
        The errno of the call that failed: ENOSPC is the limit of DMA entries, ENOMEM the memory
        that the process may lock, EFAULT an address that was not there. `tracekit whatif` shows
        what each QEMU generation does after such an error.

    Known limits
        Only what the converting thread itself undoes before it runs its guest, converts again or
        ends counts as undone.
    """

    code: ClassVar[str] = "TK108"
    name: ClassVar[str] = "lost-rollback"
    severity: ClassVar[Severity] = Severity.ERROR
    needs: ClassVar[tuple[Need, ...]] = (
        (KvmVmIoctl, KvmAttributes),
        (VfioType1Ioctl, IommufdIoctl, IoptMapUser, IoctlArguments),
        (KvmVmIoctlReturned, IoctlReturned),
    )

    def findings(self, violations: Violations) -> Iterator[Finding]:
        """One finding a container, severity and errno."""
        return grouped(
            violations,
            108,
            code=self.code,
            name=self.name,
            cause=lambda v: f"errno {v.errno}",
            title=_title,
        )

    def judged(self, violations: Violations) -> Judged:
        """Attribute changes."""
        return violations.counters[108]


def _title(of: Cause) -> str:
    size = size_text(of.size)
    return f"{size} was left half converted after an error ({_errno(of.first.errno)})"


def _errno(number: int) -> str:
    names = {2: "ENOENT", 4: "EINTR", 12: "ENOMEM", 14: "EFAULT", 22: "EINVAL", 28: "ENOSPC"}
    return names.get(number, f"errno {number}")
