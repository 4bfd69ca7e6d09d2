"""Named ways in which one socket's kernel breaks its promise, and the code that each must raise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from replay.models.vsock_sock import (
    SHUTDOWN_MASK,
    Packet,
    Shutdown,
    SocketType,
    State,
    Transport,
)
from tracekit.synth.vsock.host import Host
from tracekit.synth.vsock.kernel import MS
from tracekit.synth.vsock.simulation import Activity, Until
from tracekit.synth.vsock.sock import BUFFER, LARGEST, Deviation, Sock, Thread

__all__ = ("FAULTS", "Fault", "plant")

SECOND = 1_000 * MS
ALL_MODELS = ("legacy", "v1", "merged")
ALL_SIDES = ("loopback", "guest", "host")
Prepare = Callable[[Host, Thread, Sock], Activity]
"""Makes the situation, and says how the socket's kernel deviates."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """``call``: in which call of which sockets (``of``) it is planted, the first of a trace.

    ``codes``: all that it must raise; ``rule`` is one of L1 to L15.  ``not_in``: workloads where
    the peer may end the connection meanwhile, which would make it right.
    """

    name: str
    summary: str
    codes: tuple[str, ...]
    rule: str
    call: str
    of: Callable[[Sock], bool]
    prepare: Prepare
    models: tuple[str, ...] = ALL_MODELS
    sides: tuple[str, ...] = ALL_SIDES
    not_in: tuple[str, ...] = ()


FAULTS: dict[str, Fault] = {}
"""Every fault by its name."""


def plant(host: Host, fault: Fault) -> None:
    """Let the first socket that it suits have the fault; ``host.planted`` tells which it was."""
    planted = False

    def before(thread: Thread, sock: Sock, call: str) -> Activity:
        nonlocal planted
        if not planted and call == fault.call and fault.of(sock):
            planted = True
            yield from fault.prepare(host, thread, sock)

    host.before_close = before


def fault(
    *codes: str,
    rule: str,
    of: Callable[[Sock], bool],
    call: str = "close",
    models: tuple[str, ...] = ALL_MODELS,
    sides: tuple[str, ...] = ALL_SIDES,
    not_in: tuple[str, ...] = (),
) -> Callable[[Prepare], Prepare]:
    """Register what a function prepares; its first line is the summary."""

    def register(function: Prepare) -> Prepare:
        name = function.__name__.replace("_", "-")
        FAULTS[name] = Fault(
            name=name, summary=(function.__doc__ or "").strip().splitlines()[0], codes=codes,
            rule=rule, call=call, of=of, prepare=function, models=models, sides=sides,
            not_in=not_in,
        )  # fmt: skip
        return function

    return register


# -- which sockets ---------------------------------------------------------------------------------


def live(sock: Sock) -> bool:
    """Connected, and the peer has not begun to end it."""
    vsk = sock.vsk
    return (
        vsk.transport is Transport.VIRTIO
        and vsk.state is State.ESTABLISHED
        and not vsk.done
        and not vsk.peer_shutdown
        and not sock.purged
    )


def whole(sock: Sock) -> bool:
    """Live, and nothing of it is shut; there is room for a little more data."""
    return live(sock) and not sock.vsk.shutdown and sock.room > LARGEST


def all_read(sock: Sock) -> bool:
    """Whole, and nothing waits to be read."""
    return whole(sock) and not sock.unread


def lingering(sock: Sock) -> bool:
    """Live, with SO_LINGER and a time."""
    return live(sock) and sock.vsk.linger and sock.vsk.lingertime > 0


def lingering_whole(sock: Sock) -> bool:
    """Lingering, and more can be sent."""
    return lingering(sock) and whole(sock)


def linger_is_off(sock: Sock) -> bool:
    """Live, without SO_LINGER."""
    return live(sock) and not sock.vsk.linger


def linger_is_0(sock: Sock) -> bool:
    """Live, with SO_LINGER of no time."""
    return live(sock) and sock.vsk.linger and not sock.vsk.lingertime


def peer_is_done(sock: Sock) -> bool:
    """The peer has shut both directions."""
    vsk = sock.vsk
    known = vsk.transport is Transport.VIRTIO and vsk.state in (State.ESTABLISHED, State.CLOSING)
    return known and vsk.peer_shutdown & SHUTDOWN_MASK == SHUTDOWN_MASK


def of_transport(transport: Transport) -> Callable[[Sock], bool]:
    """Of this transport."""
    return lambda sock: sock.vsk.transport is transport


def is_datagram(sock: Sock) -> bool:
    """A datagram socket."""
    return sock.vsk.type is SocketType.DGRAM


def never_connected(sock: Sock) -> bool:
    """A stream that nobody connected."""
    vsk = sock.vsk
    virtio = vsk.transport is Transport.VIRTIO and vsk.type is not SocketType.DGRAM
    return virtio and vsk.state is State.CLOSE and not sock.purged


# -- TK301 -----------------------------------------------------------------------------------------


def unsent(host: Host, thread: Thread, sock: Sock, ns: int) -> Activity:
    """The worker is starved, and bytes wait for it."""
    host.starve(sock.machine, ns)
    yield from host.send(thread, sock, 4_096)


@fault("TK301", rule="L1", of=lingering_whole, not_in=("resets",))
def early_return(host: Host, thread: Thread, sock: Sock) -> Activity:
    """A lingering close() does not wait at all."""
    yield from unsent(host, thread, sock, 3 * SECOND)
    sock.deviation = Deviation(skip_wait=True, codes=("TK301",))


@fault("TK301", rule="L1", of=lingering_whole, not_in=("resets",))
def ended_by_an_ignored_signal(host: Host, thread: Thread, sock: Sock) -> Activity:
    """A signal that is ignored, and so is not pending, ends the wait."""
    yield from unsent(host, thread, sock, 3 * SECOND)
    host.start(_ignored(host, thread), 150 * MS)
    sock.deviation = Deviation(stay_ns=200 * MS, codes=("TK301",))


def _ignored(host: Host, thread: Thread) -> Activity:
    host.signal(thread, ignored=True, number=17)
    yield 0


@fault("TK301", rule="L7", of=lingering_whole, call="shutdown", models=("v1",))
def early_shutdown(host: Host, thread: Thread, sock: Sock) -> Activity:
    """A lingering shutdown() of the v1 series does not wait."""
    yield from unsent(host, thread, sock, 3 * SECOND)
    sock.deviation = Deviation(skip_wait=True, codes=("TK301",))


# -- TK302 -----------------------------------------------------------------------------------------


@fault("TK302", rule="L2", of=lingering_whole)
def stays_on(host: Host, thread: Thread, sock: Sock) -> Activity:
    """close() stays although what it waited for has come."""
    yield from unsent(host, thread, sock, 400 * MS)
    limit = sock.vsk.lingertime * SECOND  # the warning of a late timer is not what is wanted
    extra = limit * 3 // 2 if limit < 3 * SECOND else limit * 3 // 5
    sock.deviation = Deviation(extra_ns=extra, codes=("TK302",))


@fault("TK302", rule="L3", of=lingering, models=("v1", "merged"))
def waits_for_the_reader(host: Host, thread: Thread, sock: Sock) -> Activity:
    """Everything was handed over, and close() waits for the peer to read it."""
    yield Until(lambda: sock.vsk.unsent_bytes <= 0)
    sock.deviation = Deviation(stay_ns=900 * MS, codes=("TK302",))


@fault("TK302", rule="L4", of=lingering_whole)
def outlives_its_timeout(host: Host, thread: Thread, sock: Sock) -> Activity:
    """close() waits on after its time is over."""
    limit = sock.vsk.lingertime * SECOND
    yield from unsent(host, thread, sock, limit * 5 // 4 + 3 * SECOND)
    sock.deviation = Deviation(stay_ns=limit * 5 // 4 + 1_200 * MS, codes=("TK302",))


# -- TK303 -----------------------------------------------------------------------------------------


def _lingers_wrongly(sock: Sock) -> None:
    sock.deviation = Deviation(extra_ns=900 * MS, codes=("TK303",))


@fault("TK303", rule="L5", of=linger_is_off)
def waits_although_off(host: Host, thread: Thread, sock: Sock) -> Activity:
    """SO_LINGER is off, and close() waits."""
    _lingers_wrongly(sock)
    yield 0


@fault("TK303", rule="L5", of=linger_is_0)
def waits_although_0(host: Host, thread: Thread, sock: Sock) -> Activity:
    """The linger time is 0, and close() waits."""
    _lingers_wrongly(sock)
    yield 0


@fault("TK303", rule="L5", of=live, call="exit")
def waits_while_exiting(host: Host, thread: Thread, sock: Sock) -> Activity:
    """The process exits, and its socket lingers."""
    _lingers_wrongly(sock)
    yield 0


@fault("TK303", rule="L5", of=peer_is_done)
def waits_although_the_peer_is_done(host: Host, thread: Thread, sock: Sock) -> Activity:
    """The peer has shut both directions, and close() waits."""
    _lingers_wrongly(sock)
    yield 0


@fault("TK303", rule="L5", of=of_transport(Transport.HYPERV))
def waits_on_hyperv(host: Host, thread: Thread, sock: Sock) -> Activity:
    """Hyper-V's transport lingers."""
    _lingers_wrongly(sock)
    yield 0


@fault("TK303", rule="L5", of=of_transport(Transport.VMCI))
def waits_on_vmci(host: Host, thread: Thread, sock: Sock) -> Activity:
    """VMCI's transport lingers."""
    _lingers_wrongly(sock)
    yield 0


@fault("TK303", rule="L5", of=is_datagram)
def waits_of_a_datagram_socket(host: Host, thread: Thread, sock: Sock) -> Activity:
    """A datagram socket lingers."""
    _lingers_wrongly(sock)
    yield 0


@fault("TK303", rule="L5", of=never_connected)
def waits_unconnected(host: Host, thread: Thread, sock: Sock) -> Activity:
    """A socket without a connection lingers."""
    _lingers_wrongly(sock)
    yield 0


@fault("TK303", rule="L6", of=live, call="shutdown", models=("legacy", "merged"))
def waits_in_shutdown(host: Host, thread: Thread, sock: Sock) -> Activity:
    """shutdown() waits."""
    _lingers_wrongly(sock)
    yield 0


# -- TK304 -----------------------------------------------------------------------------------------


@fault(
    "TK301", "TK304", rule="L11", of=lingering_whole, models=("v1", "merged"), not_in=("resets",)
)
def throws_bytes_away(host: Host, thread: Thread, sock: Sock) -> Activity:
    """What is queued is freed, and close() returns as if it had been handed over."""
    yield from unsent(host, thread, sock, 3 * SECOND)
    sock.deviation = Deviation(skip_wait=True, loses=True, codes=("TK301", "TK304"))


# -- TK305 -----------------------------------------------------------------------------------------

BOTH = Packet("SHUTDOWN", 3)


def _sends(sock: Sock, *packets: Packet) -> None:
    sock.deviation = Deviation(packets=packets, codes=("TK305",))


@fault("TK305", rule="L9", of=whole, not_in=("resets",))
def no_shutdown(host: Host, thread: Thread, sock: Sock) -> Activity:
    """close() sends nothing."""
    _sends(sock)
    yield 0


@fault("TK305", rule="L8", of=whole, not_in=("resets",))
def two_shutdowns(host: Host, thread: Thread, sock: Sock) -> Activity:
    """close() sends SHUTDOWN twice."""
    _sends(sock, BOTH, BOTH)
    yield 0


@fault("TK305", rule="L8", of=whole, not_in=("resets",))
def reset_in_place_of_shutdown(host: Host, thread: Thread, sock: Sock) -> Activity:
    """close() resets the connection."""
    _sends(sock, Packet("RST"))
    yield 0


@fault("TK305", rule="L8", of=whole)
def half_a_shutdown(host: Host, thread: Thread, sock: Sock) -> Activity:
    """close() shuts one direction only."""
    _sends(sock, Packet("SHUTDOWN", 2))
    yield 0


def _unanswered(host: Host, sock: Sock, ns: int) -> None:
    """Nothing reaches the peer while close() waits, and ``ns`` more."""
    host.starve(sock.machine, (sock.vsk.lingertime if sock.vsk.linger else 0) * SECOND + ns)


@fault("TK305", rule="L10", of=whole, not_in=("resets",))
def early_timer(host: Host, thread: Thread, sock: Sock) -> Activity:
    """Nobody answers, and the reset is sent after 4 s."""
    _unanswered(host, sock, 9 * SECOND)
    sock.deviation = Deviation(timer_ns=4 * SECOND, codes=("TK305",))
    yield 0


@fault("TK305", rule="L10", of=whole, not_in=("resets",))
def late_timer(host: Host, thread: Thread, sock: Sock) -> Activity:
    """Nobody answers, and the reset is sent after 11 s."""
    _unanswered(host, sock, 13 * SECOND)
    sock.deviation = Deviation(timer_ns=11 * SECOND, codes=("TK305",))
    yield 0


@fault("TK305", rule="L10", of=all_read, not_in=("resets",))
def no_timer(host: Host, thread: Thread, sock: Sock) -> Activity:
    """The closing packet is lost, and no reset follows."""
    yield Until(lambda: sock.vsk.unsent_bytes <= 0)
    _unanswered(host, sock, SECOND)
    sock.deviation = Deviation(timer_ns=-1, loses=True, codes=("TK305",))
    host.start(_nothing(), 25 * SECOND)


def _nothing() -> Activity:
    yield 0


@fault("TK305", rule="L14", of=live, call="shutdown")
def data_after_shutdown(host: Host, thread: Thread, sock: Sock) -> Activity:
    """Data follows the end of sending."""

    def more(thread: Thread, shut: Sock) -> None:
        if shut is sock and sock.vsk.shutdown & Shutdown.SEND and not sock.vsk.done:
            begun = host.now
            host.push(thread, sock, 100, 100)
            host.plant("TK305", sock, begun)
        host.after_shutdown = None

    host.after_shutdown = more
    yield 0


@fault("TK305", rule="L15", of=whole)
def reset_for_a_reset(host: Host, thread: Thread, sock: Sock) -> Activity:
    """The peer's reset is answered with one."""
    sock.deviation = Deviation(answers_reset=True)
    yield 0


# -- TK306 -----------------------------------------------------------------------------------------


def _told(host: Host, sock: Sock, got: int, unsent_bytes: int) -> None:
    """The next credit of this socket is told wrongly, by so much."""

    def lie(asking: Sock, true_got: int, true_unsent: int) -> tuple[int, int]:
        if asking is not sock:
            return true_got, true_unsent
        host.credit_told = None
        return true_got + got, true_unsent + unsent_bytes

    host.credit_told = lie


@fault("TK306", rule="L13", of=whole)
def more_credit_than_there_is(host: Host, thread: Thread, sock: Sock) -> Activity:
    """More credit is granted than the peer has room for."""
    _told(host, sock, sock.room, 0)
    yield from host.send(thread, sock, 2_000)


@fault("TK306", rule="L12", of=whole)
def more_data_than_credit(host: Host, thread: Thread, sock: Sock) -> Activity:
    """More bytes are sent than credit was taken for."""
    _told(host, sock, -500, 0)
    yield from host.send(thread, sock, 2_000)


@fault("TK306", rule="L12", of=whole, sides=("loopback",))
def wrong_unsent_bytes(host: Host, thread: Thread, sock: Sock) -> Activity:
    """The kernel's count of unsent bytes is not what was sent less what was handed over."""
    yield Until(lambda: sock.vsk.unsent_bytes <= 0)
    yield 80 * MS
    _told(host, sock, 0, 4_096)
    yield from host.send(thread, sock, 2_000)


@fault("TK306", rule="L13", of=whole)
def more_than_the_peer_has_room_for(host: Host, thread: Thread, sock: Sock) -> Activity:
    """Data is sent beyond the credit."""
    for _ in range(BUFFER // LARGEST + 1):
        host.push(thread, sock, LARGEST, LARGEST)
    yield 0
