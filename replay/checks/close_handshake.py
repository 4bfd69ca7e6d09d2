"""TK305."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from replay.checks._define import Need, check
from replay.checks.lingering import VSOCK_EVENTS, judged_sockets, socket_findings
from replay.checks.violations import Violations
from tracekit.findings import Finding, Judged, Severity

__all__ = ("CloseHandshake",)


@check
class CloseHandshake:
    """The packets that end a connection are missing, too many or late.

    What it finds
        A close that sent neither SHUTDOWN nor RST (L9), or others than it must (L8): one SHUTDOWN
        for both directions, none if all was shut before, an RST if the peer had shut both. The
        reset that must follow 8 s after a close that nobody answered (L10). Data after the end of
        sending (L14), a reset in answer to a reset (L15).

    Why it matters
        The peer goes on waiting for a connection that does not exist, or loses one that does; two
        ends that answer each other's resets never stop.

    Example
        0s   sock  socket
        2us  sock  connect
        2ms  sock  send 4096
        3ms  sock  sent 4096
        4ms  sock  vclose for=1ms silent
        9s   end

    What to look at
        virtio_transport_close() and virtio_transport_close_timeout() of the kernel, or of the
        device model on the other side.

    Known limits
        Resets for packets that no socket is there for are normal and are not counted. Where the
        peer's end comes while close() begins, either packet is right.
    """

    code: ClassVar[str] = "TK305"
    name: ClassVar[str] = "close-handshake"
    severity: ClassVar[Severity] = Severity.ERROR
    needs: ClassVar[tuple[Need, ...]] = (VSOCK_EVENTS,)

    def findings(self, violations: Violations) -> Iterator[Finding]:
        """One finding for each program and cause."""
        return socket_findings(violations, self.code, self.name)

    def judged(self, violations: Violations) -> Judged:
        """Sockets that closed."""
        return judged_sockets(violations, self.code)
