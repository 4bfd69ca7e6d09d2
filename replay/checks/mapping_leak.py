"""TK109."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from replay.checks._define import Need, check
from replay.checks.violations import Cause, Violations, grouped, size_text
from tracekit.events.iommu import IommuDomainFreed, IommuMap, IommuUnmap
from tracekit.events.process import ProcessExit
from tracekit.findings import Finding, Judged, Severity

__all__ = ("MappingLeak",)


@check
class MappingLeak:
    """A container is gone and pages are still mapped.

    What it finds
        Live mappings after their container's end was seen: its only domain was freed, or its
        process ended and the teardown had time to finish.

    Why it matters
        Nobody can remove these mappings any more, and the pages behind them go back to the host.

    Example
        0us    vmm  set-iommu
        5us    vmm  map    0x0+64K       domain
        20us   vmm  map    0x100000+64K
        30us   vmm  unmap  0x100000+64K
        40us   vmm  free-domain

    What to look at
        Who else holds the container: a device descriptor, a leaked file, a child process. The
        kernel unmaps everything at the last close.

    Known limits
        Needs iommu:unmap in the recording. A trace that just ends is not checked. That a process
        ended is known from sched_process_exit; its leader's exit stands for it before Linux 6.16.
    """

    code: ClassVar[str] = "TK109"
    name: ClassVar[str] = "mapping-leak"
    severity: ClassVar[Severity] = Severity.ERROR
    needs: ClassVar[tuple[Need, ...]] = (IommuMap, IommuUnmap, (ProcessExit, IommuDomainFreed))

    def findings(self, violations: Violations) -> Iterator[Finding]:
        """One finding a container."""
        return grouped(
            violations, 109, code=self.code, name=self.name, cause=lambda v: "close", title=_title
        )

    def judged(self, violations: Violations) -> Judged:
        """Ends of containers."""
        return violations.counters[109]


def _title(of: Cause) -> str:
    return f"{size_text(of.size)} is still mapped after its container is gone"
