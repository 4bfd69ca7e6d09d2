"""Record batches of a trace -> the rows that the socket kernel takes.

Only events of sockets are looked at; the rest of a batch costs one look at its dictionary.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from replay.engine.kept import Kept, State
from replay.linger.kernel import layout as L
from replay.linger.numbers import Numbers, distinct
from tracekit.compiled.kernels import kernel_module
from tracekit.events import event_columns

__all__ = ("COLUMNS", "LingerStream", "columns_of", "concerns", "load_kernel")

_CODES: dict[str, int] = {
    "socket.entered": L.EV_SOCKET,
    "socket.returned": L.EV_SOCKET_RET,
    "accept.entered": L.EV_ACCEPT,
    "accept.returned": L.EV_ACCEPT_RET,
    "connect.entered": L.EV_CONNECT,
    "connect.returned": L.EV_CONNECT_RET,
    "send.entered": L.EV_SEND,
    "send.returned": L.EV_SEND_RET,
    "dup.entered": L.EV_DUP,
    "dup.returned": L.EV_DUP_RET,
    "setsockopt.entered": L.EV_SETSOCKOPT,
    "setsockopt.returned": L.EV_SETSOCKOPT_RET,
    "setsockopt.called": L.EV_OPTION,
    "setsockopt.arguments": L.EV_ARGUMENTS,
    "shutdown.entered": L.EV_SHUTDOWN,
    "shutdown.returned": L.EV_SHUTDOWN_RET,
    "close.entered": L.EV_CLOSE,
    "close.returned": L.EV_CLOSE_RET,
    "process.fork": L.EV_FORK,
    "process.exit": L.EV_EXIT,
    "process.exit_called": L.EV_EXIT,
    "signal.generated": L.EV_SIGNAL,
    "signal.delivered": L.EV_DELIVERED,
    "trace.lost": L.EV_LOST,
    "vsock.packet_allocated": L.EV_ALLOC,
    "vsock.packet_received": L.EV_RECV,
    "vsock.release": L.EV_RELEASE,
    "vsock.released": L.EV_RELEASED,
    "vsock.transport_release": L.EV_TRANSPORT,
    "vsock.transport_released": L.EV_TRANSPORT_RET,
    "vsock.hyperv_release": L.EV_OTHER,
    "vsock.hyperv_released": L.EV_OTHER_RET,
    "vsock.vmci_release": L.EV_OTHER,
    "vsock.vmci_released": L.EV_OTHER_RET,
    "vsock.linger": L.EV_LINGER,
    "vsock.lingered": L.EV_LINGERED,
    "vsock.shutdown": L.EV_VSHUTDOWN,
    "vsock.shutdown_returned": L.EV_VSHUTDOWN_RET,
    "vsock.sent": L.EV_SENT,
    "vsock.credit": L.EV_TAKE,
    "vsock.credit_taken": L.EV_TAKEN,
    "vsock.credit_returned": L.EV_PUT,
    "vsock.done": L.EV_DONE,
    "vsock.device_reset": L.EV_RESET,
}
COLUMNS: tuple[str, ...] = (
    "ts_ns", "seq", "event", "pid", "tid", "size", "flags", "attributes", "ret", "object", "fd",
    "cmd", "argsz", "id", "count", "offset", "until_ns", "local", "peer",
)  # fmt: skip
"""The columns of a trace that the socket engine reads."""

_PLAIN = (
    (L.B_TS, "ts_ns"),
    (L.B_SEQ, "seq"),
    (L.B_SIZE, "size"),
    (L.B_FLAGS, "flags"),
    (L.B_ATTR, "attributes"),
    (L.B_RET, "ret"),
    (L.B_FD, "fd"),
    (L.B_CMD, "cmd"),
    (L.B_ARGSZ, "argsz"),
    (L.B_ID, "id"),
    (L.B_COUNT, "count"),
    (L.B_OFFSET, "offset"),
    (L.B_UNTIL, "until_ns"),
)
_NOBODY = -1
"""A thread or process that an event does not name; no thread has this number."""
LOCAL_CID = 1
ANY_CID = 0xFFFFFFFF
_KINDS = ("threads", "sockets", "sides", "descriptors")
_NEW = {"threads": 1, "sockets": 1, "sides": 6, "descriptors": 2}
"""Columns of what is new: its number; of a side also its CID and port, the peer's, and whether it
is of loopback; of a descriptor the parent's that it is a copy of, or -1."""
_PARENTS = 1 << 20
"""Of more children than about so many the parents are not noted."""
_KEPT = 1 << 16
"""Things of one kind that are held before those that are over are forgotten."""


def concerns(events: Mapping[str, int]) -> bool:
    """Whether a trace with these events says anything of vsock."""
    return any(n and name.startswith("vsock.") for name, n in events.items())


def columns_of(events: Mapping[str, int]) -> Sequence[str]:
    """Those of :data:`COLUMNS` that events of this trace may fill."""
    filled = {"ts_ns", "seq", "event", "pid", "tid"}
    for name, count in events.items():
        if count and name in _CODES:
            filled.update(column.name for column, _, _ in event_columns(name))
    return [c for c in COLUMNS if c in filled]


def load_kernel(*, compiled: bool) -> Any:
    """The kernel's ``frames`` module, as machine code or as plain Python."""
    return kernel_module("replay.linger.kernel", "frames", compiled=compiled)


class LingerStream:
    """Turns record batches into the kernel's rows; remembers what the numbers stand for.

    ``processes``: numbers of the last batch's threads, and their processes.
    """

    def __init__(self, kernel: Any) -> None:
        self.threads, self.sockets = Numbers(_KEPT, kernel), Numbers(_KEPT, kernel)
        self.sides, self.descriptors = Numbers(_KEPT, kernel), Numbers(_KEPT, kernel)
        self.parents: dict[int, int] = {}
        self.processes: tuple[Any, Any] = (np.empty(0, np.int64), np.empty(0, np.int64))
        self._new = _nothing_new()
        self.rows = 0
        self.last_ts = 0
        self._buffer = np.empty(0, np.int64)

    def batch(self, record_batch: pa.RecordBatch) -> Any:
        """The rows of a batch that concern sockets, as int64 array (B_COLS, rows).

        It is valid until the next batch.  Rows that are none of ours may be among them, as event 0.
        """
        n = record_batch.num_rows
        self.rows += n
        if not n:
            return np.empty((L.B_COLS, 0), np.int64)
        self.last_ts = int(_values(record_batch.column("ts_ns"))[-1])
        event = record_batch.column("event")
        words = event.dictionary.to_pylist()
        lut = np.array([_CODES.get(w, 0) for w in words] or [0], np.int8)
        code = lut[np.asarray(event.indices)]
        concerned = np.count_nonzero(code)
        if 2 * concerned < n:
            at = np.flatnonzero(code)
            record_batch, code, n = record_batch.take(pa.array(at)), code[at], len(at)
        out = self._rows(n)
        if not n:
            return out
        get = dict(zip(record_batch.schema.names, record_batch.columns, strict=True))
        out[L.B_EV] = code
        for column, name in _PLAIN:
            _fill(out[column], get.get(name))
        for name, transport in (("vsock.vmci_release", L.VMCI), ("vsock.hyperv_release", L.HYPERV)):
            if name in words:
                mine = np.asarray(get["event"].indices) == words.index(name)
                out[L.B_ID][mine] = transport
        self._processes(out, code, get)
        self._sockets(out, code, get)
        self._addresses(out, code, get)
        return out

    def taken(self) -> dict[str, Any]:
        """What was given a number since the last time, by :data:`_NEW`: (columns, things)."""
        new, self._new = self._new, _nothing_new()
        return {
            kind: np.concatenate(found, axis=1) if found else np.empty((columns, 0), np.int64)
            for (kind, columns), found in zip(_NEW.items(), new.values(), strict=True)
        }

    def kept_state(self) -> State:
        """What the numbers stand for, once the engine took notice of all."""
        assert not any(self._new.values())
        return {
            **{name: getattr(self, name).kept_state() for name in _KINDS},
            "parents": np.array(list(self.parents.items()), np.int64).reshape(-1, 2),
            "rows": self.rows,
            "last_ts": self.last_ts,
        }

    def restore(self, kept: Kept) -> None:
        """Know what another stream knew.

        :raises TraceFormatError: no state of a stream
        """
        for name in _KINDS:
            getattr(self, name).restore(kept.part(name))
        self.parents = kept.table("parents")
        self.rows = kept.integer("rows", 0)
        self.last_ts = kept.integer("last_ts")

    def _rows(self, n: int) -> Any:
        if len(self._buffer) < L.B_COLS * n:
            self._buffer = np.empty(L.B_COLS * n, np.int64)
        return self._buffer[: L.B_COLS * n].reshape(L.B_COLS, n)

    def _number(self, kind: str, names: Any) -> Any:
        """The numbers of different things."""
        numbers: Numbers = getattr(self, kind)
        found, new = numbers.numbers(names, self.last_ts)
        if len(new):
            self._new[kind].append(found[np.newaxis, new])
        return found

    def _processes(self, out: Any, code: Any, get: Mapping[str, pa.Array]) -> None:
        """Descriptors, by whose they are; threads that events name."""
        tid, both = out[L.B_THREAD], out[L.B_FD2]
        _fill(tid, get.get("tid"), _NOBODY)
        _fill(both, get.get("pid"), _NOBODY)
        tid &= 0xFFFFFFFF
        both <<= 32
        both |= tid
        named, place = distinct(both)
        tid, pid = named.astype(np.int32).astype(np.int64), named >> 32
        tid[tid == _NOBODY] = pid[pid == _NOBODY] = L.NULL
        numbers = self._number("threads", tid)
        self.processes = numbers, pid
        np.take(numbers, place, out=out[L.B_THREAD], mode="clip")
        owner = np.where(pid == L.NULL, tid, pid)
        rows = np.flatnonzero((code == L.EV_FORK) | (code == L.EV_SIGNAL))
        if len(rows):
            others, where = distinct(out[L.B_ID, rows])
            out[L.B_FD2, rows] = self._number("threads", others)[where]
            forks = rows[code[rows] == L.EV_FORK]
            if len(self.parents) < _PARENTS:
                children, parents = out[L.B_ID, forks], owner[place[forks]]
                self.parents.update(zip(children.tolist(), parents.tolist(), strict=True))
        rows = np.flatnonzero(out[L.B_FD] >= 0)
        self._descriptors(out[L.B_FD], owner[place[rows]], rows)
        returns = (code == L.EV_SOCKET_RET) | (code == L.EV_ACCEPT_RET) | (code == L.EV_DUP_RET)
        rows = np.flatnonzero(returns)
        rows = rows[out[L.B_RET, rows] >= 0]
        out[L.B_FD2, rows] = out[L.B_RET, rows]
        self._descriptors(out[L.B_FD2], owner[place[rows]], rows)

    def _descriptors(self, fd: Any, owner: Any, rows: Any) -> None:
        """Replace rows' descriptors, none below 0, by numbers, in place; -1 where there is none."""
        keys = fd[rows]
        fd[rows] = -1
        there = keys < 1 << 31
        rows = rows[there]
        if not len(rows):
            return
        unique, place = distinct(owner[there] << 31 | keys[there])
        numbers, new = self.descriptors.numbers(unique, self.last_ts)
        fd[rows] = numbers[place]
        if len(new):
            self._new["descriptors"].append(np.stack([numbers[new], self._inherited(unique[new])]))

    def _inherited(self, names: Any) -> Any:
        """The parents' descriptors of the same numbers, or -1."""
        of = self.parents.get
        parents = np.array([of(child, L.NULL) for child in (names >> 31).tolist()], np.int64)
        same = self.descriptors.known((parents << 31) | (names & 0x7FFFFFFF))
        return np.where(parents == L.NULL, -1, same)

    def _sockets(self, out: Any, code: Any, get: Mapping[str, pa.Array]) -> None:
        out[L.B_SK] = -1
        objects = get.get("object")
        if objects is None or objects.null_count == len(objects):
            return
        rows = np.flatnonzero(_valid(objects) & (code != L.EV_TAKE))
        names, place = distinct(_values(objects)[rows])
        out[L.B_SK, rows] = self._number("sockets", names)[place]

    def _addresses(self, out: Any, code: Any, get: Mapping[str, pa.Array]) -> None:
        """Number the sides: of a packet sent the sender's, of one received the receiver's too."""
        out[L.B_A] = out[L.B_B] = -1
        a, b = get.get("local"), get.get("peer")
        told = _valid(a) & _valid(b) if a is not None and b is not None else np.False_
        # Rows that the kernel would look up in no table.
        out[L.B_EV][((code == L.EV_RECV) | (code == L.EV_ALLOC)) & ~told] = 0
        rows = np.flatnonzero(told)
        if a is None or b is None or not len(rows):
            return
        locals_, at_local = distinct(_values(a)[rows])
        peers, at_peer = distinct(_values(b)[rows])
        # Of each pair of addresses: that a packet was received, or sent.
        pairs = (at_local.astype(np.int64) * len(peers) + at_peer) * 2 + (code[rows] == L.EV_RECV)
        pairs, place = distinct(pairs)
        local, peer = locals_[pairs // 2 // len(peers)], peers[pairs // 2 % len(peers)]
        come = pairs % 2 == 1
        lcid, rcid = local >> 32 & ANY_CID, peer >> 32 & ANY_CID
        loop = (lcid == LOCAL_CID) | (rcid == LOCAL_CID) | (lcid == rcid)
        out[L.B_A, rows] = self._sides(local, peer, loop, ~come | loop)[place]
        out[L.B_B, rows] = self._sides(peer, local, loop, come)[place]

    def _sides(self, own: Any, other: Any, loop: Any, wanted: Any) -> Any:
        """A socket of this machine is named by its port and the peer's address."""
        found = np.full(len(own), -1, np.int64)
        own, other, loop = own[wanted], other[wanted], loop[wanted]
        numbers, new = self.sides.numbers(other, self.last_ts, own & ANY_CID)
        found[wanted] = numbers
        if len(new):
            numbers, own, other, loop = numbers[new], own[new], other[new], loop[new]
            self._new["sides"].append(
                np.stack(
                    [numbers, own >> 32 & ANY_CID, own & ANY_CID, other >> 32 & ANY_CID,
                     other & ANY_CID, loop]
                )
            )  # fmt: skip
        return found


def _nothing_new() -> dict[str, list[Any]]:
    return {kind: [] for kind in _NEW}


def _values(array: pa.Array) -> Any:
    """An Arrow integer array's values; under nulls they mean nothing."""
    dtype = np.dtype(array.type.to_pandas_dtype())
    values = np.frombuffer(array.buffers()[1], dtype, len(array), array.offset * dtype.itemsize)
    return values.view(np.int64) if dtype == np.uint64 else values


def _valid(array: pa.Array) -> Any:
    """Which of an Arrow array's values there are."""
    if not array.null_count:
        return np.ones(len(array), bool)
    bitmap = np.frombuffer(array.buffers()[0], np.uint8)
    first, skipped = divmod(array.offset, 8)
    bits = np.unpackbits(bitmap[first : (array.offset + len(array) + 7) // 8], bitorder="little")
    return bits[skipped : skipped + len(array)].view(bool)


def _fill(row: Any, array: pa.Array | None, null: int = L.NULL) -> None:
    """Write an Arrow integer array's values, and ``null`` for nulls."""
    if array is None or array.null_count == len(array):
        row[:] = null
        return
    row[:] = _values(array)
    if array.null_count:
        np.putmask(row, ~_valid(array), null)
