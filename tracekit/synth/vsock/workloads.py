"""What programs do with vsock sockets: each function one kind of day.

A workload starts threads on a :class:`Host`; parameters name their units.  What is not a parameter
is drawn from the host's seed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from replay.models.vsock_sock import SocketType, Transport
from tracekit.errors import UnknownNameError, UsageError
from tracekit.events.vsock import VsockUnsentAsked, VsockUnsentTold
from tracekit.synth.vsock.host import Host
from tracekit.synth.vsock.kernel import MS
from tracekit.synth.vsock.simulation import Activity, Until
from tracekit.synth.vsock.sock import Sock, Thread

__all__ = ("WORKLOADS", "Workload", "workload_named")

Behaviour = Callable[[Host, Thread, Sock], Activity]
"""What a thread does with a connection that it was given."""
_MOST = 10_000_000
STREAM, SEQPACKET = SocketType.STREAM, SocketType.SEQPACKET


@dataclass(frozen=True, kw_only=True)
class Workload:
    """``parameters``: by name, which ends in the unit, their defaults."""

    name: str
    summary: str
    run: Callable[..., None]
    parameters: dict[str, int]

    def values(self, given: Mapping[str, str]) -> dict[str, int]:
        """Every parameter's value: the given ones, else the defaults.

        :raises UnknownNameError: no such parameter
        :raises UsageError: a value that is no number, or too large
        """
        values = dict(self.parameters)
        for name, text in given.items():
            if name not in values:
                raise UnknownNameError(f"parameter of {self.name}", name, values)
            if not text.isascii() or not text.isdigit() or not 0 < int(text) <= _MOST:
                raise UsageError(f"{name}={text} is not a number from 1 to {_MOST}")
            values[name] = int(text)
        return values


WORKLOADS: dict[str, Workload] = {}
"""Every workload by its name."""


def workload_named(name: str) -> Workload:
    """The workload called ``name``.

    :raises UnknownNameError: there is none
    """
    if name not in WORKLOADS:
        raise UnknownNameError("vsock scenario", name, WORKLOADS)
    return WORKLOADS[name]


def workload(function: Callable[..., None]) -> Callable[..., None]:
    """Register a function as a workload; its defaults are its parameters."""
    name = function.__name__.replace("_", "-")
    summary = (function.__doc__ or "").strip().splitlines()[0]
    WORKLOADS[name] = Workload(
        name=name, summary=summary, run=function, parameters=dict(function.__kwdefaults__ or {})
    )
    return function


@workload
def request_response(host: Host, *, connections: int = 3, requests: int = 4) -> None:
    """Questions and answers; the client closes when it has its last answer."""

    def ask(thread: Thread, sock: Sock) -> Activity:
        if host.random.random() < 0.5:
            host.linger(thread, sock, 1, host.random.randrange(1, 6))
        for _ in range(requests):
            yield from host.send(thread, sock, host.random.randrange(1, 5_000))
            yield from host.receive(thread, sock, 65_536)
            yield host.random.randrange(1, 20) * MS
        yield from host.close(thread, sock)

    def answer(host: Host, thread: Thread, sock: Sock) -> Activity:
        while not (host.at_end(sock) and not sock.unread):
            yield from host.receive(thread, sock, 65_536)
            if not host.at_end(sock):
                yield from host.send(thread, sock, host.random.randrange(1, 9_000))
        yield from host.close(thread, sock)

    for _ in range(connections):
        connected(host, ask, answer)


@workload
def bulk(
    host: Host, *, connections: int = 2, total_bytes: int = 600_000, linger_s: int = 5
) -> None:
    """Much data to a quick reader; close() follows the last byte at once."""

    def push(thread: Thread, sock: Sock) -> Activity:
        host.linger(thread, sock, 1, linger_s)
        left = total_bytes
        while left:
            size = min(left, host.random.randrange(20_000, 200_000))
            yield from host.send(thread, sock, size)
            left -= size
        yield from host.close(thread, sock)

    for _ in range(connections):
        connected(host, push, reader(chunk_bytes=65_536, every_us=80))


@workload
def slow_reader(
    host: Host,
    *,
    connections: int = 2,
    total_bytes: int = 120_000,
    read_every_ms: int = 60,
    linger_s: int = 3,
) -> None:
    """The peer reads a little at a time: legacy kernels wait for it, others do not."""

    def push(thread: Thread, sock: Sock) -> Activity:
        host.linger(thread, sock, 1, linger_s)
        yield from host.send(thread, sock, total_bytes)
        yield host.random.randrange(1, 30) * MS
        yield from host.close(thread, sock)

    for _ in range(connections):
        connected(host, push, reader(chunk_bytes=8_192, every_us=read_every_ms * 1_000))


@workload
def linger_on(
    host: Host, *, connections: int = 3, linger_s: int = 2, starved_ms: int = 1_300
) -> None:
    """SO_LINGER is on, and now and then the worker gets no CPU: close() really waits."""

    def push(thread: Thread, sock: Sock) -> Activity:
        host.linger(thread, sock, 1, linger_s)
        yield from sent_in_pieces(host, thread, sock)
        if host.random.random() < 0.6:
            host.starve(sock.machine, host.random.randrange(starved_ms // 3, starved_ms * 2) * MS)
            yield from host.send(thread, sock, host.random.randrange(1, 60_000))
        yield from host.close(thread, sock)

    for _ in range(connections):
        connected(host, push, reader(chunk_bytes=65_536, every_us=200))


@workload
def linger_off(host: Host, *, connections: int = 3) -> None:
    """SO_LINGER was never on, or was turned off again."""

    def push(thread: Thread, sock: Sock) -> Activity:
        if host.random.random() < 0.5:
            host.linger(thread, sock, 1, 5)
            host.linger(thread, sock, 0, 5)
        yield from sent_in_pieces(host, thread, sock)
        yield from host.close(thread, sock)

    for _ in range(connections):
        connected(host, push, reader(chunk_bytes=65_536, every_us=500))


@workload
def linger_zero(host: Host, *, connections: int = 3) -> None:
    """SO_LINGER is on with a time of 0: close() returns at once, and sends no reset."""

    def push(thread: Thread, sock: Sock) -> Activity:
        host.linger(thread, sock, 1, 0)
        yield from sent_in_pieces(host, thread, sock)
        yield from host.close(thread, sock)

    for _ in range(connections):
        connected(host, push, reader(chunk_bytes=65_536, every_us=500))


@workload
def signals(host: Host, *, connections: int = 2, linger_s: int = 4, signal_ms: int = 400) -> None:
    """A signal ends the wait early; what was not handed over follows later."""

    def push(thread: Thread, sock: Sock) -> Activity:
        host.linger(thread, sock, 1, linger_s)
        yield from sent_in_pieces(host, thread, sock)
        host.starve(sock.machine, host.random.randrange(900, 1_800) * MS)
        yield from host.send(thread, sock, 5_000)
        host.start(shoot(thread), host.random.randrange(signal_ms // 2, signal_ms * 2) * MS)
        yield from host.close(thread, sock)

    def shoot(thread: Thread) -> Activity:
        if host.random.random() < 0.3:
            host.signal(thread, ignored=True, number=17)
            yield 20 * MS
        host.signal(thread)

    for _ in range(connections):
        connected(host, push, reader(chunk_bytes=65_536, every_us=300))


@workload
def exits(host: Host, *, connections: int = 3, linger_s: int = 5) -> None:
    """The process ends with bytes unsent: it does not linger."""

    def push(thread: Thread, sock: Sock) -> Activity:
        host.linger(thread, sock, 1, linger_s)
        yield from sent_in_pieces(host, thread, sock)
        if host.random.random() < 0.5:
            host.starve(sock.machine, host.random.randrange(200, 900) * MS)
            yield from host.send(thread, sock, 3_000)
        yield from host.exit(thread, [sock])

    for _ in range(connections):
        connected(host, push, reader(chunk_bytes=65_536, every_us=300))


@workload
def resets(host: Host, *, connections: int = 3, linger_s: int = 1) -> None:
    """Peers that close without reading or shut everything first; a guest's device is reset."""
    socks: list[Sock] = []

    def push(thread: Thread, sock: Sock) -> Activity:
        socks.append(sock)
        host.linger(thread, sock, 1, linger_s)
        yield from host.send(thread, sock, host.random.randrange(1, 60_000))
        if device_is_reset and len(socks) == 1:
            host.starve(sock.machine, 400 * MS)
            yield from host.send(thread, sock, 2_000)
            host.start(reset(), 200 * MS)
        else:
            yield host.random.randrange(1, 900) * MS
        yield from host.close(thread, sock)

    def rude(host: Host, thread: Thread, sock: Sock) -> Activity:
        if host.random.random() < 0.5:
            yield Until(lambda: bool(sock.unread) or host.at_end(sock))
            yield host.random.randrange(1, 400) * MS
        else:
            yield from host.receive(thread, sock, 100_000)
            yield from host.shutdown(thread, sock, 2)
            yield host.random.randrange(1, 30) * MS
        yield from host.close(thread, sock)

    def reset() -> Activity:
        host.reset_device(socks)
        yield 0

    device_is_reset = host.side == "guest" and host.random.random() < 0.5
    for _ in range(connections):
        connected(host, push, rude)


@workload
def seqpacket(host: Host, *, connections: int = 3, messages: int = 4, linger_s: int = 2) -> None:
    """SEQPACKET sockets linger as streams do."""

    def push(thread: Thread, sock: Sock) -> Activity:
        host.linger(thread, sock, 1, linger_s)
        for _ in range(messages):
            yield from host.send(thread, sock, host.random.randrange(1, 100_000))
        if host.random.random() < 0.5:
            host.starve(sock.machine, host.random.randrange(200, 1_500) * MS)
            yield from host.send(thread, sock, host.random.randrange(1, 9_000))
        yield from host.close(thread, sock)

    for _ in range(connections):
        connected(host, push, reader(chunk_bytes=262_144, every_us=300), kind=SEQPACKET)


@workload
def shutdowns(host: Host, *, connections: int = 4, linger_s: int = 3) -> None:
    """shutdown() of one or both directions before close(); only the v1 series waits in it."""

    def push(thread: Thread, sock: Sock) -> Activity:
        if host.random.random() < 0.7:
            host.linger(thread, sock, 1, linger_s)
        yield from sent_in_pieces(host, thread, sock)
        if host.random.random() < 0.4:
            host.starve(sock.machine, host.random.randrange(300, 1_200) * MS)
            yield from host.send(thread, sock, host.random.randrange(1, 9_000))
        how = host.random.choice((1, 1, 2))
        yield from host.shutdown(thread, sock, how)
        if how == 1:
            while not (host.at_end(sock) and not sock.unread):
                yield from host.receive(thread, sock, 65_536)
        yield host.random.randrange(1, 50) * MS
        yield from host.close(thread, sock)

    for _ in range(connections):
        connected(host, push, reader(chunk_bytes=65_536, every_us=300))


@workload
def other_sockets(host: Host, *, each_kind: int = 2, linger_s: int = 5) -> None:
    """Sockets that never linger: of Hyper-V and VMCI, datagrams, and such as never connected."""
    kinds = (
        (STREAM, Transport.HYPERV), (STREAM, Transport.VMCI),
        (SocketType.DGRAM, Transport.VIRTIO), (STREAM, Transport.VIRTIO),
    )  # fmt: skip

    def short(kind: SocketType, transport: Transport) -> Activity:
        thread = host.thread("client")
        yield host.random.randrange(1, 40) * MS
        sock = host.socket(thread, kind=kind, transport=transport)
        host.linger(thread, sock, 1, linger_s)
        yield host.random.randrange(1, 90) * MS
        yield from host.close(thread, sock)

    for _ in range(each_kind):
        for kind, transport in kinds:
            host.start(short(kind, transport))


@workload
def upstream_linger_test(host: Host, *, timeout_s: int = 10) -> None:
    """The kernel's own tests of lingering, with more sizes, times and types than it has.

    "null-ptr-deref": linger 1 s, close() at once.  "close() on unread": half the timeout, a few
    bytes that the peer leaves unread, SIOCOUTQ until it is 0, close().  "unsent bytes": SIOCOUTQ
    must reach 0 once the peer has them.
    """

    def null_deref(thread: Thread, sock: Sock) -> Activity:
        host.linger(thread, sock, 1, 1)
        yield from host.close(thread, sock)

    def unread(size: int, seconds: int) -> Callable[[Thread, Sock], Activity]:
        def push(thread: Thread, sock: Sock) -> Activity:
            host.linger(thread, sock, 1, seconds)
            yield from host.send(thread, sock, size)
            yield from unsent_is_0(thread, sock)
            yield from host.close(thread, sock)

        return push

    def unsent_is_0(thread: Thread, sock: Sock) -> Activity:
        left = 1
        while left:
            host.emit(sock.machine, thread, VsockUnsentAsked, object=sock.pointer)
            left = sock.vsk.unsent_bytes
            host.emit(sock.machine, thread, VsockUnsentTold, ret=left)
            yield 100_000

    def leaves_unread(host: Host, thread: Thread, sock: Sock) -> Activity:
        yield Until(lambda: host.at_end(sock))
        yield host.random.randrange(100, 900) * MS
        yield from host.close(thread, sock)

    half = timeout_s // 2
    connected(host, null_deref, reader(chunk_bytes=1_024, every_us=100))
    for size, seconds in ((1, half), (1_024, half), (65_536, half), (200_000, 2)):
        kind = host.random.choice((STREAM, SEQPACKET))
        connected(host, unread(size, seconds), leaves_unread, kind=kind)
    for kind in (STREAM, SEQPACKET):
        connected(host, unread(1_000, half), reader(chunk_bytes=1_000, every_us=500), kind=kind)


# -- what they have in common ----------------------------------------------------------------------


def connected(
    host: Host,
    near: Callable[[Thread, Sock], Activity],
    far: Behaviour,
    *,
    kind: SocketType = STREAM,
) -> None:
    """A client of the near end and a server of the far end, each in a process of its own."""
    client, server = host.thread("client"), host.thread("server", far=True)
    listener = host.listener(server, 5_000 + client.tid, kind)

    def client_runs() -> Activity:
        yield host.random.randrange(1, 80) * MS
        sock = host.socket(client, kind=kind)
        yield from host.connect(client, sock, listener)
        yield host.random.randrange(10_000, 900_000)
        yield from near(client, sock)

    def server_runs() -> Activity:
        yield from host.accept(server, listener)
        yield from far(host, server, listener.backlog.pop(0))

    host.start(server_runs())
    host.start(client_runs())


def reader(*, chunk_bytes: int, every_us: int) -> Behaviour:
    """Reads so much so often until the end, then closes."""

    def read(host: Host, thread: Thread, sock: Sock) -> Activity:
        while not (host.at_end(sock) and not sock.unread):
            yield every_us * 1_000
            yield from host.receive(thread, sock, chunk_bytes)
        yield from host.close(thread, sock)

    return read


def sent_in_pieces(host: Host, thread: Thread, sock: Sock) -> Activity:
    """A few sends with pauses."""
    for _ in range(host.random.randrange(1, 4)):
        yield from host.send(thread, sock, host.random.randrange(1, 90_000))
        yield host.random.randrange(1, 12) * MS
