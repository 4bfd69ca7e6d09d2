"""TK110."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from replay.checks._define import Need, check
from replay.checks.violations import Cause, Violations, grouped, size_text
from tracekit.events.kvm import KvmAttributes, KvmMemslot, KvmVmIoctl
from tracekit.events.syscall import FallocateEntered, MadviseEntered
from tracekit.findings import Finding, Judged, Severity

__all__ = ("WrongSideDiscard",)


@check
class WrongSideDiscard:
    """A conversion threw away the side of memory that the guest uses now.

    What it finds
        In slots with a guest_memfd: its pages punched out in a conversion to private, or the shared
        backing discarded in a conversion to shared. And a note where a conversion to private
        discarded nothing although the shared side was in use, so that both sides hold memory.

    Why it matters
        The discarded side is the one that holds the guest's data: it reads zeros. Both sides
        populated is memory that the host pays for twice.

    Example
        0us    vmm  create-vm
        1us    vmm  memory
        2us    vmm  slot 0 0x0+1M  gmem=7
        10us   vmm  private  0x0+64K
        14us   vmm  punch-private  0x0+64K
        30us   vmm  run

    What to look at
        Which descriptor the fallocate() was made on, and the offset: slots may begin in the middle
        of a guest_memfd.

    Known limits
        Only discards by the converting thread, before it runs its guest or converts again, are in
        the conversion: others are the balloon's or virtio-mem's business. Where no slot was
        recorded nothing is judged.
    """

    code: ClassVar[str] = "TK110"
    name: ClassVar[str] = "wrong-side-discard"
    severity: ClassVar[Severity] = Severity.ERROR
    needs: ClassVar[tuple[Need, ...]] = (
        (KvmVmIoctl, KvmAttributes),
        (KvmVmIoctl, KvmMemslot),
        (FallocateEntered, MadviseEntered),
    )

    def findings(self, violations: Violations) -> Iterator[Finding]:
        """One finding a VM and side; the doubled memory is another."""
        return grouped(
            violations,
            110,
            code=self.code,
            name=self.name,
            cause=lambda v: "no discard" if v.severity is Severity.NOTE else "wrong side",
            title=_title,
            space="gpa",
        )

    def judged(self, violations: Violations) -> Judged:
        """Discards in conversions."""
        return violations.counters[110]


def _title(of: Cause) -> str:
    size = size_text(of.size)
    if of.first.severity is Severity.NOTE:
        return f"{size} became private and its shared side was not discarded"
    return f"{size} was discarded on the side that the guest uses"
