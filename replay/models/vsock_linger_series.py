# SPDX-License-Identifier: Apache-2.0
"""Lingering as first posted (v1, 7 April 2025): close() and shutdown() wait until all is sent.

Never merged so: from v2 on shutdown() does not wait.
"""

from replay.models.vsock_sock import (
    VsockSock,
    Wait,
    WaitsFor,
    vsock_release,
    vsock_send_shutdown,
)

__all__ = ("VsockLingerSeries",)


class VsockLingerSeries:
    """``vsock_linger(sk, timeout)`` of the series "vsock: SOCK_LINGER rework", v1."""

    name = "v1"

    def release(self, vsk: VsockSock) -> Wait | None:
        """close() of the last descriptor."""
        return vsock_release(vsk, self.vsock_linger)

    def shutdown(self, vsk: VsockSock, how: int) -> Wait | None:
        """Waits too; an exiting process is not spared."""
        vsock_send_shutdown(vsk, how)
        return self.vsock_linger(vsk)

    def vsock_linger(self, vsk: VsockSock) -> Wait | None:
        """The callers test SOCK_LINGER; a time of 0 is no wait."""
        if not vsk.linger or not vsk.lingertime or not vsk.unsent_bytes:
            return None
        return Wait(WaitsFor.SENT, vsk.lingertime)

    def woken(self, vsk: VsockSock) -> bool:
        """Whether the condition of the wait holds."""
        return vsk.unsent_bytes == 0
