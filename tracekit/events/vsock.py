"""vsock: packets, the ends of sockets, and the bytes that are not handed over yet.

An address (``local``, ``peer``) is a CID in the upper 32 bits and a port in the lower.  ``object``
is the kernel's socket: struct sock and struct vsock_sock have one address.
"""

from __future__ import annotations

from typing import ClassVar

from tracekit.events._define import Event, column, event

__all__ = (
    "VsockCloseTimeout",
    "VsockCredit",
    "VsockCreditReturned",
    "VsockCreditTaken",
    "VsockDeviceReset",
    "VsockDone",
    "VsockHypervRelease",
    "VsockHypervReleased",
    "VsockLinger",
    "VsockLingered",
    "VsockPacketAllocated",
    "VsockPacketReceived",
    "VsockRelease",
    "VsockReleased",
    "VsockSent",
    "VsockShutdown",
    "VsockShutdownReturned",
    "VsockTransportRelease",
    "VsockTransportReleased",
    "VsockUnsentAsked",
    "VsockUnsentTold",
    "VsockVmciRelease",
    "VsockVmciReleased",
)


@event
class VsockPacketAllocated(Event):
    """A packet is made.  Source: vsock:virtio_transport_alloc_pkt, before it is queued.

    ``flags`` lacks the end-of-message flags of a seqpacket.
    """

    name_: ClassVar[str] = "vsock.packet_allocated"

    local: int = column("Source address")
    peer: int = column("Destination address")
    size: int = column("Bytes of payload")
    id: int = column("Type: 1 stream, 2 seqpacket")
    cmd: int = column(
        "Operation: 1 request, 2 response, 3 reset, 4 shutdown, 5 data, 6 and 7 credit"
    )
    flags: int = column("Of a shutdown: 1 receives no more, 2 sends no more")


@event
class VsockPacketReceived(Event):
    """A packet has come.  Source: vsock:virtio_transport_recv_pkt, in a worker, before the socket
    is looked for."""

    name_: ClassVar[str] = "vsock.packet_received"

    local: int = column("Source address")
    peer: int = column("Destination address")
    size: int = column("Bytes of payload")
    id: int = column("Type: 1 stream, 2 seqpacket")
    cmd: int = column(
        "Operation: 1 request, 2 response, 3 reset, 4 shutdown, 5 data, 6 and 7 credit"
    )
    flags: int = column("Of a shutdown: 1 receives no more, 2 sends no more; of data: 1 ends it")
    argsz: int | None = column("The sender's buffer size", default=None)
    count: int | None = column(
        "Bytes that the sender's application has read, 32 bits", default=None
    )


@event
class VsockRelease(Event):
    """A vsock socket's last descriptor is gone.  Source: a probe on vsock_release()."""

    name_: ClassVar[str] = "vsock.release"

    object: int | None = column("struct sock", default=None)


@event
class VsockReleased(Event):
    """vsock_release() returned.  Source: its return probe."""

    name_: ClassVar[str] = "vsock.released"

    ret: int | None = column("Result, always 0", default=None)


@event
class VsockTransportRelease(Event):
    """A connected socket closes.  Source: a probe on virtio_transport_release()."""

    name_: ClassVar[str] = "vsock.transport_release"

    object: int | None = column("struct vsock_sock", default=None)
    local: int | None = column("Own address; CID 0xffffffff where it was never bound", default=None)
    peer: int | None = column("The peer's address", default=None)
    flags: int | None = column("What the peer has shut down: 1 receiving, 2 sending", default=None)
    id: int | None = column("What was shut down here: 1 receiving, 2 sending", default=None)
    cmd: int | None = column("State: 1 established, 7 closed, 11 closing", default=None)
    count: int | None = column("sk_lingertime, in jiffies", default=None)
    attributes: int | None = column("Socket flags: bit 4 SO_LINGER", default=None)


@event
class VsockTransportReleased(Event):
    """virtio_transport_release() returned.  Source: its return probe."""

    name_: ClassVar[str] = "vsock.transport_released"


@event
class VsockHypervRelease(Event):
    """A connected Hyper-V socket closes.  Source: a probe on hvs_release()."""

    name_: ClassVar[str] = "vsock.hyperv_release"

    object: int | None = column("struct vsock_sock", default=None)


@event
class VsockHypervReleased(Event):
    """hvs_release() returned.  Source: its return probe."""

    name_: ClassVar[str] = "vsock.hyperv_released"


@event
class VsockVmciRelease(Event):
    """A connected VMCI socket closes.  Source: a probe on vmci_transport_release()."""

    name_: ClassVar[str] = "vsock.vmci_release"

    object: int | None = column("struct vsock_sock", default=None)


@event
class VsockVmciReleased(Event):
    """vmci_transport_release() returned.  Source: its return probe."""

    name_: ClassVar[str] = "vsock.vmci_released"


@event
class VsockLinger(Event):
    """A close may wait.  Source: a probe on vsock_linger(), which 6.16 and later have."""

    name_: ClassVar[str] = "vsock.linger"

    object: int | None = column("struct sock", default=None)
    count: int | None = column("sk_lingertime, in jiffies", default=None)


@event
class VsockLingered(Event):
    """vsock_linger() returned.  Source: its return probe."""

    name_: ClassVar[str] = "vsock.lingered"


@event
class VsockShutdown(Event):
    """shutdown() of a vsock socket.  Source: a probe on vsock_shutdown()."""

    name_: ClassVar[str] = "vsock.shutdown"

    object: int | None = column("struct sock", default=None)
    flags: int | None = column("How: 0 reading, 1 writing, 2 both", default=None)


@event
class VsockShutdownReturned(Event):
    """vsock_shutdown() returned.  Source: its return probe."""

    name_: ClassVar[str] = "vsock.shutdown_returned"

    ret: int | None = column("Result", default=None)


@event
class VsockSent(Event):
    """Bytes were handed over to the other side's queue or buffer, and are unsent no more.

    Source: a probe on virtio_transport_consume_skb_sent(), at its entry: the counter goes down
    just after it.
    """

    name_: ClassVar[str] = "vsock.sent"

    object: int | None = column("struct sock", default=None)
    size: int | None = column("Bytes of payload", default=None)


@event
class VsockUnsentAsked(Event):
    """The unsent bytes are asked for.  Source: a probe on virtio_transport_unsent_bytes()."""

    name_: ClassVar[str] = "vsock.unsent_asked"

    object: int | None = column("struct vsock_sock", default=None)


@event
class VsockUnsentTold(Event):
    """virtio_transport_unsent_bytes() returned.  Source: its return probe."""

    name_: ClassVar[str] = "vsock.unsent_told"

    ret: int = column("Unsent bytes")


@event
class VsockCredit(Event):
    """A sender asks for credit.  Source: a probe on virtio_transport_get_credit().

    Many kernels inline the function: then the probe is made and never fires.
    """

    name_: ClassVar[str] = "vsock.credit"

    object: int | None = column("struct virtio_vsock_sock", default=None)
    size: int | None = column("Bytes wanted", default=None)
    offset: int | None = column("tx_cnt: bytes ever taken, 32 bits", default=None)
    count: int | None = column("bytes_unsent", default=None)
    argsz: int | None = column("peer_buf_alloc: the peer's buffer size", default=None)
    id: int | None = column("peer_fwd_cnt: bytes that the peer has read, 32 bits", default=None)


@event
class VsockCreditTaken(Event):
    """virtio_transport_get_credit() returned.  Source: its return probe."""

    name_: ClassVar[str] = "vsock.credit_taken"

    ret: int = column("Bytes granted")


@event
class VsockCreditReturned(Event):
    """Credit that was not used goes back.  Source: a probe on virtio_transport_put_credit()."""

    name_: ClassVar[str] = "vsock.credit_returned"

    object: int | None = column("struct virtio_vsock_sock", default=None)
    size: int | None = column("Bytes", default=None)


@event
class VsockDone(Event):
    """The connection is over: SOCK_DONE.  Source: a probe on virtio_transport_do_close()."""

    name_: ClassVar[str] = "vsock.done"

    object: int | None = column("struct vsock_sock", default=None)


@event
class VsockCloseTimeout(Event):
    """The peer did not answer for 8 s.  Source: a probe on virtio_transport_close_timeout()."""

    name_: ClassVar[str] = "vsock.close_timeout"


@event
class VsockDeviceReset(Event):
    """The device went away under a socket.  Source: a probe on virtio_vsock_reset_sock()."""

    name_: ClassVar[str] = "vsock.device_reset"

    object: int | None = column("struct sock", default=None)
