"""vsock connections to itself with different SO_LINGER, inside the lab's guest only.

Writes how long each close() took, how it ended, and what a checker has to find: nothing by the
model of the kernel it ran on, and by the other model what that kernel does differently.  In some
cases a thread of real-time priority keeps the CPU from the worker that hands packets over, so that
there is something to linger for.  Needs nothing but the standard library, and root.
"""

from __future__ import annotations

import argparse
import ctypes
import fcntl
import json
import os
import signal
import socket
import struct
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LOCAL = 1  # VMADDR_CID_LOCAL
PORT = 5000
SIOCOUTQ = 0x5411
SLACK_S = 0.3
"""An emulated guest is late by up to so much; everything else differs by twice of it."""
READ_LATE_S = 0.4
libc = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One connection.  ``linger``: seconds, ``None``: not set.  ``peer_s``: how long after the end
    of the data the other side closes.  ``hog_s``: how long nothing can be handed over.
    ``signal_s``: when a signal comes."""

    linger: int | None
    bytes: int
    reads: bool = True
    peer_s: float = 0.7
    hog_s: float = 0.0
    signal_s: float = 0.0


CASES = {
    "off": Case(linger=None, bytes=100),
    "zero": Case(linger=0, bytes=100),
    "nothing sent": Case(linger=2, bytes=0),
    "read": Case(linger=2, bytes=65536),
    "not read": Case(linger=1, bytes=4096, reads=False, peer_s=1.8),
    "starved": Case(linger=5, bytes=4096, hog_s=1.0),
    "starved to the end": Case(linger=1, bytes=4096, hog_s=1.8),
    "starved and interrupted": Case(linger=5, bytes=4096, hog_s=1.4, signal_s=0.5),
    "not set and starved": Case(linger=None, bytes=4096, hog_s=0.6),
}


def set_linger(sock: socket.socket, on: int, seconds: int) -> None:
    """setsockopt() of the C library: Python 3.11 refuses this option on AF_VSOCK."""
    value = struct.pack("=ii", on, seconds)
    if libc.setsockopt(sock.fileno(), socket.SOL_SOCKET, socket.SO_LINGER, value, len(value)):
        raise OSError(ctypes.get_errno(), "setsockopt")


def unsent_bytes(sock: socket.socket) -> int | None:
    """What the kernel says is not handed over; ``None``: it does not say, before 6.12."""
    try:
        told = fcntl.ioctl(sock, SIOCOUTQ, b"\0" * 4)
    except OSError:
        return None
    unsent: int = struct.unpack("=i", told)[0]
    return unsent


def peer(listener: socket.socket, case: Case, closing: threading.Event, told: list[int]) -> None:
    """The other side: reads to the end of the data or nothing, waits, closes.

    It reads late: where a close finds all read, its kernel resets the connection at once, and which
    of the two is over first would be chance.
    """
    accepted, _ = listener.accept()
    if case.reads:
        time.sleep(case.hog_s + READ_LATE_S)
        while accepted.recv(1 << 16):
            pass
    else:
        closing.wait()
    time.sleep(case.peer_s)
    told.append(time.monotonic_ns())
    accepted.close()


class Hog:
    """A process that keeps a CPU from everything that has no real-time priority."""

    def __init__(self, cpu: int, seconds: float) -> None:
        reading, self.go = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.sched_setaffinity(0, {cpu})
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
            os.read(reading, 1)
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                pass
            os._exit(0)
        time.sleep(0.1)  # until it waits

    def start(self) -> None:
        """From now on; runs once its starter, of higher priority on the same CPU, sleeps."""
        os.write(self.go, b"x")

    def ended(self) -> None:
        os.waitpid(self.pid, 0)
        os.close(self.go)


def unlimited_real_time() -> None:
    """Let real-time threads starve the others: no throttling, no deadline server for them."""
    Path("/proc/sys/kernel/sched_rt_runtime_us").write_text("-1\n")
    if not Path("/sys/kernel/debug/sched").is_dir():
        libc.mount(b"debugfs", b"/sys/kernel/debug", b"debugfs", 0, None)
    for server in Path("/sys/kernel/debug/sched/fair_server").glob("cpu*/runtime"):
        server.write_text("0\n")


def connection(port: int, name: str, case: Case) -> dict[str, Any]:
    """One connection from connect() to close()."""
    cpus = os.sched_getaffinity(0)
    cpu = max(cpus)
    hog = Hog(cpu, case.hog_s) if case.hog_s else None  # before there are sockets to inherit
    listener = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
    listener.bind((LOCAL, port))
    listener.listen(1)
    closing, told = threading.Event(), list[int]()
    thread = threading.Thread(target=peer, args=(listener, case, closing, told), daemon=True)
    thread.start()
    sock = socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM)
    sock.connect((LOCAL, port))
    time.sleep(0.1)  # until accept() is through
    local = sock.getsockname()
    if case.linger is not None:
        set_linger(sock, 1, case.linger)
    if hog is not None:
        os.sched_setaffinity(0, {cpu})
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))
        hog.start()
    if case.signal_s:
        signal.setitimer(signal.ITIMER_REAL, case.signal_s)
    if case.bytes:
        sock.sendall(b"x" * case.bytes)
    unsent = unsent_bytes(sock)
    begun = time.monotonic_ns()
    sock.close()
    ended = time.monotonic_ns()
    if hog is not None:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        os.sched_setaffinity(0, cpus)
        hog.ended()
    closing.set()
    thread.join()
    listener.close()
    return {
        "name": name, "local": list(local), "port": port, "linger_s": case.linger,
        "bytes": case.bytes, "reads": case.reads, "unsent": unsent, "close_start_ns": begun,
        "close_stop_ns": ended, "peer_close_ns": told[0], "expected": expected(case, begun, ended),
        "either": {"legacy": [] if case.bytes else ["TK301"], "merged": []},
    }  # fmt: skip


def expected(case: Case, begun: int, ended: int) -> dict[str, list[str]]:
    """The codes to be found for this connection, by the model that it is judged by.

    A kernel up to 6.15 waits for the peer's close, a later one until everything was handed over.
    Which of them this one is shows in its version only, so that a wrong wait is still a finding.
    Where nothing was sent, the peer's kernel answers at once, before the close is over or after it:
    ``either``.
    """
    found: dict[str, list[str]] = {"legacy": [], "merged": []}
    if not case.linger:
        return found
    waited = (ended - begun) / 1e9
    timed_out = waited >= case.linger - SLACK_S / 2
    interrupted = bool(case.signal_s) and waited < case.hog_s - SLACK_S
    legacy_kernel = tuple(map(int, os.uname().release.split(".")[:2])) < (6, 16)
    if legacy_kernel and not interrupted and waited > case.hog_s + SLACK_S:
        found["merged"].append("TK302")
    if not legacy_kernel and not interrupted and not timed_out and case.bytes:
        found["legacy"].append("TK301")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("truth", type=Path, help="the file to write")
    parser.add_argument(
        "--case", action="append", choices=tuple(CASES), help="these connections only"
    )
    given = parser.parse_args()
    unlimited_real_time()
    signal.signal(signal.SIGALRM, lambda *_: None)
    made = [connection(PORT + n, name, CASES[name]) for n, name in enumerate(given.case or CASES)]
    given.truth.write_text(json.dumps({"pid": os.getpid(), "connections": made}, indent=1) + "\n")


if __name__ == "__main__":
    main()
