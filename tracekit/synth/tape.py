"""Calls as arrays: each distinct piece of a call rendered once, and put into batches many times.

A *piece* is the events of a call, or of a part of one that repeats (an entry that an unmap
removes), with addresses counted from 0.  What happens is then two arrays, pieces and how far each
is moved, from which columns are gathered.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tracekit.events import COLUMNS, COMMON, ColumnType
from tracekit.store import batch_schema
from tracekit.synth.calls import Call, Op
from tracekit.synth.rows import RUN, SOURCES, Row, rows
from tracekit.synth.timing import gap_table
from tracekit.synth.vmm import Vmm

__all__ = ("Pieces", "Tape", "Thread")

I64 = npt.NDArray[np.int64]
I32 = npt.NDArray[np.int32]

_COMMON = {c.name for c in COMMON}
_PAYLOAD = [c for c in COLUMNS if c.name not in _COMMON]
_NUMPY = {
    ColumnType.U8: np.uint8,
    ColumnType.U32: np.uint32,
    ColumnType.U64: np.uint64,
    ColumnType.I32: np.int32,
    ColumnType.I64: np.int64,
    ColumnType.TEXT: np.int32,
}
_MASK = (1 << 64) - 1
_PER_THREAD = (Op.RUN, Op.ENTER)
_IN_PLACE = (Op.SLOT, Op.MMAP, Op.CREATE_GMEM)


@dataclass(frozen=True)
class Thread:
    """A thread of a VMM, on the CPU where it stays."""

    index: int
    vmm: Vmm
    tid: int
    comm: str
    cpu: int


@dataclass(frozen=True)
class Pieces:
    """Pieces in their order, how far each is moved, and which piece each call begins with."""

    numbers: I32
    shifts: I64
    calls: I64 = field(default_factory=lambda: np.zeros(0, np.int64))

    def __len__(self) -> int:
        return len(self.numbers)


class Tape:
    """All pieces of a trace, and its threads."""

    def __init__(self, guest_ns: int) -> None:
        self.threads: list[Thread] = []
        self._guest_ns = guest_ns
        self._known: dict[Hashable, list[tuple[int, int]]] = {}
        self._lengths: list[int] = []
        self._rows: list[Row] = []
        self._gaps: dict[str, int] = {}
        self._events: dict[str, int] = {}
        self._texts: dict[str, dict[str, int]] = {}
        self._gap_times = np.zeros((0, 1), np.int64)
        self._built = -1

    def thread(self, vmm: Vmm, tid: int, comm: str, cpu: int) -> Thread:
        """One more thread."""
        made = Thread(len(self.threads), vmm, tid, comm, cpu)
        self.threads.append(made)
        return made

    def pieces(self, calls: Sequence[Call], thread: Thread) -> Pieces:
        """The pieces of calls that a thread makes."""
        numbers: list[int] = []
        shifts: list[int] = []
        begins = []
        for call in calls:
            begins.append(len(numbers))
            for number, at in self._of(call, thread):
                numbers.append(number)
                shifts.append(at + call.at)
        return Pieces(np.array(numbers, np.int32), np.array(shifts, np.int64), np.array(begins))

    def lengths(self, numbers: I32) -> I64:
        """Events of each piece."""
        self._build()
        return self._length[numbers]

    def expand(self, pieces: Pieces) -> tuple[I64, I64]:
        """Each event's row, and how far it is moved."""
        lengths = self.lengths(pieces.numbers)
        ends = np.cumsum(lengths)
        total = int(ends[-1]) if len(ends) else 0
        at = np.repeat(self._first[pieces.numbers] - (ends - lengths), lengths)
        at += np.arange(total)
        return at, np.repeat(pieces.shifts, lengths)

    def crossings(self, events: I64) -> tuple[I64, I64]:
        """Where events are the return out of a guest, and where they are the way into it."""
        self._build()
        sort = self._crossing[events]
        return np.flatnonzero(sort == 1), np.flatnonzero(sort == 2)

    def times(self, events: I64, start_ns: int, chance: np.random.Generator) -> I64:
        """When a thread's events happen that follow each other from ``start_ns`` on."""
        self._build()
        drawn = chance.integers(0, self._gap_times.shape[1], len(events), dtype=np.uint16)
        flat = self._gap_of[events] + drawn
        out = np.cumsum(self._gap_times.reshape(-1)[flat])
        out += start_ns
        return out

    def batch(self, ts: I64, events: I64, shifts: I64, threads: I64) -> pa.RecordBatch:
        """Events in time order, as a batch for the trace's writer."""
        self._build()
        count = len(ts)
        arrays: dict[str, pa.Array] = {
            "ts_ns": pa.array(ts),
            "cpu": pa.array(self._cpus[threads]),
            "tid": pa.array(self._tids[threads]),
            "comm": pa.DictionaryArray.from_arrays(self._comm_of[threads], self._comms),
            "source": pa.DictionaryArray.from_arrays(self._kind[events], self._sources),
            "event": pa.DictionaryArray.from_arrays(self._kind[events], self._names),
            "context": pa.array(np.zeros(count, np.uint8)),
        }
        for name, values in self._values.items():
            taken = values[events]
            valid = self._valid[name][events]
            if name in self._moves:
                taken = (taken + shifts * self._moves[name][events]).view(np.uint64)
            elif name in self._narrow:
                taken = taken.view(self._narrow[name]) if taken.itemsize == 8 else taken
            bits = pa.py_buffer(np.packbits(valid, bitorder="little"))
            kind = pa.int32() if name in self._texts else pa.from_numpy_dtype(taken.dtype)
            made = pa.Array.from_buffers(kind, count, [bits, pa.py_buffer(taken)])
            if name in self._texts:
                made = pa.DictionaryArray.from_arrays(made, pa.array(list(self._texts[name])))
            arrays[name] = made
        schema = batch_schema()
        columns = [arrays[f.name] if f.name in arrays else pa.nulls(count, f.type) for f in schema]
        return pa.RecordBatch.from_arrays(columns, schema=schema)

    # -- pieces ------------------------------------------------------------------------------------

    def _of(self, call: Call, thread: Thread) -> list[tuple[int, int]]:
        """A call's pieces: number, and where it is from the call's address."""
        vmm = thread.vmm
        key = (
            vmm.tid, call.op, call.size, call.value, call.space, call.ret, _region(call, vmm),
            thread.tid if call.op in _PER_THREAD else call.at if call.op in _IN_PLACE else 0,
            tuple((at - call.at, size) for at, size in call.parts),
        )  # fmt: skip
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = self._split(call, thread)
        return known

    def _split(self, call: Call, thread: Thread) -> list[tuple[int, int]]:
        if call.op is not Op.UNMAP or len(call.parts) <= 1:
            return [(self._piece(rows(call, thread.vmm, thread.tid), call.at), 0)]
        # Head with the first entry, the other entries, tail.
        whole = list(rows(replace(call, parts=call.parts[:1]), thread.vmm, thread.tid))
        cut = next(i for i, row in enumerate(whole) if row.event == "iommu.unmap")
        cut += thread.vmm.domains
        out = [(self._piece(whole[:cut], call.at), 0)]
        for at, size in call.parts[1:]:
            said = {"iova": at, "size": size, "unmapped": size}
            one = [Row("iommu.unmap", "unmap more", said, ("iova",))] * thread.vmm.domains
            out.append((self._piece(one, at), at - call.at))
        out.append((self._piece(whole[cut:], call.at), 0))
        return out

    def _piece(self, made: Any, at: int) -> int:
        """The number of a piece; ``at`` is what its moving columns are counted from."""
        relative = []
        for row in made:
            columns = {
                name: value - at if name in row.moves else value
                for name, value in row.columns.items()
            }
            relative.append(row._replace(columns=columns))
        key = ("piece", *((r.event, r.gap, tuple(r.columns.items()), r.moves) for r in relative))
        if key not in self._known:
            self._known[key] = [(len(self._lengths), 0)]
            self._lengths.append(len(relative))
            self._rows += relative
        return self._known[key][0][0]

    def _build(self) -> None:
        """Arrays of what the pieces hold, anew when there are more of them."""
        if self._built == len(self._rows):
            return
        self._built = len(self._rows)
        self._length = np.array(self._lengths, np.int64)
        self._first = np.cumsum(self._length) - self._length
        for row in self._rows:
            self._events.setdefault(row.event, len(self._events))
            self._gaps.setdefault(row.gap, len(self._gaps))
        self._kind = np.array([self._events[r.event] for r in self._rows], np.int32)
        self._names = pa.array(list(self._events), pa.utf8())
        self._crossing = np.zeros(len(self._rows), np.int8)
        for number, row in enumerate(self._rows):
            if row.event == "kvm.userspace_exit":
                self._crossing[number + 1] = 1
            elif row.event == "ioctl.entered" and row.columns["cmd"] == RUN:
                self._crossing[number] = 2
        self._sources = pa.array([SOURCES[e] for e in self._events], pa.utf8())
        if len(self._gap_times) < len(self._gaps):
            self._gap_times = gap_table(list(self._gaps), self._guest_ns)
        steps = self._gap_times.shape[1]
        self._gap_of = np.array([self._gaps[r.gap] * steps for r in self._rows], np.int64)
        self._tids = np.array([t.tid for t in self.threads], np.int32)
        self._cpus = np.array([t.cpu for t in self.threads], np.int32)
        comms = list(dict.fromkeys(t.comm for t in self.threads))
        self._comms = pa.array(comms, pa.utf8())
        self._comm_of = np.array([comms.index(t.comm) for t in self.threads], np.int32)
        self._columns()

    def _columns(self) -> None:
        self._values: dict[str, Any] = {}
        self._valid: dict[str, npt.NDArray[np.bool_]] = {}
        self._moves: dict[str, I64] = {}
        self._narrow: dict[str, Any] = {}
        for column in _PAYLOAD:
            said = [r.columns.get(column.name) for r in self._rows]
            valid = np.array([v is not None for v in said])
            if not valid.any():
                continue
            name = column.name
            self._valid[name] = valid
            if column.type is ColumnType.TEXT:
                texts = self._texts.setdefault(name, {})
                numbers = [texts.setdefault(v, len(texts)) if v is not None else 0 for v in said]
                self._values[name] = np.array(numbers, np.int32)
                continue
            wide = np.array([(v or 0) & _MASK for v in said], np.uint64).view(np.int64)
            moves = np.array([name in r.moves for r in self._rows], np.int64)
            if moves.any():
                self._values[name], self._moves[name] = wide, moves
            else:
                self._values[name] = wide.astype(_NUMPY[column.type])
                self._narrow[name] = _NUMPY[column.type]


def _region(call: Call, vmm: Vmm) -> int:
    return vmm.regions.index(vmm.region_at(call.at))
