"""Record batches of a trace -> the rows that the socket kernel takes.

Only events of sockets are looked at; the rest of a batch costs one look at its dictionary.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa

from replay.engine.kept import Kept, State
from replay.linger.kernel import layout as L
from replay.linger.numbers import Numbers, distinct
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
LOCAL_CID = 1
ANY_CID = 0xFFFFFFFF
_KINDS = ("threads", "sockets", "sides", "descriptors")
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


def load_kernel(*, compiled: bool) -> ModuleType:
    """The kernel's ``frames`` module, compiled by numba or as plain Python."""
    if compiled:
        return importlib.import_module("replay.linger.kernel.frames")
    name = "replay.linger.kernel_plain"
    if name not in sys.modules:
        package = ModuleType(name)
        package.__path__ = list(importlib.import_module("replay.linger.kernel").__path__)
        package.__package__ = name
        sys.modules[name] = package
    return importlib.import_module(f"{name}.frames")


class LingerStream:
    """Turns record batches into the kernel's rows; remembers what the numbers stand for.

    ``processes``: numbers of the last batch's threads, and their processes.  ``ends``: of the sides
    that were given a number, by number, (own CID, own port, the peer's address, of loopback).
    """

    def __init__(self) -> None:
        self.threads, self.sockets = Numbers(_KEPT), Numbers(_KEPT)
        self.sides, self.descriptors = Numbers(_KEPT), Numbers(_KEPT)
        self.parents: dict[int, int] = {}
        self.inherited: dict[int, int] = {}
        self.ends: dict[int, tuple[int, int, int, bool]] = {}
        self.processes: tuple[Any, Any] = (np.empty(0, np.int64), np.empty(0, np.int64))
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
        lut = np.array([_CODES.get(w, 0) for w in words] or [0], np.int64)
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

    def kept_state(self) -> State:
        """What the numbers stand for, once the engine took notice of all."""
        assert not self.inherited
        assert not self.ends
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

    def _processes(self, out: Any, code: Any, get: Mapping[str, pa.Array]) -> None:
        """Descriptors, by whose they are; threads that events name."""
        tid, pid = out[L.B_THREAD], np.empty(len(code), np.int64)
        _fill(tid, get.get("tid"))
        _fill(pid, get.get("pid"))
        known = pid != L.NULL
        table = np.where(known, pid, tid)
        names, place = distinct(tid)
        numbers = self.threads.numbers(names.tolist(), self.last_ts)
        of = np.full(len(names), L.NULL, np.int64)
        of[place[known]] = pid[known]
        self.processes = numbers, of
        of_threads = (code == L.EV_FORK) | (code == L.EV_SIGNAL)
        if of_threads.any():
            named, where = distinct(out[L.B_ID][of_threads])
            out[L.B_FD2][of_threads] = self.threads.numbers(named.tolist(), self.last_ts)[where]
            for i in np.flatnonzero(code == L.EV_FORK).tolist():
                if len(self.parents) < 1 << 20:
                    self.parents[int(out[L.B_ID, i])] = int(table[i])
        out[L.B_THREAD] = numbers[place]
        fd = out[L.B_FD]
        self._descriptors(fd, table, fd != L.NULL)
        returns = (code == L.EV_SOCKET_RET) | (code == L.EV_ACCEPT_RET) | (code == L.EV_DUP_RET)
        returns &= out[L.B_RET] >= 0
        if returns.any():
            out[L.B_FD2][returns] = out[L.B_RET][returns]
            self._descriptors(out[L.B_FD2], table, returns)

    def _descriptors(self, fd: Any, table: Any, mine: Any) -> None:
        """Replace descriptors by numbers, in place; -1 where there is none."""
        rows = np.flatnonzero(mine & (fd >= 0) & (fd < 1 << 31))
        keys = (table[rows] << 31) | fd[rows]
        fd[mine] = -1
        unique, place = distinct(keys)
        numbers = self.descriptors.numbers(unique.tolist(), self.last_ts)
        if len(rows):
            fd[rows] = numbers[place]
        for number in self.descriptors.fresh:
            if number not in self.inherited:
                self.inherited[number] = self._inherited(number)

    def _inherited(self, number: int) -> int:
        """The parent's descriptor of the same number, or -1."""
        key = self.descriptors.names[number]
        parent = self.parents.get(key >> 31) if key is not None else None
        if key is None or parent is None:
            return -1
        return self.descriptors.of.get(parent << 31 | key & 0x7FFFFFFF, -1)

    def _sockets(self, out: Any, code: Any, get: Mapping[str, pa.Array]) -> None:
        sk = out[L.B_SK]
        _fill(sk, get.get("object"))
        sk[code == L.EV_TAKE] = L.NULL
        names, place = distinct(sk)
        told = names != L.NULL
        numbers = np.full(len(names), -1, np.int64)
        if told.any():
            numbers[told] = self.sockets.numbers(names[told].tolist(), self.last_ts)
        sk[:] = numbers[place]

    def _addresses(self, out: Any, code: Any, get: Mapping[str, pa.Array]) -> None:
        """Number the sides: of a packet sent the sender's, of one received the receiver's too."""
        a, b = out[L.B_A], out[L.B_B]
        _fill(a, get.get("local"))
        _fill(b, get.get("peer"))
        rows = np.flatnonzero((a != L.NULL) & (b != L.NULL))
        received = code == L.EV_RECV
        # Rows that the kernel would look up in no table.
        bad = received | (code == L.EV_ALLOC)
        bad[rows] = False
        out[L.B_EV][bad] = 0
        if not len(rows):
            a[:] = b[:] = -1
            return
        whole = len(rows) == len(code)
        locals_, at_local = distinct(a if whole else a[rows])
        peers, at_peer = distinct(b if whole else b[rows])
        pairs, place = distinct(at_local.astype(np.int64) * len(peers) + at_peer)
        local, peer = locals_[pairs // len(peers)], peers[pairs % len(peers)]
        lcid, rcid = local >> 32 & ANY_CID, peer >> 32 & ANY_CID
        loop = (lcid == LOCAL_CID) | (rcid == LOCAL_CID) | (lcid == rcid)
        come = received if whole else received[rows]
        is_sent, is_come = np.zeros(len(pairs), bool), np.zeros(len(pairs), bool)
        is_sent[place[~come]] = True
        is_come[place[come]] = True
        own = self._sides(local, peer, loop, is_sent | (is_come & loop))
        others = self._sides(peer, local, loop, is_come)
        a[:] = b[:] = -1
        a[rows] = np.where(come & ~loop[place], -1, own[place])
        b[rows] = np.where(come, others[place], -1)

    def _sides(self, own: Any, other: Any, loop: Any, wanted: Any) -> Any:
        """A socket of this machine is named by its port and the peer's address."""
        found = np.full(len(own), -1, np.int64)
        chosen = np.flatnonzero(wanted)
        if not len(chosen):
            return found
        port, peer = (own[chosen] & ANY_CID).tolist(), other[chosen].view(np.uint64).tolist()
        names = [mine << 64 | its for mine, its in zip(port, peer, strict=True)]
        found[chosen] = self.sides.numbers(names, self.last_ts)
        if len(self.ends) < len(self.sides.fresh):
            cid, loops = (own[chosen] >> 32 & ANY_CID).tolist(), loop[chosen].tolist()
            numbers = found[chosen].tolist()
            fresh = set(self.sides.fresh)
            for number, *end in zip(numbers, cid, port, peer, loops, strict=True):
                if number in fresh:
                    self.ends.setdefault(number, (end[0], end[1], end[2], end[3]))
        return found


def _values(array: pa.Array) -> Any:
    """An Arrow integer array's values; under nulls they mean nothing."""
    dtype = np.dtype(array.type.to_pandas_dtype())
    values = np.frombuffer(array.buffers()[1], dtype, len(array), array.offset * dtype.itemsize)
    return values.view(np.int64) if dtype == np.uint64 else values


def _fill(row: Any, array: pa.Array | None) -> None:
    """Write an Arrow integer array's values, nulls as NULL."""
    if array is None or array.null_count == len(array):
        row[:] = L.NULL
    elif not array.null_count:
        row[:] = _values(array)
    else:
        row[:] = L.NULL
        bitmap = np.frombuffer(array.buffers()[0], np.uint8)
        first, skipped = divmod(array.offset, 8)
        last = (array.offset + len(array) + 7) // 8
        bits = np.unpackbits(bitmap[first:last], bitorder="little")
        valid = bits[skipped : skipped + len(array)].view(bool)
        np.copyto(row, _values(array), where=valid)
