"""TK301."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from replay.checks._define import Need, check
from replay.checks.lingering import VSOCK_EVENTS, judged_sockets, socket_findings
from replay.checks.violations import Violations
from tracekit.findings import Finding, Judged, Severity

__all__ = ("EarlyLingerReturn",)


@check
class EarlyLingerReturn:
    """A lingering close() returned before it had kept its promise.

    What it finds
        A close() (in the v1 series a shutdown() too) of a connected socket with SO_LINGER that
        returned before its condition was met, before its timeout, and without a signal. Up to Linux
        6.15 the condition is that the peer is done (L1); from 6.16 on that every byte was handed
        over (L1, L7).

    Why it matters
        A program that lingers relies on it: after close() it exits, removes a file or reports
        success. Bytes that were not handed over by then can be lost without anybody being told.

    Example
        0s   sock  socket
        2us  sock  connect
        1ms  sock  linger 1 5
        2ms  sock  send 4096
        3ms  sock  vclose for=1ms
        9s   end

    What to look at
        net/vmw_vsock/af_vsock.c, vsock_linger(), and virtio_transport_close() before 6.16. Whether
        the kernel carries a patch of its own there; what else makes signal_pending() true
        (io_uring's task work is no signal and shows in no event).

    Known limits
        Needs signal events: an interrupted wait looks the same. Where bytes were counted by packets
        only, what was sent within the slack of the return is not decided.
    """

    code: ClassVar[str] = "TK301"
    name: ClassVar[str] = "early-linger-return"
    severity: ClassVar[Severity] = Severity.ERROR
    needs: ClassVar[tuple[Need, ...]] = (VSOCK_EVENTS,)

    def findings(self, violations: Violations) -> Iterator[Finding]:
        """One finding for each program and cause."""
        return socket_findings(violations, self.code, self.name)

    def judged(self, violations: Violations) -> Judged:
        """Sockets that closed."""
        return judged_sockets(violations, self.code)
