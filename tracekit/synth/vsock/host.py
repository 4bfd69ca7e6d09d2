"""Threads of made programs and their system calls on vsock sockets.

    host = Host("merged", "loopback", seed=1)
    client = host.thread("client")
    sock = host.socket(client)
    ...
    host.run()

A call that may sleep is an activity: ``yield from host.close(client, sock)``.
"""

from __future__ import annotations

from collections.abc import Callable

from replay.models.vsock_sock import (
    Shutdown,
    SocketType,
    State,
    Transport,
    VsockSock,
)
from tracekit.events.process import ProcessExit, ProcessExitCalled, ProcessFork
from tracekit.events.signals import SignalDelivered, SignalGenerated
from tracekit.events.sockets import (
    AcceptEntered,
    AcceptReturned,
    ConnectEntered,
    ConnectReturned,
    RecvEntered,
    RecvReturned,
    SendEntered,
    SendReturned,
    SetsockoptCalled,
    SetsockoptEntered,
    SetsockoptReturned,
    ShutdownEntered,
    ShutdownReturned,
    SocketEntered,
    SocketReturned,
)
from tracekit.events.syscall import CloseEntered, CloseReturned
from tracekit.events.trace import Marker
from tracekit.events.vsock import (
    VsockCredit,
    VsockCreditTaken,
    VsockLinger,
    VsockLingered,
    VsockShutdown,
    VsockShutdownReturned,
)
from tracekit.synth.vsock.kernel import CREDIT_UPDATE, HZ, MS, REQUEST, RW, SHUTDOWN, Kernel
from tracekit.synth.vsock.simulation import Activity, Until
from tracekit.synth.vsock.sock import BUFFER, LARGEST, Deviation, Machine, Sock, Thread

__all__ = ("Host",)

_TYPES = {SocketType.STREAM: 1, SocketType.DGRAM: 2, SocketType.SEQPACKET: 5}
_FIRST_PORT = 49_152
EOM = 1


class Host(Kernel):
    """A kernel with programs on it.

    Where a fault is planted.  ``before_close``: called with each socket of the near end that is to
    be closed or shut down, and by which call; what it does comes before.  ``after_shutdown``: with
    each that was shut down.  ``credit_told``: what the probes on credit say in place of the bytes
    granted and unsent.
    """

    def __init__(self, model: str, side: str, seed: int) -> None:
        super().__init__(model, side, seed)
        self._threads = self._ports = 0
        self.before_close: Callable[[Thread, Sock, str], Activity] | None = None
        self.after_shutdown: Callable[[Thread, Sock], None] | None = None
        self.credit_told: Callable[[Sock, int, int], tuple[int, int]] | None = None
        init = Thread(tid=1, pid=1, cpu=0, comm="init")
        self.init = init
        self.emit(self.here, init, SignalGenerated, cmd=17, id=1, flags=1, ret=1)

    def finish(self) -> None:
        """Run until nothing happens any more, and a little longer."""
        self.run()
        self.now += 2_000 * MS
        self.emit(self.here, self.init, Marker, detail="end")

    def thread(self, comm: str, *, far: bool = False) -> Thread:
        """A process with one thread."""
        self._threads += 1
        tid = 500 + self._threads
        made = Thread(tid=tid, pid=tid, cpu=self._threads % 2, comm=comm)
        self.emit(self.there if far else self.here, self.init, ProcessFork, id=tid, name=comm)
        return made

    def socket(
        self,
        thread: Thread,
        *,
        kind: SocketType = SocketType.STREAM,
        transport: Transport = Transport.VIRTIO,
        far: bool = False,
    ) -> Sock:
        """socket()."""
        machine = self.there if far else self.here
        self._ports += 1
        sock = self.new_sock(
            machine,
            VsockSock(type=kind, transport=transport, state=State.CLOSE),
            _FIRST_PORT + self._ports,
        )
        sock.fd = thread.open_fd()
        self.emit(machine, thread, SocketEntered, id=40, flags=_TYPES[kind] | 0x80000)
        self.emit(machine, thread, SocketReturned, ret=sock.fd)
        return sock

    def listener(self, thread: Thread, port: int, kind: SocketType) -> Sock:
        """A socket of the far end that listens."""
        sock = self.socket(thread, kind=kind, far=True)
        sock.port, sock.vsk.state = port, State.LISTEN
        return sock

    def linger(self, thread: Thread, sock: Sock, onoff: int, seconds: int) -> None:
        """setsockopt(SO_LINGER)."""
        common = {"fd": sock.fd, "id": 1, "cmd": 13}
        machine = sock.machine
        self.emit(machine, thread, SetsockoptEntered, **common)
        value = {"flags": onoff, "count": seconds & 0xFFFFFFFF, "argsz": 8}
        self.emit(machine, thread, SetsockoptCalled, **common, **value)
        sock.vsk.setsockopt_linger(onoff, seconds)
        self.emit(machine, thread, SetsockoptReturned, ret=0)

    def connect(self, thread: Thread, sock: Sock, listener: Sock) -> Activity:
        """connect(), until the other end has answered."""
        machine = sock.machine
        self.emit(machine, thread, ConnectEntered, fd=sock.fd)
        sock.peer, sock.peer_cid, sock.peer_port = listener, listener.machine.cid, listener.port
        sock.vsk.state = State.SYN_SENT
        self.allocate(thread, sock, REQUEST)
        yield Until(lambda: sock.vsk.state is State.ESTABLISHED)
        yield self.random.randrange(5_000, 50_000)
        self.emit(machine, thread, ConnectReturned, ret=0)

    def accept(self, thread: Thread, listener: Sock) -> Activity:
        """accept(); the socket is then ``listener.backlog``'s first, for the caller to take."""
        machine = listener.machine
        self.emit(machine, thread, AcceptEntered, fd=listener.fd)
        yield Until(lambda: bool(listener.backlog))
        listener.backlog[0].fd = thread.open_fd()
        self.emit(machine, thread, AcceptReturned, ret=listener.backlog[0].fd)

    def send(self, thread: Thread, sock: Sock, size: int) -> Activity:
        """send(): packets of at most 64 KiB, for which there must be credit."""
        machine, left, vsk = sock.machine, size, sock.vsk
        self.emit(machine, thread, SendEntered, fd=sock.fd, size=size)
        while left and not self._cannot_send(sock):
            if sock.room <= 0:
                yield Until(lambda: sock.room > 0 or self._cannot_send(sock) or thread.signalled)
                if thread.signalled:
                    break
                continue
            want = min(left, LARGEST)
            got = min(want, sock.room)
            left -= got
            last = EOM if vsk.type is SocketType.SEQPACKET and not left else 0
            self.push(thread, sock, want, got, end=last)
        self.emit(machine, thread, SendReturned, ret=size - left if left < size else -32)

    def push(self, thread: Thread, sock: Sock, want: int, got: int, *, end: int = 0) -> None:
        """Credit is taken and a packet of ``got`` bytes made."""
        begun, unsent = self.now, sock.vsk.unsent_bytes
        told, lie = (got, unsent), self.credit_told
        if lie is not None and sock.machine is self.here:
            told = lie(sock, got, unsent)
        self.emit(
            sock.machine, thread, VsockCredit, object=sock.pointer + 0x500, size=want,
            offset=sock.taken & 0xFFFFFFFF, count=told[1], argsz=BUFFER,
            id=sock.peer_read & 0xFFFFFFFF,
        )  # fmt: skip
        self.emit(sock.machine, thread, VsockCreditTaken, ret=told[0])
        sock.taken += got
        sock.vsk.unsent_bytes += got
        self.allocate(thread, sock, RW, got, end=end)
        if told != (got, unsent) or sock.room < 0:
            self.plant("TK306", sock, begun)

    @staticmethod
    def _cannot_send(sock: Sock) -> bool:
        vsk = sock.vsk
        shut = bool(vsk.shutdown & Shutdown.SEND or vsk.peer_shutdown & Shutdown.RCV)
        return vsk.done or shut or vsk.state is not State.ESTABLISHED

    def receive(self, thread: Thread, sock: Sock, most: int) -> Activity:
        """recv() of at most so much; sleeps until there is something, or never will be."""
        machine, vsk = sock.machine, sock.vsk
        self.emit(machine, thread, RecvEntered, fd=sock.fd, size=most)
        yield Until(lambda: bool(sock.unread) or self.at_end(sock) or thread.signalled)
        got = min(sock.unread, most)
        sock.unread -= got
        sock.read += got
        self.emit(machine, thread, RecvReturned, ret=got)
        if BUFFER - (sock.read - sock.told_read) < LARGEST * 3 and not vsk.done:
            self.allocate(thread, sock, CREDIT_UPDATE)

    @staticmethod
    def at_end(sock: Sock) -> bool:
        """Nothing more will come."""
        vsk = sock.vsk
        return bool(vsk.peer_shutdown & Shutdown.SEND) or vsk.done or vsk.state is State.CLOSE

    def shutdown(self, thread: Thread, sock: Sock, how: int) -> Activity:
        """shutdown(): how 0 receiving, 1 sending, 2 both."""
        machine, vsk = sock.machine, sock.vsk
        if self.before_close is not None and machine is self.here:
            yield from self.before_close(thread, sock, "shutdown")
        self.emit(machine, thread, ShutdownEntered, fd=sock.fd, flags=how)
        begun = self.now
        self.emit(machine, thread, VsockShutdown, object=sock.pointer, flags=how)
        before = len(vsk.packets)
        wait = self.model.shutdown(vsk, how)
        for packet in vsk.packets[before:]:
            self.allocate(thread, sock, SHUTDOWN, flags=packet.flags)
        told = self.model.name == "v1" and vsk.linger
        if told:
            self.emit(machine, thread, VsockLinger, object=sock.pointer, count=vsk.lingertime * HZ)
        yield from self.wait(thread, sock, wait)
        if told:
            self.emit(machine, thread, VsockLingered)
        self.emit(machine, thread, VsockShutdownReturned, ret=0)
        for code in sock.deviation.codes:
            self.plant(code, sock, begun)
        sock.deviation = Deviation()
        self.emit(machine, thread, ShutdownReturned, ret=0)
        if self.after_shutdown is not None and machine is self.here:
            self.after_shutdown(thread, sock)
        yield from self.delivered(thread)

    def close(self, thread: Thread, sock: Sock) -> Activity:
        """close() of the only descriptor."""
        machine = sock.machine
        if self.before_close is not None and machine is self.here:
            yield from self.before_close(thread, sock, "close")
        self.emit(machine, thread, CloseEntered, fd=sock.fd)
        yield from self.release(thread, sock)
        self.emit(machine, thread, CloseReturned, ret=0)
        thread.fds.discard(sock.fd)
        yield from self.delivered(thread)

    def exit(self, thread: Thread, socks: list[Sock]) -> Activity:
        """The process ends, and with it its sockets."""
        machine = socks[0].machine
        self.emit(machine, thread, ProcessExitCalled, ret=0)
        thread.exiting = True
        self.emit(machine, thread, ProcessExit)
        for sock in socks:
            if self.before_close is not None and machine is self.here:
                yield from self.before_close(thread, sock, "exit")
            yield from self.release(thread, sock)

    def signal(self, target: Thread, *, ignored: bool = False, number: int = 15) -> None:
        """Somebody sends a thread a signal."""
        self.emit(
            self.here, self.init, SignalGenerated, cmd=number, id=target.tid, flags=0,
            ret=int(ignored),
        )  # fmt: skip
        target.signalled = target.signalled or not ignored

    def delivered(self, thread: Thread) -> Activity:
        """On the way back to user space a signal is taken."""
        if thread.signalled:
            yield self.random.randrange(1_000, 20_000)
            self.emit(self.here, thread, SignalDelivered, cmd=15)
            thread.signalled = False

    def starve(self, machine: Machine, ns: int) -> None:
        """The worker gets no CPU for so long."""
        machine.starved_until = max(machine.starved_until, self.now + ns)
