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
        Time that runs back inside one CPU's buffer; a clock that is not the same on all CPUs
        (local); a merged recording whose clock could not be brought to the trace's.

    Why it matters
        The order of events on different CPUs is known from their times only. Where time ran back,
        the recorded order of each CPU is kept, and durations there mean nothing. Under a clock that
        differs between CPUs every error of this trace is told as a possible warning.

    Example
        0us  vmm    create-vm
        clock-back cpu0 50us said=20us
        60us vmm    run

    What to look at
        Record with trace-cmd record -C mono or -C boot; state the offset of a QEMU log with
        tracekit import --clock-offset. The kernel's log: "clocksource: timekeeping
        watchdog", a guest that was migrated or suspended.

    Known limits
        A clock that drifts between CPUs without running back on one is not seen.
    """

    code: ClassVar[str] = "TK902"
    name: ClassVar[str] = "clock-trouble"
    severity: ClassVar[Severity] = Severity.WARNING
    needs: ClassVar[tuple[Need, ...]] = ()

    def findings(self, violations: Violations) -> Iterator[Finding]:
        """One finding for all places where time ran back, one for each clock that stands apart."""
        clocks = violations.clocks
        if not clocks.comparable:
            yield _finding(
                violations,
                f"clock {clocks.name!r}: times of different CPUs cannot be compared,"
                " so that no order of events is certain",
                cause=f"clock {clocks.name}",
            )
        for prefix in clocks.apart:
            yield _finding(
                violations,
                f"the clock of the {prefix.rstrip(':')} events could not be brought to the trace's",
                cause=f"clock of {prefix}",
            )
        if violations.clock_back:
            worst = max(held - said for held, said, _ in violations.clock_back)
            yield _finding(
                violations,
                f"time ran back by up to {worst / 1000:,.1f} us inside one CPU's buffer",
                cause="clock",
                count=len(violations.clock_back),
                occurrences=tuple(
                    Occurrence(
                        iova=None, gpa=None, size=None, from_ns=said, until_ns=held, events=(seq,)
                    )
                    for held, said, seq in violations.clock_back[:100]
                ),
            )

    def judged(self, violations: Violations) -> Judged:
        """The trace itself."""
        return Judged(decided=1)


def _finding(
    violations: Violations,
    title: str,
    *,
    cause: str,
    count: int = 1,
    occurrences: tuple[Occurrence, ...] = (),
) -> Finding:
    return Finding(
        id=finding_id(
            ClockTrouble.code, (violations.host or "",) + ((cause,) if cause != "clock" else ())
        ),
        code=ClockTrouble.code,
        name=ClockTrouble.name,
        severity=Severity.WARNING,
        confidence=Confidence.CERTAIN,
        title=title,
        vm=VmRef(name=None, pid=None),
        container=None,
        device=None,
        count=count,
        occurrences=occurrences,
        cause=cause,
    )
