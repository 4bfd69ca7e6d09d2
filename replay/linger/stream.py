"""Record batches of a trace -> the rows that the socket kernel takes.

Only events of sockets are looked at; the rest of a batch costs one look at its dictionary.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa

from replay.linger.kernel import layout as L

__all__ = ("COLUMNS", "LingerStream", "concerns", "load_kernel")

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
    "file_fd", "cmd", "argsz", "id", "count", "offset", "until_ns", "local", "peer",
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
_RETURNS_FD = (L.EV_SOCKET_RET, L.EV_ACCEPT_RET, L.EV_DUP_RET)
_PACKETS = (L.EV_ALLOC, L.EV_RECV)
LOCAL_CID = 1
ANY_CID = 0xFFFFFFFF


def concerns(events: Mapping[str, int]) -> bool:
    """Whether a trace with these events says anything of vsock."""
    return any(n and name.startswith("vsock.") for name, n in events.items())


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


class Numbers:
    """Small numbers for things that have large names, given out when first seen."""

    def __init__(self) -> None:
        self.of: dict[Any, int] = {}
        self.names: list[Any] = []
        self.free: list[int] = []

    def number(self, name: Any) -> int:
        """The number of one thing."""
        found = self.of.get(name)
        if found is None:
            if self.free:
                found = self.free.pop()
                self.names[found] = name
            else:
                found = len(self.names)
                self.names.append(name)
            self.of[name] = found
        return found

    def numbers(self, values: Any) -> Any:
        """The numbers of an array of integers."""
        unique, inverse = np.unique(values, return_inverse=True)
        table = np.array([self.number(v) for v in unique.tolist()] or [0], np.int64)
        return table[inverse.reshape(-1)]

    def forget(self, numbers: Any) -> None:
        """These things are gone; their numbers may be given to others."""
        for number in numbers.tolist():
            del self.of[self.names[number]]
            self.names[number] = None
            self.free.append(number)


class LingerStream:
    """Turns record batches into the kernel's rows; remembers what the numbers stand for."""

    def __init__(self) -> None:
        self.threads = Numbers()
        self.sockets = Numbers()
        self.sides = Numbers()
        self.descriptors = Numbers()
        self.parents: dict[int, int] = {}
        self.inherited: list[int] = []
        self.cids: dict[int, int] = {}
        self.pids: dict[int, int] = {}
        self.rows = 0
        self.last_ts = 0

    def batch(self, record_batch: pa.RecordBatch) -> Any:
        """The rows of a batch that concern sockets, as int64 array (B_COLS, rows)."""
        self.rows += record_batch.num_rows
        get = {name: record_batch.column(i) for i, name in enumerate(record_batch.schema.names)}
        if record_batch.num_rows:
            self.last_ts = int(_values(get["ts_ns"])[-1])
        words = get["event"].dictionary.to_pylist()
        lut = np.array([_CODES.get(w, 0) for w in words] or [0], np.int64)
        if not lut.any():
            return np.empty((L.B_COLS, 0), np.int64)
        codes = lut[np.asarray(get["event"].indices)]
        at = np.flatnonzero(codes)
        n = len(at)
        out = np.full((L.B_COLS, n), L.NULL, np.int64)
        if not n:
            return out
        code = codes[at]
        out[L.B_EV] = code
        for column, name in _PLAIN:
            _fill(out[column], get[name], at)
        for name in ("vsock.vmci_release", "vsock.hyperv_release"):
            if name in words:
                mine = np.asarray(get["event"].indices)[at] == words.index(name)
                out[L.B_ID][mine] = L.VMCI if "vmci" in name else L.HYPERV
        tid = np.full(n, L.NULL, np.int64)
        _fill(tid, get["tid"], at)
        out[L.B_THREAD] = self.threads.numbers(tid)
        pid = np.full(n, L.NULL, np.int64)
        _fill(pid, get["pid"], at)
        self._processes(tid, pid, code, out)
        self._sockets(out, get["object"], at)
        self._addresses(out, code, get, at)
        return out

    def _processes(self, tid: Any, pid: Any, code: Any, out: Any) -> None:
        """Descriptors, by whose they are; threads that events name."""
        known = pid != L.NULL
        if known.any():
            self.pids.update(zip(tid[known].tolist(), pid[known].tolist(), strict=True))
        table = np.where(known, pid, tid)
        of_threads = (code == L.EV_FORK) | (code == L.EV_SIGNAL)
        if of_threads.any():
            out[L.B_FD2][of_threads] = self.threads.numbers(out[L.B_ID][of_threads])
            for i in np.flatnonzero(code == L.EV_FORK).tolist():
                if len(self.parents) < 1 << 20:
                    self.parents[int(out[L.B_ID, i])] = int(table[i])
        fd = out[L.B_FD]
        self._descriptors(fd, table, fd != L.NULL)
        returns = np.isin(code, _RETURNS_FD) & (out[L.B_RET] >= 0)
        out[L.B_FD2][returns] = out[L.B_RET][returns]
        self._descriptors(out[L.B_FD2], table, returns)

    def _descriptors(self, fd: Any, table: Any, mine: Any) -> None:
        """Replace descriptors by numbers, in place; -1 where there is none."""
        rows = np.flatnonzero(mine & (fd >= 0) & (fd < 1 << 31))
        keys = (table[rows] << 31) | fd[rows]
        fd[mine] = -1
        unique, inverse = np.unique(keys, return_inverse=True)
        numbers = np.array([self._descriptor(v) for v in unique.tolist()] or [0], np.int64)
        fd[rows] = numbers[inverse.reshape(-1)]

    def _descriptor(self, key: int) -> int:
        number = self.descriptors.of.get(key)
        if number is not None:
            return number
        number = self.descriptors.number(key)
        if number == len(self.inherited):
            self.inherited.append(-1)
        parent = self.parents.get(key >> 31)
        above = self.descriptors.of.get(parent << 31 | key & 0x7FFFFFFF) if parent else None
        self.inherited[number] = -1 if above is None else above
        return number

    def _sockets(self, out: Any, pointer: pa.Array, at: Any) -> None:
        value = np.full(len(at), L.NULL, np.int64)
        _fill(value, pointer, at)
        rows = np.flatnonzero((value != L.NULL) & (out[L.B_EV] != L.EV_TAKE))
        out[L.B_SK] = -1
        out[L.B_SK][rows] = self.sockets.numbers(value[rows])

    def _addresses(self, out: Any, code: Any, get: Mapping[str, pa.Array], at: Any) -> None:
        """Number the sides: of a packet sent the sender's, of one received the receiver's too."""
        local = np.full(len(at), L.NULL, np.int64)
        peer = local.copy()
        _fill(local, get["local"], at)
        _fill(peer, get["peer"], at)
        out[L.B_LOCAL], out[L.B_PEER] = local, peer
        out[L.B_A] = out[L.B_B] = -1
        lcid, rcid = local >> 32 & ANY_CID, peer >> 32 & ANY_CID
        loop = (lcid == LOCAL_CID) | (rcid == LOCAL_CID) | (lcid == rcid)
        out[L.B_LOOP] = loop
        have = (local != L.NULL) & (peer != L.NULL)
        here = have & (code != L.EV_RECV)
        out[L.B_A][here] = self._sides(local[here], peer[here], loop[here])
        come = have & (code == L.EV_RECV)
        out[L.B_B][come] = self._sides(peer[come], local[come], loop[come])
        both = come & loop
        out[L.B_A][both] = self._sides(local[both], peer[both], loop[both])
        # Rows that the kernel would look up in no table.
        bad = np.isin(code, _PACKETS) & ~have
        out[L.B_EV][bad] = 0

    def _sides(self, own: Any, other: Any, loop: Any) -> Any:
        """A socket of this machine is named by its port and the peer's address."""
        if not len(own):
            return own
        unique, inverse = np.unique(np.stack([own, other]), axis=1, return_inverse=True)
        flags = np.zeros(unique.shape[1], bool)
        flags[inverse.reshape(-1)] = loop
        numbers = []
        for (mine, its), is_loop in zip(unique.T.tolist(), flags.tolist(), strict=True):
            number = self.sides.number((mine & ANY_CID, its & ((1 << 64) - 1)))
            cid = mine >> 32 & ANY_CID
            if number not in self.cids or self.cids[number] == ANY_CID:
                self.cids[number] = cid
            self.fresh(number, cid, mine & ANY_CID, its, is_loop)
            numbers.append(number)
        return np.array(numbers, np.int64)[inverse.reshape(-1)]

    fresh: Callable[[int, int, int, int, bool], None]
    """Called for each side of a batch: its number, CID, port, peer address, whether it is one of
    loopback."""


def _values(array: pa.Array) -> Any:
    """An Arrow integer array's values; under nulls they mean nothing."""
    dtype = np.dtype(array.type.to_pandas_dtype())
    values = np.frombuffer(array.buffers()[1], dtype, len(array), array.offset * dtype.itemsize)
    return values.view(np.int64) if dtype == np.uint64 else values


def _fill(row: Any, array: pa.Array, at: Any) -> None:
    """Write chosen values of an Arrow integer array, nulls as NULL."""
    if array.null_count == len(array):
        row[:] = L.NULL
        return
    row[:] = _values(array)[at]
    if array.null_count:
        bitmap = np.frombuffer(array.buffers()[0], np.uint8)
        places = at + array.offset
        row[(bitmap[places >> 3] >> (places & 7)) & 1 == 0] = L.NULL
