"""The kernel's side of made sockets: packets, credit, the worker that carries them, and closing.

Lingering is decided by the chosen model of ``replay.models``; the rest is facts C.2 to C.5 of
virtio's transport: who answers a SHUTDOWN, when the 8 s begin, what a reset says was read.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

from replay.models.vsock_linger_core import VsockLingerCore
from replay.models.vsock_linger_series import VsockLingerSeries
from replay.models.vsock_linger_virtio import VsockLingerVirtio
from replay.models.vsock_sock import (
    SHUTDOWN_MASK,
    Packet,
    Shutdown,
    SocketType,
    State,
    Transport,
    VsockSock,
    Wait,
    finish_close,
)
from tracekit.events import Event
from tracekit.events.vsock import (
    VsockDeviceReset,
    VsockDone,
    VsockHypervRelease,
    VsockHypervReleased,
    VsockLinger,
    VsockLingered,
    VsockPacketAllocated,
    VsockPacketReceived,
    VsockRelease,
    VsockReleased,
    VsockSent,
    VsockTransportRelease,
    VsockTransportReleased,
    VsockVmciRelease,
    VsockVmciReleased,
)
from tracekit.synth.vsock.simulation import Activity, Simulation, Until
from tracekit.synth.vsock.sock import InFlight, Machine, Sock, Thread
from tracekit.synth.vsock.truth import Planted

__all__ = ("HZ", "LINGER_MODELS", "MS", "Kernel")

HZ = 250
MS = 1_000_000
CLOSE_TIMEOUT = 8_000 * MS
REQUEST, RESPONSE, RST, SHUTDOWN, RW, CREDIT_UPDATE = range(1, 7)
_OP = {"RST": RST, "SHUTDOWN": SHUTDOWN}
_ENDLESS = 1 << 31
ANY = 0xFFFFFFFF
LingerModel = VsockLingerVirtio | VsockLingerSeries | VsockLingerCore
LINGER_MODELS: dict[str, LingerModel] = {
    m.name: m for m in (VsockLingerVirtio(), VsockLingerSeries(), VsockLingerCore())
}
_FIRST_SOCK = 0xFFFF_8880_0000_0000


class Kernel(Simulation):
    """One kernel (loopback) or two, of which one is observed.  ``events`` is what was recorded.

    ``side``: ``loopback``, ``guest`` (a guest's recording of its talk with the host) or ``host``
    (the vhost side's).
    """

    def __init__(self, model: str, side: str, seed: int) -> None:
        self.random = random.Random(f"{model} {side} {seed}")
        super().__init__(self.random.randrange(1_000, 9_000) * 1_000 * MS)
        self.model, self.side = LINGER_MODELS[model], side
        self.events: list[Event] = []
        self.planted: list[Planted] = []
        worker = Thread(tid=40, pid=40, cpu=1, comm="kworker/1:1-vs")
        if side == "loopback":
            self.here = self.there = Machine(cid=1, worker=worker)
        else:
            far = Thread(tid=41, pid=41, cpu=0, comm="far")
            here, there = (3, 2) if side == "guest" else (2, 3)
            self.here = Machine(cid=here, worker=worker)
            self.there = Machine(cid=there, worker=far, observed=False)
        for machine in {id(m): m for m in (self.here, self.there)}.values():
            self.start(self._carry(machine))
        self._socks = 0

    # -- what is written down ----------------------------------------------------------------------

    def emit(self, machine: Machine, thread: Thread, kind: type[Event], **columns: object) -> None:
        """An event, where somebody records; it takes a moment."""
        self.now += self.random.randrange(300, 1_500)
        if machine.observed:
            self.events.append(
                kind(
                    ts_ns=self.now,
                    cpu=thread.cpu,
                    pid=thread.pid,
                    tid=thread.tid,
                    comm=thread.comm,
                    **columns,  # type: ignore[arg-type]
                )
            )

    def plant(self, code: str, sock: Sock, from_ns: int) -> None:
        """Remember a rule that was just broken."""
        told = sock.vsk.transport is Transport.VIRTIO
        cid = ANY if sock.peer is None else sock.machine.cid
        self.planted.append(
            Planted(
                code=code,
                local=(cid, sock.port) if told else None,
                peer=(sock.peer_cid, sock.peer_port) if told else None,
                from_ns=from_ns,
                until_ns=self.now,
                known_ns=sock.made_ns,
            )
        )

    # -- packets -----------------------------------------------------------------------------------

    def new_sock(self, machine: Machine, vsk: VsockSock, port: int) -> Sock:
        """A socket that nobody has used."""
        self._socks += 1
        return Sock(
            machine=machine,
            vsk=vsk,
            pointer=_FIRST_SOCK + 0x880 * self._socks,
            made_ns=self.now,
            port=port,
        )

    def allocate(
        self, thread: Thread, sock: Sock, op: int, size: int = 0, flags: int = 0, *, end: int = 0
    ) -> None:
        """A packet of a socket's is made and queued; ``end``: flags that only the receiver sees."""
        kind = 2 if sock.vsk.type is SocketType.SEQPACKET else 1
        self.emit(
            sock.machine, thread, VsockPacketAllocated, local=sock.local, peer=sock.remote,
            size=size, id=kind, cmd=op, flags=flags,
        )  # fmt: skip
        sock.told_read = sock.read
        sock.machine.queue.append(
            InFlight(
                source=sock, target=sock.peer, local=sock.local, peer=sock.remote, op=op,
                size=size, flags=flags | end, kind=kind, read=sock.read & 0xFFFFFFFF,
            )
        )  # fmt: skip

    def _carry(self, machine: Machine) -> Activity:
        """The worker: hands over what was queued, one packet after the other."""
        while True:
            yield Until(lambda: bool(machine.queue))
            while machine.starved_until > self.now:
                yield machine.starved_until - self.now
            yield self.random.randrange(2_000, 40_000)
            packet = machine.queue.pop(0)
            source = packet.source
            if source is not None and source.purged:
                continue
            if source is not None:
                self.emit(
                    machine, machine.worker, VsockSent, object=source.pointer, size=packet.size
                )
            target = self.there if machine is self.here else self.here
            self.emit(
                target, target.worker, VsockPacketReceived, local=packet.local, peer=packet.peer,
                size=packet.size, id=packet.kind, cmd=packet.op, flags=packet.flags,
                argsz=packet.buffer, count=packet.read,
            )  # fmt: skip
            if source is not None:
                source.vsk.unsent_bytes -= packet.size
            self._received(packet, target)

    def _received(self, packet: InFlight, machine: Machine) -> None:
        sock = packet.target
        if packet.op == REQUEST and sock is not None:
            self._requested(packet, sock)
            return
        if sock is None or sock.removed or sock.vsk.done:
            if packet.op != RST:
                self._answer_nobody(packet, machine)
            return
        sock.peer_read = packet.read if packet.buffer else sock.peer_read
        vsk = sock.vsk
        if packet.op == RESPONSE:
            vsk.state = State.ESTABLISHED
        elif packet.op == RW:
            sock.unread += packet.size
        elif packet.op == SHUTDOWN:
            vsk.peer_shutdown |= Shutdown(packet.flags & 3)
            if vsk.peer_shutdown & SHUTDOWN_MASK == SHUTDOWN_MASK:
                if not sock.unread:
                    self.allocate(machine.worker, sock, RST)
                    self._do_close(sock, machine.worker)
                if vsk.closed:
                    sock.removed = True
        elif packet.op == RST:
            if sock.deviation.answers_reset:
                begun = self.now
                self.allocate(machine.worker, sock, RST)
                self.plant("TK305", sock, begun)
            self._do_close(sock, machine.worker)

    def _requested(self, packet: InFlight, listener: Sock) -> None:
        client = packet.source
        assert client is not None
        vsk = VsockSock(type=listener.vsk.type)
        child = self.new_sock(listener.machine, vsk, listener.port)
        child.peer, child.peer_cid, child.peer_port = client, client.machine.cid, client.port
        client.peer = child
        self.allocate(listener.machine.worker, child, RESPONSE)
        listener.backlog.append(child)

    def _answer_nobody(self, packet: InFlight, machine: Machine) -> None:
        """A reset in the name of a socket that is not there."""
        self.emit(
            machine, machine.worker, VsockPacketAllocated, local=packet.peer, peer=packet.local,
            size=0, id=packet.kind, cmd=RST, flags=0,
        )  # fmt: skip
        machine.queue.append(
            InFlight(
                source=None, target=packet.source, local=packet.peer, peer=packet.local, op=RST,
                kind=packet.kind, buffer=0,
            )
        )  # fmt: skip

    def _do_close(self, sock: Sock, thread: Thread) -> None:
        """C: ``virtio_transport_do_close()``."""
        vsk = sock.vsk
        if vsk.done:
            return
        vsk.done, vsk.peer_shutdown = True, SHUTDOWN_MASK
        if not sock.unread:
            vsk.state = State.CLOSING
        self.emit(sock.machine, thread, VsockDone, object=sock.pointer)
        sock.removed = vsk.closed

    def reset_device(self, socks: Sequence[Sock]) -> None:
        """The guest's device is reset: what is queued is freed, and nobody counts it."""
        for sock in socks:
            if sock.vsk.state in (State.ESTABLISHED, State.CLOSING):
                self.emit(sock.machine, sock.machine.worker, VsockDeviceReset, object=sock.pointer)
                sock.vsk.state, sock.purged = State.CLOSE, True

    # -- closing -----------------------------------------------------------------------------------

    def release(self, thread: Thread, sock: Sock) -> Activity:
        """The last descriptor of a socket is gone.  C: ``vsock_release()``."""
        machine, begun = sock.machine, self.now
        self.emit(machine, thread, VsockRelease, object=sock.pointer)
        other = _OTHERS.get(sock.vsk.transport)
        if other is not None:
            self.emit(machine, thread, other[0], object=sock.pointer)
            yield from self._stay(sock)
            self.emit(machine, thread, other[1])
            sock.vsk.closed = True
        else:
            yield from self._transport_release(thread, sock)
        for code in sock.deviation.codes:
            self.plant(code, sock, begun)
        self.emit(machine, thread, VsockReleased, ret=0)

    def _transport_release(self, thread: Thread, sock: Sock) -> Activity:
        vsk, machine, planned = sock.vsk, sock.machine, sock.deviation
        self.emit(
            machine, thread, VsockTransportRelease, object=sock.pointer,
            local=ANY << 32 | sock.port, peer=sock.remote, flags=int(vsk.peer_shutdown),
            id=int(vsk.shutdown), cmd=vsk.state.value,
            count=min(vsk.lingertime * HZ, (1 << 62)),
            attributes=1 | int(vsk.done) << 1 | int(vsk.linger) << 4,
        )  # fmt: skip
        vsk.exiting = thread.exiting
        connected = vsk.state in (State.ESTABLISHED, State.CLOSING)
        ends = connected and vsk.peer_shutdown & SHUTDOWN_MASK != SHUTDOWN_MASK
        before = len(vsk.packets)
        wait = self.model.release(vsk)
        packets: Sequence[Packet] = vsk.packets[before:]
        for packet in packets if planned.packets is None else planned.packets:
            self.allocate(thread, sock, _OP[packet.op], flags=packet.flags)
        told = ends and not thread.exiting and vsk.type is not SocketType.DGRAM
        told = told and (vsk.linger or self.model.name == "merged") and self.model.name != "legacy"
        if told:
            self.emit(machine, thread, VsockLinger, object=sock.pointer, count=vsk.lingertime * HZ)
        yield from self.wait(thread, sock, wait)
        if told:
            self.emit(machine, thread, VsockLingered)
        if planned.loses:
            machine.queue[:] = [p for p in machine.queue if p.source is not sock]
        if wait is not None:
            finish_close(vsk)
        if vsk.close_work:
            self.start(self._close_timeout(sock))
        else:
            sock.removed = True
        self.emit(machine, thread, VsockTransportReleased)

    def wait(self, thread: Thread, sock: Sock, wait: Wait | None) -> Activity:
        """Sleep as the model says, or as the fault does."""
        planned, begun = sock.deviation, self.now
        if planned.stay_ns is None and wait is not None and not planned.skip_wait:
            endless = wait.timeout_s >= _ENDLESS
            late = self.random.randrange(0, 4 * MS)
            until = None if endless else begun + wait.timeout_s * 1_000 * MS + late
            yield Until(lambda: self.model.woken(sock.vsk) or thread.signalled, until)
            yield self.random.randrange(20_000, 400_000)
        yield from self._stay(sock)

    def _stay(self, sock: Sock) -> Activity:
        planned = sock.deviation
        if planned.stay_ns is not None:
            yield planned.stay_ns
        if planned.extra_ns:
            yield planned.extra_ns

    def _close_timeout(self, sock: Sock) -> Activity:
        """C: ``virtio_transport_close_timeout()``."""
        planned = sock.deviation.timer_ns
        if planned == -1:
            return
        asked = CLOSE_TIMEOUT if planned is None else planned
        until = self.now + asked + self.random.randrange(0, 20 * MS)
        yield Until(lambda: sock.vsk.done, until)
        if not sock.vsk.done:
            timer = Thread(tid=42, pid=42, cpu=0, comm="kworker/0:2-ev")
            if sock.machine.starved_until <= self.now and self.random.random() < 0.5:
                timer = sock.machine.worker
            self.allocate(timer, sock, RST)
            self._do_close(sock, timer)


_OTHERS: dict[Transport, tuple[type[Event], type[Event]]] = {
    Transport.HYPERV: (VsockHypervRelease, VsockHypervReleased),
    Transport.VMCI: (VsockVmciRelease, VsockVmciReleased),
}
