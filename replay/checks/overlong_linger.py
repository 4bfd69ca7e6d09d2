"""TK302."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from replay.checks._define import Need, check
from replay.checks.lingering import VSOCK_EVENTS, judged_sockets, socket_findings
from replay.checks.violations import Violations
from tracekit.findings import Finding, Judged, Severity

__all__ = ("OverlongLinger",)


@check
class OverlongLinger:
    """A lingering close() stayed after there was nothing left to wait for.

    What it finds
        A close() that stayed longer than the slack after its condition was met (L2), that waited
        for the peer to read although all was handed over (L3, which kernels up to 6.15 do by
        design and no model but theirs allows), or that outlived its timeout (L4).

    Why it matters
        The thread is blocked although nothing can change any more: a server that closes sockets
        in its main loop serves nobody meanwhile.

    Example
        0s   sock  socket
        2us  sock  connect
        1ms  sock  linger 1 5
        2ms  sock  send 4096
        3ms  sock  sent 4096
        4ms  sock  vclose for=2s
        9s   end

    What to look at
        The kernel's version: up to 6.15 a peer that does not read keeps close() for its whole
        timeout. A CPU that was not given to the thread: scheduling events, steal time.

    Known limits
        A timeout may fire late by the timer wheel's own grain: within it a warning. Unsent bytes
        must be known, so one-sided recordings of packets alone decide nothing.
    """

    code: ClassVar[str] = "TK302"
    name: ClassVar[str] = "overlong-linger"
    severity: ClassVar[Severity] = Severity.ERROR
    needs: ClassVar[tuple[Need, ...]] = (VSOCK_EVENTS,)

    def findings(self, violations: Violations) -> Iterator[Finding]:
        """One finding for each program and cause."""
        return socket_findings(violations, self.code, self.name)

    def judged(self, violations: Violations) -> Judged:
        """Sockets that closed."""
        return judged_sockets(violations, self.code)
