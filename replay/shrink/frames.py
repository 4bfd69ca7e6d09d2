"""Which rows belong together: a call with all that is nested in it, on its thread.

A frame is what can be cut from a trace so that what is left is a trace that could have been
recorded (architecture, section 4): a call is there in full or not at all.  What happened outside
of calls, in an interrupt, or on no thread is a frame of one row.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa

from tracekit.events import EVENT_TYPES

__all__ = ("COLUMNS", "frames_of")

COLUMNS = ("tid", "event", "context", "cmd")
"""What is looked at."""

_OTHER, _ENTER, _RETURN, _ARGUMENTS, _CALL, _CALL_RETURN, _OWN, _APART = range(8)
_INTERRUPT = 0x08 | 0x10
_ENDS = {
    "iommu.map_called": "iommu.map_returned",
    "iommu.unmap_called": "iommu.unmap_returned",
    "vsock.release": "vsock.released",
    "vsock.transport_release": "vsock.transport_released",
    "vsock.hyperv_release": "vsock.hyperv_released",
    "vsock.vmci_release": "vsock.vmci_released",
    "vsock.linger": "vsock.lingered",
    "vsock.unsent_asked": "vsock.unsent_told",
    "vsock.credit": "vsock.credit_taken",
}
_USER_SPACE = ("kvm.entry", "process.exec", "process.exit", "trace.marker")
"""After these a thread is in none of the calls that it made before."""


def _kinds() -> dict[str, int]:
    kinds = {}
    for name in EVENT_TYPES:
        if name.endswith(".entered"):
            kinds[name] = _ENTER
        elif name.endswith(".returned"):
            kinds[name] = _RETURN
        elif name in ("ioctl.arguments", "setsockopt.arguments"):
            kinds[name] = _ARGUMENTS
        elif name in _USER_SPACE:
            kinds[name] = _OWN
        elif name.startswith(("qemu.", "trace.")):
            kinds[name] = _APART
        elif name in _ENDS or name + "_returned" in EVENT_TYPES:
            kinds[name] = _CALL
        elif name.endswith("_returned") or name in _ENDS.values():
            kinds[name] = _CALL_RETURN
    return kinds


_KIND = _kinds()


def frames_of(batches: Iterable[pa.RecordBatch]) -> Any:
    """The number of each row's frame, as an int64 array; frames are numbered by their first row.

    ``batches``: :data:`COLUMNS`, in the order of the trace.  A call whose return was not recorded
    ends before the next call of its thread.
    """
    walk = _Walk()
    parts = [walk.feed(batch) for batch in batches]
    return np.concatenate(parts) if parts else np.zeros(0, np.int64)


class _Walk:
    """Threads and the frames that they are in."""

    def __init__(self) -> None:
        self._count = 0
        self._open: dict[int, int] = {}
        self._depth: dict[int, int] = {}
        self._cmd: dict[int, tuple[int, int]] = {}

    def feed(self, batch: pa.RecordBatch) -> Any:
        get = {name: batch.column(i) for i, name in enumerate(batch.schema.names)}
        words = get["event"].dictionary.to_pylist()
        lut = np.array([_KIND.get(w, _OTHER) for w in words] or [_OTHER], np.int64)
        kinds = lut[np.asarray(get["event"].indices)]
        context = np.asarray(get["context"].fill_null(0))
        kinds[(context & _INTERRUPT) != 0] = _APART
        threads = np.asarray(get["tid"].fill_null(-1))
        kinds[threads == -1] = _APART
        commands = np.asarray(get["cmd"].fill_null(0))
        out = np.empty(len(kinds), np.int64)
        rows = zip(threads.tolist(), kinds.tolist(), commands.tolist(), strict=True)
        for i, (thread, kind, cmd) in enumerate(rows):
            out[i] = self._one(thread, kind, cmd)
        return out

    def _one(self, thread: int, kind: int, cmd: int) -> int:
        """The frame of the next row."""
        frame = self._open.get(thread, -1)
        if kind == _APART:
            return self._new()
        if kind == _OTHER:
            return frame if frame >= 0 else self._new()
        depth = self._depth.get(thread, 0)
        if kind in (_ENTER, _ARGUMENTS):
            # A probe on the entry may fire before or after the tracepoint there: both are one call.
            seen = self._cmd.get(thread)
            same = frame >= 0 and not depth and seen == (cmd, kind ^ _ENTER ^ _ARGUMENTS)
            if same:
                self._cmd[thread] = (cmd, -1)
                return frame
            if kind == _ARGUMENTS and frame >= 0 and (depth or seen is None):
                return frame
            self._depth[thread] = 0
            self._cmd[thread] = (cmd, kind)
            frame = self._open[thread] = self._new()
            return frame
        if kind == _OWN:
            self._close(thread)
            return self._new()
        if kind == _CALL:
            if frame < 0:
                frame = self._open[thread] = self._new()
                self._depth[thread] = 1
            elif depth:
                self._depth[thread] = depth + 1
            return frame
        if frame < 0:
            return self._new()
        if kind == _RETURN or depth == 1:
            self._close(thread)
        elif depth:
            self._depth[thread] = depth - 1
        return frame

    def _close(self, thread: int) -> None:
        self._open.pop(thread, None)
        self._depth.pop(thread, None)
        self._cmd.pop(thread, None)

    def _new(self) -> int:
        self._count += 1
        return self._count - 1
