"""TK106."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from replay.checks._define import Need, check
from replay.checks.violations import Cause, Violations, grouped, size_text
from tracekit.events.syscall import IoctlArguments, IoctlReturned
from tracekit.events.vfio import (
    IommufdIoctl,
    IommufdIoctlReturned,
    IoptMapReturned,
    VfioType1Ioctl,
    VfioType1IoctlReturned,
)
from tracekit.findings import Finding, Judged, Severity

__all__ = ("DoubleMap",)


@check
class DoubleMap:
    """One IOVA was mapped twice.

    What it finds
        A DMA map refused with EEXIST, because an entry is there already: a warning. A map that
        succeeded over a live entry of the same container: an error.

    Why it matters
        The VMM's idea of what is mapped is wrong. After EEXIST the device still reaches the old
        pages, and a rollback that unmaps the range takes away what another listener had mapped.

    Example
        0us   vmm  set-iommu
        5us   vmm  map  0x0+64K
        40us  vmm  map  0x0+64K  ret=-17

    What to look at
        Two listeners of one container that overlap in IOVA; a section added twice; an unmap that
        was refused before (TK105).

    Known limits
        What was mapped before the recording began, or during a loss, is unknown until it is
        unmapped or mapped again.
    """

    code: ClassVar[str] = "TK106"
    name: ClassVar[str] = "double-map"
    severity: ClassVar[Severity] = Severity.ERROR
    needs: ClassVar[tuple[Need, ...]] = (
        (VfioType1Ioctl, IommufdIoctl, IoctlArguments),
        (VfioType1IoctlReturned, IommufdIoctlReturned, IoptMapReturned, IoctlReturned),
    )

    def findings(self, violations: Violations) -> Iterator[Finding]:
        """One finding a container and severity."""
        return grouped(
            violations,
            106,
            code=self.code,
            name=self.name,
            cause=lambda v: "dma_map EEXIST" if v.errno else "dma_map",
            title=_title,
        )

    def judged(self, violations: Violations) -> Judged:
        """DMA maps."""
        return violations.counters[106]


def _title(of: Cause) -> str:
    if of.first.severity is Severity.ERROR:
        return f"{size_text(of.size)} was mapped over a live DMA entry"
    if of.count > 1:
        return f"{of.count} DMA maps were refused because an entry is there already (EEXIST)"
    return "a DMA map was refused because an entry is there already (EEXIST)"
