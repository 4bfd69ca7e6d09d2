"""vsock connections to itself with different SO_LINGER, inside the lab's guest only.

Writes how long each close() took and what was still unsent.  Needs nothing but the standard
library.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import json
import os
import socket
import struct
import threading
import time
from pathlib import Path
from typing import Any

LOCAL = 1  # VMADDR_CID_LOCAL
PORT = 5000
SIOCOUTQ = 0x5411
libc = ctypes.CDLL(None, use_errno=True)


def set_linger(sock: socket.socket, on: int, seconds: int) -> None:
    """setsockopt() of the C library: Python 3.11 refuses this option on AF_VSOCK."""
    value = struct.pack("=ii", on, seconds)
    if libc.setsockopt(sock.fileno(), socket.SOL_SOCKET, socket.SO_LINGER, value, len(value)):
        raise OSError(ctypes.get_errno(), "setsockopt")


def peer(listener: socket.socket, reads: bool, closed: threading.Event) -> None:
    """The other side: reads everything or nothing, then closes when told to."""
    accepted, _ = listener.accept()
    if reads:
        while accepted.recv(1 << 16):
            pass
    closed.wait(10)
    accepted.close()


def connection(port: int, linger: int | None, bytes: int, reads: bool) -> dict[str, Any]:
    """One connection from connect() to close()."""
    listener = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
    listener.bind((LOCAL, port))
    listener.listen(1)
    closed = threading.Event()
    thread = threading.Thread(target=peer, args=(listener, reads, closed))
    thread.start()
    sock = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
    sock.connect((LOCAL, port))
    if linger is not None:
        set_linger(sock, 1, linger)
    if bytes:
        sock.sendall(b"x" * bytes)
    unsent = struct.unpack("=i", fcntl.ioctl(sock, SIOCOUTQ, b"\0" * 4))[0]
    begun = time.monotonic_ns()
    sock.close()
    ended = time.monotonic_ns()
    closed.set()
    thread.join()
    listener.close()
    return {
        "port": port, "linger_s": linger, "bytes": bytes, "reads": reads, "unsent": unsent,
        "close_start_ns": begun, "close_stop_ns": ended,
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("truth", type=Path, help="the file to write")
    given = parser.parse_args()
    cases = [(None, 100, True), (0, 100, True), (1, 0, True), (2, 65536, True), (1, 4096, False)]
    made = [connection(PORT + i, *case) for i, case in enumerate(cases)]
    given.truth.write_text(json.dumps({"pid": os.getpid(), "connections": made}, indent=1) + "\n")


if __name__ == "__main__":
    main()
