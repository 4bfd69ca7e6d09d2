"""TK201."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from replay.checks._define import Need, check
from replay.checks.violations import Cause, Violations, grouped
from tracekit.events.iommu import IommuMap
from tracekit.events.kvm import KvmAttributes, KvmVmIoctl
from tracekit.events.syscall import IoctlArguments
from tracekit.events.vfio import IommufdIoctl, VfioType1Ioctl
from tracekit.findings import Finding, Judged, Severity

__all__ = ("DivergingConversion",)


@check
class DivergingConversion:
    """A conversion is not what QEMU of its generation would have done.

    What it finds
        A conversion whose calls (attribute, maps, unmaps, discard) differ from those of the model
        of that QEMU in range, pieces, order, or rollback; and calls for virtio-mem that differ from
        its manager's. The first call that differs is named, both sequences are shown, and later
        conversions are compared with what was seen. Known bugs of that QEMU which a recording shows
        are notes, by name.

    Why it matters
        The host does not run the code that was reviewed, or that code was disturbed. What it left
        behind may break a promise only later, when a device or the guest comes back to this memory.

    Example
        0us    vmm  create-vm
        1us    vmm  memory
        2us    vmm  set-iommu
        3us    vmm  slot 0 0x0+16M gmem
        10us   vmm  private 0x0+16M
        20us   vmm  shared 0x100000+16K
        25us   vmm  map 0x100000+4K
        27us   vmm  map 0x101000+4K
        29us   vmm  map 0x102000+4K
        31us   vmm  map 0x103000+4K
        35us   vmm  punch-private 0x100000+16K
        40us   vmm  run
        50us   vmm  private 0x100000+16K
        52us   vmm  unmap 0x100000+16K
        54us   vmm  punch 0x100000+16K
        60us   vmm  run
        70us   vmm  shared 0x200000+4K
        72us   vmm  map 0x200000+4K
        74us   vmm  punch-private 0x200000+4K
        76us   vmm  run
        80us   vmm  private 0x200000+4K
        82us   vmm  unmap 0x200000+4K
        84us   vmm  punch 0x200000+4K
        86us   vmm  run
        90us   vmm  shared 0x300000+4K
        92us   vmm  map 0x300000+4K
        94us   vmm  run
        100us  end

    What to look at
        QEMU accel/kvm/kvm-all.c, kvm_convert_memory(); system/ram-block-attributes.c,
        ram_block_attributes_state_change(); hw/vfio/listener.c. The notes of the finding hold both
        sequences. docs/conformance.md says how a generation is chosen.

    Known limits
        Where no generation explains four in five conversions the check says no_generation: a VMM
        that is not QEMU is not judged by it, unless --generation names one. A discard is compared
        by its size alone. A conversion of memory of which nothing is known yet is not compared.
    """

    code: ClassVar[str] = "TK201"
    name: ClassVar[str] = "diverging-conversion"
    severity: ClassVar[Severity] = Severity.ERROR
    needs: ClassVar[tuple[Need, ...]] = (
        (KvmAttributes, KvmVmIoctl, IoctlArguments, VfioType1Ioctl, IommufdIoctl),
        (IommuMap, VfioType1Ioctl, IommufdIoctl, IoctlArguments, KvmAttributes, KvmVmIoctl),
    )

    def findings(self, violations: Violations) -> Iterator[Finding]:
        """One finding a process, generation and way to differ."""
        return grouped(
            violations,
            201,
            code=self.code,
            name=self.name,
            cause=lambda v: str(v.rule),
            title=_title,
            space="gpa",
        )

    def judged(self, violations: Violations) -> Judged:
        """Conversions, plug requests, and DMA calls outside of them."""
        return violations.counters.get(201, Judged())


def _title(of: Cause) -> str:
    generation, _, how = str(of.first.rule).partition(":")
    if of.first.severity is Severity.NOTE and of.first.notes and "|" not in of.first.notes[0]:
        return f"{how} (QEMU {generation})"
    words = how.replace("-", " ")
    what = "a conversion is" if of.count == 1 else f"{of.count:,} conversions are"
    return f"{what} not QEMU's ({generation}): {words}"
