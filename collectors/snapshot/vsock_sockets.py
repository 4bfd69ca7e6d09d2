"""The open vsock sockets, as the kernel's socket diagnosis lists them (module vsock_diag).

Layouts: include/uapi/linux/vm_sockets_diag.h, include/uapi/linux/netlink.h.
"""

from __future__ import annotations

import socket
import struct
from dataclasses import dataclass

__all__ = ("VsockSocket", "open_vsock_sockets", "parse_answer", "request")

_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
_REQUEST_DUMP = 0x301
_AF_VSOCK = 40
_HEADER = struct.Struct("=IHHII")
_ASKED = struct.Struct("=BBHIIIII")
_TOLD = struct.Struct("=BBBBIIIIIII")
_TYPES = {1: "stream", 2: "dgram", 5: "seqpacket"}
MOST = 10_000


@dataclass(frozen=True)
class VsockSocket:
    """A socket.  ``state``: 1 established, 10 listening; ``shutdown``: 1 receive, 2 send."""

    type: str
    state: int
    shutdown: int
    local: tuple[int, int]
    peer: tuple[int, int]
    inode: int


def open_vsock_sockets() -> list[VsockSocket] | None:
    """Those of our network namespace; ``None`` where the kernel does not tell."""
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as asked:
            asked.settimeout(1.0)
            asked.send(request())
            found: list[VsockSocket] = []
            while len(found) < MOST:
                some, ended = parse_answer(asked.recv(1 << 16))
                if some is None:
                    return None
                found += some
                if ended:
                    break
            return found
    except OSError:
        return None


def request() -> bytes:
    """All sockets, in any state."""
    body = _ASKED.pack(_AF_VSOCK, 0, 0, 0xFFFFFFFF, 0, 0, 0, 0)
    size = _HEADER.size + len(body)
    return _HEADER.pack(size, _SOCK_DIAG_BY_FAMILY, _REQUEST_DUMP, 1, 0) + body


def parse_answer(data: bytes) -> tuple[list[VsockSocket] | None, bool]:
    """The sockets of one message of the kernel's, and whether it is the last.

    ``None``: it is an error, or no such message.
    """
    found: list[VsockSocket] = []
    at = 0
    while at + _HEADER.size <= len(data):
        size, kind, *_ = _HEADER.unpack_from(data, at)
        if kind == _NLMSG_ERROR or size < _HEADER.size:
            return None, True
        if kind == _NLMSG_DONE:
            return found, True
        if size < _HEADER.size + _TOLD.size or at + size > len(data):
            return None, True
        told = _TOLD.unpack_from(data, at + _HEADER.size)
        _, type, state, shutdown, cid, port, peer_cid, peer_port, inode, *_ = told
        name = _TYPES.get(type, str(type))
        found.append(VsockSocket(name, state, shutdown, (cid, port), (peer_cid, peer_port), inode))
        at += (size + 3) & ~3
    return found, False
