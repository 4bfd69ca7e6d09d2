"""System calls on sockets, of whatever family: who made a socket, set its options, ended it.

``fd`` is the caller's descriptor.  vsock is address family 40.
"""

from __future__ import annotations

from typing import ClassVar

from tracekit.events._define import Event, column, event

__all__ = (
    "AcceptEntered",
    "AcceptReturned",
    "ConnectEntered",
    "ConnectReturned",
    "DupEntered",
    "DupReturned",
    "RecvEntered",
    "RecvReturned",
    "SendEntered",
    "SendReturned",
    "SetsockoptArguments",
    "SetsockoptCalled",
    "SetsockoptEntered",
    "SetsockoptInSocket",
    "SetsockoptReturned",
    "ShutdownEntered",
    "ShutdownReturned",
    "SocketEntered",
    "SocketReturned",
)


@event
class SocketEntered(Event):
    """socket() entered.  Source: syscalls:sys_enter_socket."""

    name_: ClassVar[str] = "socket.entered"

    id: int = column("Address family: 40 is vsock")
    flags: int = column("Type: 1 stream, 2 datagram, 5 seqpacket, with SOCK_ flags")


@event
class SocketReturned(Event):
    """socket() returned the descriptor.  Source: syscalls:sys_exit_socket."""

    name_: ClassVar[str] = "socket.returned"

    ret: int = column("File descriptor, or -errno")


@event
class AcceptEntered(Event):
    """accept() or accept4() entered.  Source: syscalls:sys_enter_accept, sys_enter_accept4."""

    name_: ClassVar[str] = "accept.entered"

    fd: int = column("Listening socket")


@event
class AcceptReturned(Event):
    """accept() or accept4() returned.  Source: syscalls:sys_exit_accept, sys_exit_accept4."""

    name_: ClassVar[str] = "accept.returned"

    ret: int = column("File descriptor, or -errno")


@event
class ConnectEntered(Event):
    """connect() entered.  Source: syscalls:sys_enter_connect."""

    name_: ClassVar[str] = "connect.entered"

    fd: int = column("Socket")
    vaddr: int | None = column("Where the caller holds the address", default=None)


@event
class ConnectReturned(Event):
    """connect() returned.  Source: syscalls:sys_exit_connect."""

    name_: ClassVar[str] = "connect.returned"

    ret: int = column("Result")


@event
class SendEntered(Event):
    """send() or sendto() entered.  Source: syscalls:sys_enter_sendto."""

    name_: ClassVar[str] = "send.entered"

    fd: int = column("Socket")
    size: int | None = column("Bytes", default=None)
    flags: int | None = column("MSG_ flags", default=None)


@event
class SendReturned(Event):
    """send() or sendto() returned.  Source: syscalls:sys_exit_sendto."""

    name_: ClassVar[str] = "send.returned"

    ret: int = column("Bytes taken, or -errno")


@event
class RecvEntered(Event):
    """recv() or recvfrom() entered.  Source: syscalls:sys_enter_recvfrom."""

    name_: ClassVar[str] = "recv.entered"

    fd: int = column("Socket")
    size: int | None = column("Room, in bytes", default=None)
    flags: int | None = column("MSG_ flags", default=None)


@event
class RecvReturned(Event):
    """recv() or recvfrom() returned.  Source: syscalls:sys_exit_recvfrom."""

    name_: ClassVar[str] = "recv.returned"

    ret: int = column("Bytes read, or -errno")


@event
class ShutdownEntered(Event):
    """shutdown() entered.  Source: syscalls:sys_enter_shutdown."""

    name_: ClassVar[str] = "shutdown.entered"

    fd: int = column("Socket")
    flags: int = column("How: 0 reading, 1 writing, 2 both")


@event
class ShutdownReturned(Event):
    """shutdown() returned.  Source: syscalls:sys_exit_shutdown."""

    name_: ClassVar[str] = "shutdown.returned"

    ret: int = column("Result")


@event
class DupEntered(Event):
    """dup(), dup2() or dup3() entered.  Source: syscalls:sys_enter_dup and its like."""

    name_: ClassVar[str] = "dup.entered"

    fd: int = column("The descriptor that gets a twin")
    file_fd: int | None = column("The number that is wanted for it", default=None)


@event
class DupReturned(Event):
    """dup(), dup2() or dup3() returned.  Source: syscalls:sys_exit_dup and its like."""

    name_: ClassVar[str] = "dup.returned"

    ret: int = column("The new descriptor, or -errno")


@event
class SetsockoptEntered(Event):
    """setsockopt() entered.  Source: syscalls:sys_enter_setsockopt, which shows no value."""

    name_: ClassVar[str] = "setsockopt.entered"

    fd: int = column("Socket")
    id: int = column("Level: 1 SOL_SOCKET")
    cmd: int = column("Option: 13 SO_LINGER")
    vaddr: int | None = column("Where the caller holds the value", default=None)
    argsz: int | None = column("The value's size", default=None)


@event
class SetsockoptReturned(Event):
    """setsockopt() returned.  Source: syscalls:sys_exit_setsockopt."""

    name_: ClassVar[str] = "setsockopt.returned"

    ret: int = column("Result")


@event
class SetsockoptCalled(Event):
    """setsockopt()'s value, where the kernel itself is about to read it.

    Source: a probe on __sys_setsockopt() that reads the two words behind ``optval``; they are a
    struct linger if the option is SO_LINGER.
    """

    name_: ClassVar[str] = "setsockopt.called"

    fd: int | None = column("Socket", default=None)
    id: int | None = column("Level: 1 SOL_SOCKET", default=None)
    cmd: int | None = column("Option: 13 SO_LINGER", default=None)
    flags: int | None = column("First word: l_onoff", default=None)
    count: int | None = column("Second word, unsigned: l_linger in seconds", default=None)
    argsz: int | None = column("The value's size", default=None)


@event
class SetsockoptInSocket(Event):
    """setsockopt() has found its socket.  Source: a probe on do_sock_setsockopt()."""

    name_: ClassVar[str] = "setsockopt.in_socket"

    object: int | None = column("struct socket", default=None)
    id: int | None = column("Level", default=None)
    cmd: int | None = column("Option", default=None)


@event
class SetsockoptArguments(Event):
    """setsockopt()'s value, read from user memory at the system call's entry.

    Source: an eprobe on syscalls.sys_enter_setsockopt.  It reads memory that may not be present,
    and then leaves zeros: what it says of SO_LINGER is never believed.
    """

    name_: ClassVar[str] = "setsockopt.arguments"

    fd: int | None = column("Socket", default=None)
    id: int | None = column("Level", default=None)
    cmd: int | None = column("Option", default=None)
    flags: int | None = column("First word: l_onoff, or nothing", default=None)
    count: int | None = column("Second word, unsigned: l_linger, or nothing", default=None)
