"""TK306."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from replay.checks._define import Need, check
from replay.checks.lingering import judged_sockets, socket_findings
from replay.checks.violations import Violations
from tracekit.events.vsock import VsockCredit
from tracekit.findings import Finding, Judged, Severity

__all__ = ("VsockAccounting",)


@check
class VsockAccounting:
    """The counters of a vsock connection do not add up.

    What it finds
        Unsent bytes that are not what was sent less what was handed over, data that nobody took
        credit for (L12); more credit than the peer granted, or more bytes than it has room for
        (L13).

    Why it matters
        A counter that is too high makes close() linger to its timeout; one that is too low lets it
        return early. A peer that is sent more than it has room for resets the connection.

    Example
        0s   sock  socket
        2us  sock  connect
        2ms  sock  credit want=4096 got=1024
        3ms  sock  send 4096
        4ms  sock  sent 4096
        5ms  sock  vclose for=1ms
        9s   end

    What to look at
        virtio_transport_get_credit(), virtio_transport_put_credit() and
        virtio_transport_consume_skb_sent(): who calls them without the lock.

    Known limits
        Not checked where the probe on virtio_transport_get_credit() never fired: many kernels
        inline it.
    """

    code: ClassVar[str] = "TK306"
    name: ClassVar[str] = "vsock-accounting"
    severity: ClassVar[Severity] = Severity.ERROR
    needs: ClassVar[tuple[Need, ...]] = (VsockCredit,)

    def findings(self, violations: Violations) -> Iterator[Finding]:
        """One finding for each program and cause."""
        return socket_findings(violations, self.code, self.name)

    def judged(self, violations: Violations) -> Judged:
        """Sockets that closed."""
        return judged_sockets(violations, self.code)
