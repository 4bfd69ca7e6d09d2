"""Record batches of a trace -> the integer arrays that the kernel takes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from replay.engine.columns import Columns
from replay.engine.kept import Kept, State
from replay.engine.kernel import layout as L
from replay.engine.marks import Marks
from tracekit.compiled.kernels import kernel_module

__all__ = ("COLUMNS", "EventStream", "load_kernel")

COLUMNS: tuple[str, ...] = (
    "ts_ns",
    "seq",
    "pid",
    "tid",
    "event",
    "context",
    "iova",
    "gpa",
    "vaddr",
    "offset",
    "size",
    "unmapped",
    "flags",
    "attributes",
    "ret",
    "object",
    "fd",
    "file_fd",
    "cmd",
    "argsz",
    "id",
    "name",
    "until_ns",
)
"""The columns of a trace that the engine reads."""

_CODES: dict[str, int] = {
    "ioctl.entered": L.EV_IOCTL,
    "ioctl.returned": L.EV_IOCTL_RET,
    "ioctl.arguments": L.EV_ARGS_EPROBE,
    "vfio.type1_ioctl": L.EV_ARGS_TYPE1,
    "vfio.type1_ioctl_returned": L.EV_CALLEE_RET,
    "kvm.vm_ioctl": L.EV_ARGS_KVM,
    "kvm.vm_ioctl_returned": L.EV_CALLEE_RET,
    "iommufd.ioctl": L.EV_ARGS_IOMMUFD,
    "iommufd.ioctl_returned": L.EV_CALLEE_RET,
    "iommufd.iopt_map_user": L.EV_ARGS_IOPT,
    "iommufd.iopt_map_file": L.EV_ARGS_IOPT_FILE,
    "iommufd.iopt_unmap": L.EV_ARGS_IOPT,
    "iommufd.iopt_map_returned": L.EV_IOPT_RET,
    "iommufd.iopt_unmap_returned": L.EV_IOPT_RET,
    "kvm.attributes": L.EV_ATTR_TP,
    "kvm.attributes_post": L.EV_POST,
    "kvm.gmem_fallocate": L.EV_GMEM_FALLOCATE,
    "iommu.map": L.EV_MAP,
    "iommu.unmap": L.EV_UNMAP,
    "iommu.map_called": L.EV_MAP_CALLED,
    "kvm.unmap_hva": L.EV_UNMAP_HVA,
    "iommu.domain_freed": L.EV_DOMAIN_FREED,
    "fallocate.entered": L.EV_FALLOCATE,
    "fallocate.returned": L.EV_RET,
    "madvise.entered": L.EV_MADVISE,
    "madvise.returned": L.EV_RET,
    "mmap.entered": L.EV_MMAP,
    "mmap.returned": L.EV_RET,
    "munmap.entered": L.EV_MUNMAP,
    "munmap.returned": L.EV_RET,
    "open.entered": L.EV_OPEN,
    "open.returned": L.EV_RET,
    "close.entered": L.EV_CLOSE,
    "close.returned": L.EV_RET,
    "kvm.entry": L.EV_RUN,
    "process.fork": L.EV_FORK,
    "process.exec": L.EV_EXEC,
    "process.exit": L.EV_EXIT,
    "trace.lost": L.EV_LOST,
    "kvm.memslot": L.EV_MEMSLOT,
}
_RETURN_OF: dict[str, int] = {
    "fallocate.returned": L.EV_FALLOCATE,
    "madvise.returned": L.EV_MADVISE,
    "mmap.returned": L.EV_MMAP,
    "munmap.returned": L.EV_MUNMAP,
    "open.returned": L.EV_OPEN,
    "close.returned": L.EV_CLOSE,
}
_INTERRUPT = 0x08 | 0x10
_TID_LIMIT = 1 << 22  # the kernel's own bound on thread ids


def load_kernel(*, compiled: bool) -> Any:
    """The kernel's ``frames`` module, as machine code or as plain Python."""
    return kernel_module("replay.engine.kernel", "frames", compiled=compiled)


class EventStream:
    """Turns record batches into the kernel's arrays; remembers threads.

    ``tids[i]`` is the thread id behind thread number ``i``.
    """

    def __init__(self, *, compiled: bool = False) -> None:
        self._columns = Columns(compiled=compiled)
        self.tids: list[int] = []
        self._number: dict[int, int] = {}
        self._lut = np.zeros(_TID_LIMIT, np.int32)  # number + 1: untouched zeros cost no memory
        self._out = np.empty((L.B_COLS, 0), np.int64)
        self.devices: dict[int, str] = {}
        self.clock_back = Marks()
        self.losses = Marks()
        self.first_ts: int | None = None
        self.last_ts = 0
        self.rows = 0

    def kept_state(self) -> State:
        """Threads, devices, holes, and how far it is."""
        return {
            "tids": np.array(self.tids, np.int64),
            "devices": [[number, name] for number, name in self.devices.items()],
            "clock_back": self.clock_back.rows.copy(),
            "losses": self.losses.rows.copy(),
            "first_ts": self.first_ts,
            "last_ts": self.last_ts,
            "rows": self.rows,
        }

    def restore(self, kept: Kept) -> None:
        """Know what another stream knew; this one has seen nothing yet.

        :raises TraceFormatError: no state of a stream
        """
        tids = kept.array("tids", None).tolist()
        kept.check(len(set(tids)) == len(tids), "tids")
        for tid in tids:
            self.thread(tid)
        for pair in kept.items("devices"):
            good = isinstance(pair, list) and list(map(type, pair)) == [int, str]
            kept.check(good and 0 <= pair[0] < max(len(tids), 1), "devices")
            self.devices[pair[0]] = pair[1]
        for name, into in (("clock_back", self.clock_back), ("losses", self.losses)):
            into.add(kept.array(name, None, 3))
        self.first_ts = kept.integer_or_none("first_ts")
        self.last_ts = kept.integer("last_ts")
        self.rows = kept.integer("rows", 0)

    def thread(self, tid: int) -> int:
        """Number of a thread, given out when first seen."""
        number = self._number.get(tid)
        if number is None:
            number = len(self.tids)
            self.tids.append(tid)
            self._number[tid] = number
            if 0 <= tid < _TID_LIMIT:
                self._lut[tid] = number + 1
        return number

    def batch(self, record_batch: pa.RecordBatch) -> Any:
        """One batch, its columns as in :data:`COLUMNS`, as int64 array (B_COLS, events).

        The array is used again for the next batch of the same length.
        """
        n = record_batch.num_rows
        if self._out.shape[1] != n:
            self._out = np.empty((L.B_COLS, n), np.int64)
        out = self._out
        get = {name: record_batch.column(i) for i, name in enumerate(record_batch.schema.names)}
        for column, name in _PLAIN:
            self._columns.fill(out[column], get[name])
        self._columns.merge(out[L.B_ADDR], get["gpa"])
        self._columns.merge(out[L.B_SIZE], get["unmapped"], over=True)
        rare = self._codes(get["event"], out)
        if get["context"].null_count < n:
            bits = np.full(n, L.NULL, np.int64)
            self._columns.fill(bits, get["context"])
            out[L.B_EV][(bits > 0) & (bits & _INTERRUPT != 0)] = L.EV_OTHER
        self._threads(out[L.B_THREAD])
        for i in rare.get("process.fork", ()):
            out[L.B_ID, i] = self.thread(int(out[L.B_ID, i]))
        if get["pid"].null_count < n:
            pids = out[L.B_PROC]
            for pid in np.unique(pids):
                if pid != L.NULL:
                    pids[pids == pid] = -1 - self.thread(int(pid))
            pids[pids > L.NULL] = -1 - pids[pids > L.NULL]
        self._remember(rare, get["name"], out)
        self.rows += n
        if n:
            if self.first_ts is None:
                self.first_ts = int(out[L.B_TS, 0])
            self.last_ts = int(out[L.B_TS, -1])
        return out

    def _codes(self, events: pa.DictionaryArray, out: Any) -> dict[str, Any]:
        """Fill in the event codes; where the events are that Python looks at."""
        words = events.dictionary.to_pylist()
        indices = np.asarray(events.indices)
        lut = np.array([_CODES.get(w, L.EV_OTHER) for w in words] or [0], np.int64)
        np.take(lut, indices, out=out[L.B_EV])
        returns = np.array([_RETURN_OF.get(w, -1) for w in words] or [-1], np.int64)
        if (returns >= 0).any():
            of = returns[indices]
            np.copyto(out[L.B_CMD], of, where=of >= 0)
        return {w: np.flatnonzero(indices == words.index(w)) for w in _RARE if w in words}

    def _threads(self, tids: Any) -> None:
        """Replace thread ids by their numbers, in place."""
        odd = (tids < 0) | (tids >= _TID_LIMIT)
        strange = {int(i): int(tids[i]) for i in np.flatnonzero(odd)}
        if strange:
            tids[odd] = 0
        numbers = self._lut[tids]
        missing = numbers == 0
        if missing.any():
            for tid in np.unique(tids[missing]):
                self.thread(int(tid))
            numbers = self._lut[tids]
        tids[:] = numbers
        tids -= 1
        for i, tid in strange.items():
            tids[i] = self.thread(tid)

    def _remember(self, rare: dict[str, Any], name: pa.Array, out: Any) -> None:
        for i in rare.get("iommu.attach", ()):
            device = name[int(i)].as_py()
            if device is not None:
                self.devices[int(out[L.B_THREAD, i])] = device
        for sort, into in (("trace.clock_back", self.clock_back), ("trace.lost", self.losses)):
            rows = rare.get(sort, ())
            if len(rows):
                into.add(out[[L.B_TS, L.B_UNTIL, L.B_SEQ]][:, rows].T)


_RARE = ("iommu.attach", "process.fork", "trace.clock_back", "trace.lost")
_PLAIN = (
    (L.B_TS, "ts_ns"),
    (L.B_SEQ, "seq"),
    (L.B_THREAD, "tid"),
    (L.B_FD, "fd"),
    (L.B_CMD, "cmd"),
    (L.B_ADDR, "iova"),
    (L.B_VADDR, "vaddr"),
    (L.B_OFFSET, "offset"),
    (L.B_SIZE, "size"),
    (L.B_FLAGS, "flags"),
    (L.B_ATTR, "attributes"),
    (L.B_RET, "ret"),
    (L.B_OBJ, "object"),
    (L.B_FILE_FD, "file_fd"),
    (L.B_ID, "id"),
    (L.B_ARGSZ, "argsz"),
    (L.B_UNTIL, "until_ns"),
    (L.B_PROC, "pid"),
)
