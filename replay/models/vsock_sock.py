# SPDX-License-Identifier: Apache-2.0
"""A vsock socket, and the steps of closing one that all models of lingering have in common."""

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, IntFlag
from typing import NamedTuple

from replay.models.shown import shown

__all__ = (
    "SHUTDOWN_MASK",
    "Packet",
    "Shutdown",
    "SocketType",
    "State",
    "Transport",
    "VsockSock",
    "Wait",
    "WaitsFor",
    "finish_close",
    "virtio_transport_close",
    "vsock_release",
    "vsock_send_shutdown",
)


class Shutdown(IntFlag):
    """What a side does no more."""

    RCV = 1
    SEND = 2


SHUTDOWN_MASK = Shutdown.RCV | Shutdown.SEND
_NOTHING = Shutdown(0)


class SocketType(Enum):
    """The types that AF_VSOCK has; datagrams never connect, so never linger."""

    STREAM = "stream"
    SEQPACKET = "seqpacket"
    DGRAM = "dgram"


class Transport(Enum):
    """Who carries the packets.  Only the virtio family counts unsent bytes."""

    VIRTIO = "virtio"
    HYPERV = "hyperv"
    VMCI = "vmci"


class State(Enum):
    """sk_state, by its TCP name."""

    CLOSE = 7
    SYN_SENT = 2
    ESTABLISHED = 1
    CLOSING = 11
    LISTEN = 10


class Packet(NamedTuple):
    """A control packet that closing sends."""

    op: str
    flags: int = 0


class WaitsFor(Enum):
    """What a wait waits for, besides its timeout and any signal."""

    PEER_CLOSED = "the peer to close"
    SENT = "everything to be handed over"


class Wait(NamedTuple):
    """A close() or shutdown() sleeps.  After it nobody looks at why it woke."""

    waits_for: WaitsFor
    timeout_s: int


@dataclass(kw_only=True)
class VsockSock:
    """struct vsock_sock with its struct sock, as far as closing looks at them.

    ``lingertime`` in seconds; a negative ``l_linger`` is a time without end, here 2**31 and more.
    """

    type: SocketType = SocketType.STREAM
    transport: Transport = Transport.VIRTIO
    state: State = State.ESTABLISHED
    linger: bool = False
    lingertime: int = 0
    done: bool = False
    shutdown: Shutdown = _NOTHING
    peer_shutdown: Shutdown = _NOTHING
    unsent_bytes: int = 0
    exiting: bool = False
    packets: list[Packet] = field(default_factory=list)
    closed: bool = False
    close_work: bool = False
    """The 8 s timer is armed."""

    def setsockopt_linger(self, onoff: int, linger: int) -> None:
        """SO_LINGER.  Turning it off keeps the time."""
        self.linger = onoff != 0
        if self.linger:
            self.lingertime = linger & 0xFFFFFFFF

    def _repr_html_(self) -> str:
        facts = [
            ("type", f"{self.type.value}, {self.transport.value}"),
            ("state", "closed" if self.closed else self.state.name),
            ("SO_LINGER", f"{self.lingertime:,} s" if self.linger else "off"),
            ("unsent", f"{self.unsent_bytes:,} bytes"),
            ("packets", ", ".join(packet.op for packet in self.packets) or "none"),
            ("close timer", "armed" if self.close_work else "off"),
        ]
        return shown("VsockSock", facts)


def vsock_release(vsk: VsockSock, linger: Callable[[VsockSock], Wait | None]) -> Wait | None:
    """The last descriptor is gone: what close() waits for, ``None``: nothing.

    C: ``__vsock_release()`` and ``virtio_transport_release()``.
    """
    if vsk.transport is not Transport.VIRTIO or vsk.type is SocketType.DGRAM:
        vsk.closed = True
        return None
    return virtio_transport_close(vsk, linger)


def virtio_transport_close(
    vsk: VsockSock, linger: Callable[[VsockSock], Wait | None]
) -> Wait | None:
    """C: ``virtio_transport_close()``, net/vmw_vsock/virtio_transport_common.c."""
    if vsk.state not in (State.ESTABLISHED, State.CLOSING):
        vsk.closed = True
        return None
    if vsk.peer_shutdown & SHUTDOWN_MASK == SHUTDOWN_MASK:
        vsk.packets.append(Packet("RST"))
        vsk.closed = True
        return None
    if vsk.shutdown & SHUTDOWN_MASK != SHUTDOWN_MASK:
        vsk.packets.append(Packet("SHUTDOWN", int(SHUTDOWN_MASK)))
    wait = None if vsk.exiting else linger(vsk)
    if wait is None:
        finish_close(vsk)
    return wait


def finish_close(vsk: VsockSock) -> None:
    """After the wait: removed at once if the peer is done, else the timer of 8 s begins now."""
    vsk.closed = True
    vsk.close_work = not vsk.done


def vsock_send_shutdown(vsk: VsockSock, how: int) -> None:
    """One packet a call, with this call's flags; SOCK_DONE is forgotten.

    C: ``vsock_shutdown()``, net/vmw_vsock/af_vsock.c.
    """
    mode = Shutdown(how + 1)
    vsk.shutdown |= mode
    vsk.done = False
    vsk.packets.append(Packet("SHUTDOWN", int(mode)))
