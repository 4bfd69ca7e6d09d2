"""What a made socket, packet, thread and machine hold."""

from __future__ import annotations

from dataclasses import dataclass, field

from replay.models.vsock_sock import Packet, VsockSock

__all__ = (
    "BUFFER",
    "LARGEST",
    "Deviation",
    "InFlight",
    "Machine",
    "Sock",
    "Thread",
)

BUFFER = 262_144
"""The default buffer of a vsock socket, bytes."""
LARGEST = 65_536
"""Most bytes of payload in one packet."""


@dataclass(kw_only=True)
class Deviation:
    """How one socket's kernel does other than its model says.

    ``skip_wait``: close() does not wait; ``extra_ns``: it stays on after its wait; ``stay_ns``: it
    stays so long from its entry on, whatever it waits for.  ``packets``: what close() sends in
    place of the model's.  ``timer_ns``: when the reset comes, in place of 8 s; -1: never.
    ``loses``: what is queued when close() returns is thrown away.  ``answers_reset``: with a reset.
    ``codes``: what its close() or shutdown() breaks.
    """

    skip_wait: bool = False
    extra_ns: int = 0
    stay_ns: int | None = None
    packets: tuple[Packet, ...] | None = None
    timer_ns: int | None = None
    loses: bool = False
    answers_reset: bool = False
    codes: tuple[str, ...] = ()


@dataclass(kw_only=True)
class Thread:
    """A thread of a made host; ``cpu`` is the only one it runs on."""

    tid: int
    pid: int
    cpu: int
    comm: str
    signalled: bool = False
    exiting: bool = False
    fds: set[int] = field(default_factory=set)

    def open_fd(self) -> int:
        """The lowest descriptor that is free."""
        fd = next(n for n in range(3, 1 << 20) if n not in self.fds)
        self.fds.add(fd)
        return fd


@dataclass(kw_only=True)
class Machine:
    """One end, or both on loopback.  ``worker`` carries the packets that leave it.

    ``starved_until``: the worker gets no CPU before.
    """

    cid: int
    worker: Thread
    observed: bool = True
    queue: list[InFlight] = field(default_factory=list)
    starved_until: int = 0


@dataclass(kw_only=True, eq=False)
class Sock:
    """One socket: the model's, and what the credit of virtio's transport counts.

    ``unread`` bytes are in its receive buffer; ``read`` were taken out of it; ``taken`` is tx_cnt;
    ``peer_read`` what the peer's last packet said of its ``read``.
    """

    machine: Machine
    vsk: VsockSock
    pointer: int
    made_ns: int
    port: int
    fd: int = -1
    peer: Sock | None = None
    peer_port: int = 0xFFFFFFFF
    peer_cid: int = 0xFFFFFFFF
    backlog: list[Sock] = field(default_factory=list)
    unread: int = 0
    read: int = 0
    told_read: int = 0
    taken: int = 0
    peer_read: int = 0
    removed: bool = False
    purged: bool = False
    deviation: Deviation = field(default_factory=Deviation)

    @property
    def local(self) -> int:
        """Own address, as packets hold it."""
        return self.machine.cid << 32 | self.port

    @property
    def remote(self) -> int:
        """The peer's address, as packets hold it."""
        return self.peer_cid << 32 | self.peer_port

    @property
    def room(self) -> int:
        """Credit: bytes that the peer has room for."""
        return BUFFER - (self.taken - self.peer_read)


@dataclass(kw_only=True)
class InFlight:
    """A packet on its way.  ``source`` null: nobody's, a reset for what is not there."""

    source: Sock | None
    target: Sock | None
    local: int
    peer: int
    op: int
    size: int = 0
    flags: int = 0
    kind: int = 1
    read: int = 0
    buffer: int = BUFFER
