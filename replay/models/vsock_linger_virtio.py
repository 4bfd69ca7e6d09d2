# SPDX-License-Identifier: Apache-2.0
"""Lingering up to Linux 6.15: close() waits until the peer has closed.

The peer has closed when it answered our SHUTDOWN with RST: it does so once its application has
read everything, or closes.  A peer that never reads keeps close() for the whole timeout.
"""

from replay.models.vsock_sock import (
    VsockSock,
    Wait,
    WaitsFor,
    vsock_release,
    vsock_send_shutdown,
)

__all__ = ("VsockLingerVirtio",)


class VsockLingerVirtio:
    """``virtio_transport_wait_close()``, net/vmw_vsock/virtio_transport_common.c."""

    name = "legacy"

    def release(self, vsk: VsockSock) -> Wait | None:
        """close() of the last descriptor."""
        return vsock_release(vsk, self.wait_close)

    def shutdown(self, vsk: VsockSock, how: int) -> Wait | None:
        """shutdown() never waits."""
        vsock_send_shutdown(vsk, how)
        return None

    def wait_close(self, vsk: VsockSock) -> Wait | None:
        """The caller tests SOCK_LINGER; a time of 0 is no wait."""
        if not vsk.linger or not vsk.lingertime or vsk.done:
            return None
        return Wait(WaitsFor.PEER_CLOSED, vsk.lingertime)

    def woken(self, vsk: VsockSock) -> bool:
        """Whether the condition of the wait holds."""
        return vsk.done
