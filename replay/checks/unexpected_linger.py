"""TK303."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from replay.checks._define import Need, check
from replay.checks.lingering import VSOCK_EVENTS, judged_sockets, socket_findings
from replay.checks.violations import Violations
from tracekit.findings import Finding, Judged, Severity

__all__ = ("UnexpectedLinger",)


@check
class UnexpectedLinger:
    """A close() or shutdown() waited although it must not.

    What it finds
        A close() that took longer than the slack with SO_LINGER off or of time 0, in an exiting
        process, of a datagram socket, over Hyper-V or VMCI, of a socket that is not connected or
        whose peer had shut down both directions (L5); a shutdown() that waited (L6).

    Why it matters
        Nobody who did not ask for it expects close() to block. An exiting process that waits
        cannot be killed or reaped in time.

    Example
        0s   sock  socket
        2us  sock  connect
        2ms  sock  send 4096
        3ms  sock  sent 4096
        4ms  sock  vclose for=2s
        9s   end

    What to look at
        What else vsock_release() does: a transport's own release, the socket's lock held by another
        thread. Scheduling events show a thread that simply did not run.

    Known limits
        A thread that was not scheduled for longer than the slack (50 ms) looks the same: raise
        it with --slack on a loaded host.
    """

    code: ClassVar[str] = "TK303"
    name: ClassVar[str] = "unexpected-linger"
    severity: ClassVar[Severity] = Severity.ERROR
    needs: ClassVar[tuple[Need, ...]] = (VSOCK_EVENTS,)

    def findings(self, violations: Violations) -> Iterator[Finding]:
        """One finding for each program and cause."""
        return socket_findings(violations, self.code, self.name)

    def judged(self, violations: Violations) -> Judged:
        """Sockets that closed."""
        return judged_sockets(violations, self.code)
