"""Record batches of a trace -> the calls that conversions are made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from replay.conformance.kernel import layout as K
from replay.engine.columns import Columns
from tracekit.compiled.kernels import kernel_module

__all__ = ("COLUMNS", "CallStream", "load_kernel")

COLUMNS: tuple[str, ...] = (
    "ts_ns",
    "seq",
    "pid",
    "tid",
    "event",
    "iova",
    "gpa",
    "vaddr",
    "offset",
    "size",
    "flags",
    "attributes",
    "ret",
    "fd",
    "cmd",
    "argsz",
    "id",
    "count",
    "until_ns",
)
"""The columns of a trace that conformance reads; the engine reads all of them but ``count``."""

_CODES: dict[str, int] = {
    "ioctl.entered": K.E_IOCTL,
    "ioctl.returned": K.E_IOCTL_RET,
    "vfio.type1_ioctl": K.E_ARGS,
    "kvm.vm_ioctl": K.E_ARGS,
    "iommufd.ioctl": K.E_ARGS,
    "iommufd.iopt_map_user": K.E_IOPT,
    "iommufd.iopt_map_file": K.E_IOPT,
    "iommufd.iopt_unmap": K.E_IOPT,
    "kvm.attributes": K.E_ATTR_TP,
    "ioctl.arguments": K.E_EPROBE,
    "vfio.type1_ioctl_returned": K.E_CALLEE_RET,
    "kvm.vm_ioctl_returned": K.E_CALLEE_RET,
    "iommufd.ioctl_returned": K.E_CALLEE_RET,
    "fallocate.entered": K.E_FALLOCATE,
    "madvise.entered": K.E_MADVISE,
    "fallocate.returned": K.E_SYSCALL_RET,
    "madvise.returned": K.E_SYSCALL_RET,
    "kvm.gmem_fallocate": K.E_GMEM_FALLOCATE,
    "kvm.entry": K.E_ENTRY,
    "process.exit": K.E_EXIT,
    "process.exec": K.E_EXEC,
    "process.fork": K.E_FORK,
    "trace.lost": K.E_LOST,
    "mmap.entered": K.E_MMAP,
    "mmap.returned": K.E_MMAP_RET,
    "close.entered": K.E_CLOSE,
    "qemu.convert_memory": K.E_REQUEST,
    "qemu.dirty_bitmap": K.E_DIRTY,
    "qemu.virtio_mem": K.E_VIRTIO_MEM,
    "qemu.region": K.E_REGION,
}
_TAKEN = (
    (K.B_TS, "ts_ns"),
    (K.B_SEQ, "seq"),
    (K.B_ADDR, "gpa"),
    (K.B_SIZE, "size"),
    (K.B_VADDR, "vaddr"),
    (K.B_OFFSET, "offset"),
    (K.B_FLAGS, "flags"),
    (K.B_ATTR, "attributes"),
    (K.B_RET, "ret"),
    (K.B_FD, "fd"),
    (K.B_CMD, "cmd"),
    (K.B_ID, "id"),
    (K.B_ARGSZ, "argsz"),
    (K.B_COUNT, "count"),
    (K.B_UNTIL, "until_ns"),
)


def load_kernel(name: str, *, compiled: bool) -> Any:
    """A module of the kernel, as machine code or as plain Python."""
    return kernel_module("replay.conformance.kernel", name, compiled=compiled)


class CallStream:
    """Turns batches into calls; remembers threads, and calls that are still open.

    ``tids[i]`` is the thread behind number ``i``.
    """

    def __init__(self, events: Mapping[str, int], *, compiled: bool) -> None:
        self._kernel = load_kernel("frames", compiled=compiled)
        columns = Columns(compiled=compiled)
        self._fill, self._merge = columns.fill, columns.merge
        self._entered = int(bool(events.get("ioctl.entered")))
        self._frames = np.zeros((0, K.F_COLS), np.int64)
        self._numbers: dict[int, int] = {}
        self.tids: list[int] = []
        self.thread(0)  # whatever has no thread

    def thread(self, tid: int) -> int:
        """Number of a thread, given out when first seen."""
        number = self._numbers.get(tid)
        if number is None:
            number = self._numbers[tid] = len(self.tids)
            self.tids.append(tid)
            if number >= len(self._frames):
                more = np.zeros((2 * number + 16, K.F_COLS), np.int64)
                more[: len(self._frames)] = self._frames
                more[len(self._frames) :, K.F_PROC] = np.arange(len(self._frames), len(more))
                self._frames = more
        return number

    def further(self, number: int) -> int:
        """One more number for a process: that of a further VM in it."""
        self.tids.append(self.tids[number])
        return len(self.tids) - 1

    def feed(self, batch: pa.RecordBatch) -> Any:
        """The calls that end in a batch: int64 array (n, C_COLS)."""
        events = batch.column(batch.schema.get_field_index("event"))
        words = events.dictionary.to_pylist()
        codes = np.array([_CODES.get(w, 0) for w in words] or [0], np.int64)
        kinds = codes[np.asarray(events.indices)]
        rows = np.flatnonzero(kinds)
        if not len(rows):
            return np.empty((0, K.C_COLS), np.int64)
        there = {name: batch.column(i) for i, name in enumerate(batch.schema.names)}
        b = np.empty((K.B_COLS, len(rows)), np.int64)
        b[K.B_EV] = kinds[rows]
        for at, name in _TAKEN:
            if name in there:
                self._fill(b[at], there[name], rows)
            else:
                b[at] = K.NULL
        if "iova" in there:
            self._merge(b[K.B_ADDR], there["iova"], rows, over=True)
        self._threads(b, self._numbers_of(there, "tid", rows), self._numbers_of(there, "pid", rows))
        out = np.empty((2 * b.shape[1] + 2 * len(self._frames) + 4, K.C_COLS), np.int64)
        return out[: self._kernel.extract(b, self._entered, self._frames, out)]

    def finish(self) -> Any:
        """What is left when the trace ends."""
        out = np.empty((2 * len(self._frames) + 4, K.C_COLS), np.int64)
        return out[: self._kernel.flush_runs(self._frames, out)]

    def _numbers_of(self, there: Mapping[str, pa.Array], name: str, rows: Any) -> Any:
        """A column's values at these rows; None if it has none at all."""
        array = there.get(name)
        if array is None or array.null_count == len(array):
            return None
        out = np.empty(len(rows), np.int64)
        self._fill(out, array, rows)
        return out

    def _threads(self, b: Any, tids: Any, pids: Any) -> None:
        if tids is None:
            b[K.B_THREAD] = 0
            return
        known, numbers, first = _numbered(tids)
        forks = np.flatnonzero(b[K.B_EV] == K.E_FORK).tolist()
        seen = [(at, max(t, 0)) for t, at in zip(known, first, strict=True)]
        seen += [(i, int(b[K.B_ID, i])) for i in forks]
        processes, of, first = _numbered(tids if pids is None else pids)
        seen += [(at, p) for p, at in zip(processes, first, strict=True) if p > 0]
        for _, thread in sorted(seen, key=lambda s: s[0]):
            self.thread(thread)  # in the order of the trace, however much of it this is
        b[K.B_THREAD] = np.array([self.thread(max(t, 0)) for t in known], np.int64)[numbers]
        for i in forks:
            b[K.B_ID, i] = self.thread(int(b[K.B_ID, i]))
        if pids is None:
            return
        pairs, _, _ = _numbered(b[K.B_THREAD] * len(processes) + of)
        for pair in pairs:
            thread, process = divmod(pair, len(processes))
            if processes[process] > 0:
                self._frames[thread, K.F_PROC] = self.thread(processes[process])


def _numbered(values: Any) -> tuple[list[int], Any, list[int]]:
    """The distinct values in ascending order, for each value its place there, and where each comes
    first.

    Few are distinct and the same comes many times in a row, so only where it changes is sorted.
    """
    new = np.ones(len(values), bool)
    np.not_equal(values[1:], values[:-1], out=new[1:])
    runs = np.flatnonzero(new)
    distinct, first, of_run = np.unique(values[runs], return_index=True, return_inverse=True)
    of = np.repeat(of_run, np.diff(runs, append=len(values)))
    return distinct.tolist(), of, runs[first].tolist()
