# SPDX-License-Identifier: Apache-2.0
"""Lingering since Linux 6.16: close() waits until everything is handed over to the peer.

Whether the peer's application reads it is not waited for: on loopback all is handed over at once.
"""

from replay.models.vsock_sock import (
    VsockSock,
    Wait,
    WaitsFor,
    vsock_release,
    vsock_send_shutdown,
)

__all__ = ("VsockLingerCore",)


class VsockLingerCore:
    """``vsock_linger(sk)``, net/vmw_vsock/af_vsock.c."""

    name = "merged"

    def release(self, vsk: VsockSock) -> Wait | None:
        """close() of the last descriptor."""
        return vsock_release(vsk, self.vsock_linger)

    def shutdown(self, vsk: VsockSock, how: int) -> Wait | None:
        """shutdown() never waits."""
        vsock_send_shutdown(vsk, how)
        return None

    def vsock_linger(self, vsk: VsockSock) -> Wait | None:
        """Tests SOCK_LINGER itself; a time of 0 is no wait."""
        if not vsk.linger or not vsk.lingertime or not vsk.unsent_bytes:
            return None
        return Wait(WaitsFor.SENT, vsk.lingertime)

    def woken(self, vsk: VsockSock) -> bool:
        """Whether the condition of the wait holds."""
        return vsk.unsent_bytes == 0
