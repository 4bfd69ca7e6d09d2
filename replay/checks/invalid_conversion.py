"""TK202."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from replay.checks._define import Need, check
from replay.checks.violations import Cause, Violations, grouped
from tracekit.events.kvm import KvmAttributes, KvmVmIoctl, KvmVmIoctlReturned
from tracekit.events.syscall import IoctlArguments, IoctlReturned
from tracekit.findings import Finding, Judged, Severity

__all__ = ("InvalidConversion",)


@check
class InvalidConversion:
    """A conversion was asked for that no page can make.

    What it finds
        A change of memory attributes refused with EINVAL: a warning. One that was taken although
        its range is unaligned, empty or wraps: an error.

    Why it matters
        A guest or a VMM computed a wrong range. What it meant to convert was not converted.

    Example
        0us   vmm  create-vm
        5us   vmm  private  0x1001+4K  ret=-22

    What to look at
        The guest's request (KVM_HC_MAP_GPA_RANGE, MapGPA, page-state change) and QEMU's
        kvm_convert_memory trace event, which is emitted before every check.

    Known limits
        Ranges outside every memory slot are not judged.
    """

    code: ClassVar[str] = "TK202"
    name: ClassVar[str] = "invalid-conversion"
    severity: ClassVar[Severity] = Severity.ERROR
    needs: ClassVar[tuple[Need, ...]] = (
        (KvmAttributes, KvmVmIoctl, IoctlArguments),
        (KvmVmIoctlReturned, IoctlReturned),
    )

    def findings(self, violations: Violations) -> Iterator[Finding]:
        """One finding a VM and severity."""
        return grouped(
            violations,
            202,
            code=self.code,
            name=self.name,
            cause=lambda v: "set_memory_attributes EINVAL" if v.errno else "set_memory_attributes",
            title=_title,
            space="gpa",
        )

    def judged(self, violations: Violations) -> Judged:
        """Changes of memory attributes."""
        return violations.counters[202]


def _title(of: Cause) -> str:
    many = f"{of.count} invalid conversions were" if of.count > 1 else "an invalid conversion was"
    return f"{many} refused (EINVAL)" if of.first.errno else f"{many} taken"
