"""TK901."""

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

__all__ = ("LostEvents",)


@check
class LostEvents:
    """The recorder dropped events.

    What it finds
        Every mark that the kernel left where it could not keep up.

    Why it matters
        Nothing is concluded from silence around a hole: what could have happened in it is unknown
        afterwards, and conversions that were under way are not checked. So there may be violations
        that this replay could not see.

    Example
        0us  vmm  create-vm
        lost cpu0 10us..20us
        50us vmm  run

    What to look at
        Larger buffers (trace-cmd record -b), a filter on ioctl commands, fewer event types: see
        tracekit info for what filled the trace.

    Known limits
        The kernel does not always count what it lost.
    """

    code: ClassVar[str] = "TK901"
    name: ClassVar[str] = "lost-events"
    severity: ClassVar[Severity] = Severity.NOTE
    needs: ClassVar[tuple[Need, ...]] = ()

    def findings(self, violations: Violations) -> Iterator[Finding]:
        """One finding for all marks."""
        if not violations.losses:
            return
        marks = len(violations.losses)
        places = f"{marks} places" if marks > 1 else "1 place"
        if violations.lost_events:
            events = "event was" if violations.lost_events == 1 else "events were"
            what = f"{violations.lost_events:,} {events} lost"
        else:
            what = "an unknown number of events was lost"
        yield Finding(
            id=finding_id(self.code, (violations.host or "",)),
            code=self.code,
            name=self.name,
            severity=Severity.NOTE,
            confidence=Confidence.CERTAIN,
            title=f"{what} in {places}",
            vm=VmRef(name=None, pid=None),
            container=None,
            device=None,
            count=marks,
            occurrences=tuple(
                Occurrence(
                    iova=None, gpa=None, size=None, from_ns=start, until_ns=end, events=(seq,)
                )
                for start, end, seq in violations.losses[:100]
            ),
            cause="recorder",
        )

    def judged(self, violations: Violations) -> Judged:
        """The trace itself."""
        return Judged(decided=1)
