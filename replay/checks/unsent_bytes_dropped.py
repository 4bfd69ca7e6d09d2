"""TK304."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from replay.checks._define import Need, check
from replay.checks.lingering import VSOCK_EVENTS, judged_sockets, socket_findings
from replay.checks.violations import Violations
from tracekit.findings import Finding, Judged, Severity

__all__ = ("UnsentBytesDropped",)


@check
class UnsentBytesDropped:
    """A lingering connection ended and bytes did not arrive.

    What it finds
        Bytes that were never handed over when the connection ended, although close() lingered,
        did not time out and was not interrupted (L11): an error from 6.16 on, a note before, where
        lingering promised no such thing. Bytes that were handed over and that the peer threw away
        unread: a note.

    Why it matters
        close() returned 0 and the data is gone. Handing over is all that lingering promises: what
        the peer's application does with the data it must say itself.

    Example
        0s   sock  socket
        2us  sock  connect
        1ms  sock  linger 1 5
        2ms  sock  send 4096
        3ms  sock  sent 4096
        4ms  sock  vclose for=1ms
        1s   sock  peer-reset read=0
        9s   end

    What to look at
        The peer's own close: a socket closed with unread data resets the connection. Device reset
        and removal, which drop queued packets.

    Known limits
        Needs packets and, for the error, vsock.sent. A connection whose end the trace does not
        show is not judged.
    """

    code: ClassVar[str] = "TK304"
    name: ClassVar[str] = "unsent-bytes-dropped"
    severity: ClassVar[Severity] = Severity.ERROR
    needs: ClassVar[tuple[Need, ...]] = (VSOCK_EVENTS,)

    def findings(self, violations: Violations) -> Iterator[Finding]:
        """One finding for each program and cause."""
        return socket_findings(violations, self.code, self.name)

    def judged(self, violations: Violations) -> Judged:
        """Sockets that closed."""
        return judged_sockets(violations, self.code)
