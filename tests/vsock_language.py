"""The verbs of the test language that are about vsock sockets.

::

    0s    sock  socket              # AF_VSOCK, stream; type=5 seqpacket, type=2 datagrams
    2us   sock  connect        # to port 5001 of this host; the worker carries all packets
    1ms   sock  linger 1 5          # setsockopt(SO_LINGER)
    2ms   sock  send 4096
    3ms   sock  sent 4096           # the worker hands it over
    4ms   sock  shutdown 1
    5ms   sock  vclose for=2s
    2s    sock  peer-reset read=4096
    3s    sock  signal              # for this thread; ``group`` for a process, ``ignored``
    4s    sock  forks 2             # the process of ``sock2`` begins, as a copy of this one

Options of ``vclose``: ``legacy`` no vsock_linger(), ``silent`` no packet, ``reset`` a reset in
place of SHUTDOWN, ``twice`` two, ``flags=N``, ``peer-shut``, ``all-shut`` (nothing is sent),
``hyperv``, ``vmci``, ``bare`` not connected, ``no-probes`` the system call alone, ``no-exit``,
``flagged=N ticks=N`` the kernel's own SO_LINGER.  ``sk=N`` is the kernel's socket, ``from=PORT``
its own port, ``fd=N`` its descriptor, ``guest`` a peer on another machine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol

__all__ = ("VSOCK_VERBS", "WORKER")

WORKER = 40
Events = Iterator[tuple[str, dict[str, Any]]]


class Words(Protocol):
    """A line of the test language."""

    options: dict[str, str]
    number: int | None
    ret: int
    words: list[str]

    def __contains__(self, option: str) -> bool: ...
    def fd(self, default: int) -> int: ...


Verb = Callable[[Any], Events]


def _fd(call: Words) -> int:
    return call.fd(3)


def _sk(call: Words) -> int:
    return 0xFFFF_8000_0000_0000 + 64 * int(call.options.get("sk", "1"))


def _ends(call: Words) -> dict[str, int]:
    """Own and the peer's address, as packets hold them."""
    cids = (3, 2) if "guest" in call else (1, 1)
    own, other = int(call.options.get("from", "1001")), int(call.options.get("to", "5001"))
    return {"local": cids[0] << 32 | own, "peer": cids[1] << 32 | other}


def _packet(call: Words, op: int, size: int = 0, flags: int = 0) -> dict[str, int]:
    return {**_ends(call), "size": size, "id": 1, "cmd": op, "flags": flags}


def _back(call: Words, op: int, read: int = 0, size: int = 0, flags: int = 0) -> dict[str, int]:
    """A packet of the peer's."""
    ends = _ends(call)
    return {
        **_packet(call, op, size, flags), "local": ends["peer"], "peer": ends["local"],
        "argsz": 262144, "count": read, "thread": WORKER,
    }  # fmt: skip


def _carried(call: Words, op: int, size: int = 0, flags: int = 0) -> Events:
    """The worker hands a packet over, and the other side of loopback has it."""
    yield "vsock.sent", {"object": _sk(call), "size": size, "thread": WORKER}
    if "guest" not in call:
        yield "vsock.packet_received", {
            **_packet(call, op, size, flags), "argsz": 262144, "count": 0, "thread": WORKER,
        }  # fmt: skip


def _socket(call: Words) -> Events:
    if "no-signals" not in call:
        yield "signal.generated", {"cmd": 17, "id": 1, "flags": 1, "ret": 1}
    yield "socket.entered", {"id": 40, "flags": int(call.options.get("type", "1")) | 0x80000}
    yield "socket.returned", {"ret": _fd(call)}


def _accepted(call: Words) -> Events:
    """accept() of a connection that a peer began."""
    yield "vsock.packet_received", _back(call, 1)
    yield "vsock.packet_allocated", {**_packet(call, 2), "thread": WORKER}
    yield from _carried(call, 2)
    yield "accept.entered", {"fd": 9}
    yield "accept.returned", {"ret": _fd(call)}


def _connect(call: Words) -> Events:
    yield "connect.entered", {"fd": _fd(call)}
    yield "vsock.packet_allocated", _packet(call, 1)
    yield from _carried(call, 1)
    yield "vsock.packet_received", _back(call, 2)
    yield "connect.returned", {"ret": 0}


def _linger(call: Words) -> Events:
    onoff, seconds = (int(w) for w in call.words[:2])
    common = {"fd": _fd(call), "id": 1, "cmd": 13}
    yield "setsockopt.entered", common
    if "eprobe" in call:
        yield "setsockopt.arguments", {**common, "flags": 0, "count": 0}
    else:
        value = {"flags": onoff, "count": seconds & 0xFFFFFFFF}
        yield "setsockopt.called", {**common, **value, "argsz": 8}
    yield "setsockopt.returned", {"ret": call.ret}


def _send(call: Words) -> Events:
    size = int(call.words[0])
    yield "send.entered", {"fd": _fd(call), "size": size}
    yield "vsock.packet_allocated", _packet(call, 5, size)
    yield "send.returned", {"ret": size}


def _sent(call: Words) -> Events:
    yield from _carried(call, 5, int(call.words[0]))


def _shutdown(call: Words) -> Events:
    how = int(call.words[0])
    yield "shutdown.entered", {"fd": _fd(call), "flags": how, "at_begin": True}
    yield "vsock.shutdown", {"object": _sk(call), "flags": how, "at_begin": True}
    yield "vsock.packet_allocated", {**_packet(call, 4, flags=how + 1), "at_begin": True}
    if "linger" in call:
        yield "vsock.linger", {"object": _sk(call), "at_begin": True}
        yield "vsock.lingered", {"at_end": True}
    yield "shutdown.returned", {"ret": 0, "at_end": True}


def _close(call: Words) -> Events:
    for event, columns in _entered(call):
        yield event, {**columns, "at_begin": True}
    if "no-exit" in call:
        return
    for event, columns in _left(call):
        yield event, {**columns, "at_end": True}


def _entered(call: Words) -> Events:
    if "no-call" not in call:
        yield "close.entered", {"fd": _fd(call)}
    other = next((n for n in ("hyperv", "vmci") if n in call), None)
    if "no-probes" not in call:
        yield "vsock.release", {"object": _sk(call)}
        if other:
            yield f"vsock.{other}_release", {"object": _sk(call)}
        elif "bare" not in call:
            ends = _ends(call)
            told: dict[str, int] = {}
            if "flagged" in call:
                told = {
                    "attributes": int(call.options["flagged"]) << 4,
                    "count": int(call.options["ticks"]),
                }
            yield "vsock.transport_release", {
                "object": _sk(call), "peer": ends["peer"],
                "local": 0xFFFFFFFF << 32 | ends["local"] & 0xFFFFFFFF,
                "flags": 3 if "peer-shut" in call else 0, **told,
            }  # fmt: skip
    if other or "bare" in call:
        return
    if "peer-shut" in call or "reset" in call:
        yield "vsock.packet_allocated", _packet(call, 3)
    elif "silent" not in call and "all-shut" not in call:
        for _ in range(2 if "twice" in call else 1):
            flags = int(call.options.get("flags", "3"))
            yield "vsock.packet_allocated", _packet(call, 4, flags=flags)
    if "legacy" not in call and "no-probes" not in call:
        yield "vsock.linger", {"object": _sk(call)}


def _left(call: Words) -> Events:
    other = next((n for n in ("hyperv", "vmci") if n in call), None)
    if "no-probes" not in call:
        if other:
            yield f"vsock.{other}_released", {}
        elif "bare" not in call:
            if "legacy" not in call:
                yield "vsock.lingered", {}
            yield "vsock.transport_released", {}
        yield "vsock.released", {"ret": 0}
    if "no-call" not in call:
        yield "close.returned", {"ret": 0}


def _peer_reset(call: Words) -> Events:
    yield "vsock.packet_received", _back(call, 3, int(call.options.get("read", "0")))
    if "no-done" not in call:
        yield "vsock.done", {"object": _sk(call), "thread": WORKER}


def _peer_shutdown(call: Words) -> Events:
    yield "vsock.packet_received", _back(call, 4, flags=int(call.words[0]))


def _peer_data(call: Words) -> Events:
    yield "vsock.packet_received", _back(call, 5, size=int(call.words[0]))


def _timer(call: Words) -> Events:
    """The close timer: our own reset."""
    yield "vsock.packet_allocated", {**_packet(call, 3), "thread": WORKER}
    yield "vsock.done", {"object": _sk(call), "thread": WORKER}


def _answer(call: Words) -> Events:
    """The worker answers a reset with a reset."""
    yield "vsock.packet_received", _back(call, 3)
    yield "vsock.packet_allocated", {**_packet(call, 3), "thread": WORKER}


def _signal(call: Words) -> Events:
    ret = 1 if "ignored" in call else 0
    target = int(call.options.get("tid", "501"))
    yield "signal.generated", {
        "cmd": 15, "id": target, "flags": int("group" in call), "ret": ret, "thread": 7,
    }  # fmt: skip


def _credit(call: Words) -> Events:
    get = {k: int(v) for k, v in call.options.items() if v.isdigit()}
    yield "vsock.credit", {
        "object": 7, "size": get["want"], "offset": get.get("tx", 0), "count": get.get("unsent"),
        "argsz": get.get("buf"), "id": get.get("read", 0),
    }  # fmt: skip
    yield "vsock.credit_taken", {"ret": get["got"]}
    if "put" in get:
        yield "vsock.credit_returned", {"object": 7, "size": get["put"]}


def _dup(call: Words) -> Events:
    yield "dup.entered", {"fd": _fd(call)}
    yield "dup.returned", {"ret": int(call.words[0])}


def _forks(call: Words) -> Events:
    yield "process.fork", {"id": 500 + int(call.words[0])}


def _delivered(call: Words) -> Events:
    yield "signal.delivered", {"cmd": 15}


def _reset_device(call: Words) -> Events:
    yield "vsock.device_reset", {"object": _sk(call), "thread": WORKER}


VSOCK_VERBS: dict[str, Verb] = {
    "socket": _socket,
    "accepted": _accepted,
    "connect": _connect,
    "linger": _linger,
    "send": _send,
    "sent": _sent,
    "shutdown": _shutdown,
    "vclose": _close,
    "peer-reset": _peer_reset,
    "peer-shutdown": _peer_shutdown,
    "peer-data": _peer_data,
    "timer": _timer,
    "reset-for-reset": _answer,
    "signal": _signal,
    "delivered": _delivered,
    "credit": _credit,
    "dup": _dup,
    "forks": _forks,
    "reset-device": _reset_device,
}
