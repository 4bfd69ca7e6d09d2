"""TK902."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from replay.checks._define import Need, check
from replay.checks.violations import Violations
from tracekit.findings import (
    Confidence,
    Finding,
    Judged,
    Occurrence,
    Severity,
    VmRef,
    finding_id,
)

__all__ = ("ClockTrouble",)


@check
class ClockTrouble:
    """Times of the recording cannot be relied on.

    What it finds
        Time that runs back inside one CPU's buffer.

    Why it matters
        The order of events on different CPUs is known from their times only. Where time ran back,
        the recorded order of each CPU is kept, and durations there mean nothing.

    Example
        0us  vmm    create-vm
        clock-back cpu0 50us said=20us
        60us vmm    run

    What to look at
        Record with trace-cmd record -C mono or -C boot. The kernel's log: "clocksource: timekeeping
        watchdog", a guest that was migrated or suspended.

    Known limits
        A clock that drifts between CPUs without running back on one is not seen.
    """

    code: ClassVar[str] = "TK902"
    name: ClassVar[str] = "clock-trouble"
    severity: ClassVar[Severity] = Severity.WARNING
    needs: ClassVar[tuple[Need, ...]] = ()

    def findings(self, violations: Violations) -> Iterator[Finding]:
        """One finding for all places."""
        if not violations.clock_back:
            return
        worst = max(held - said for held, said, _ in violations.clock_back)
        yield Finding(
            id=finding_id(self.code, (violations.host or "",)),
            code=self.code,
            name=self.name,
            severity=Severity.WARNING,
            confidence=Confidence.CERTAIN,
            title=f"time ran back by up to {worst / 1000:,.1f} us inside one CPU's buffer",
            vm=VmRef(name=None, pid=None),
            container=None,
            device=None,
            count=len(violations.clock_back),
            occurrences=tuple(
                Occurrence(
                    iova=None, gpa=None, size=None, from_ns=said, until_ns=held, events=(seq,)
                )
                for held, said, seq in violations.clock_back[:100]
            ),
            cause="clock",
        )

    def judged(self, violations: Violations) -> Judged:
        """The trace itself."""
        return Judged(decided=1)
