"""Processes in a trace that act as a virtual machine monitor, and how often they did what."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import reduce

import numpy as np
import pyarrow as pa

from replay.engine.columns import nulls, numbers
from tracekit.store import Trace

__all__ = ("Vmm", "find_vmms")

_ACTS = {
    0xAE01: "KVM_CREATE_VM",
    0xAE80: "KVM_RUN",
    0x4020AED2: "conversions",
    0x3B71: "DMA maps",
    0x3B85: "DMA maps",
    0x3B8F: "DMA maps",
    0x3B72: "DMA unmaps",
    0x3B86: "DMA unmaps",
}
_CALLS = (
    "ioctl.entered",
    "ioctl.arguments",
    "kvm.vm_ioctl",
    "vfio.type1_ioctl",
    "vfio.container_ioctl",
    "iommufd.ioctl",
)
_COMMANDS = np.array(sorted(_ACTS))
_COLUMNS = ("event", "cmd", "pid", "tid", "comm")

_Who = tuple[int | None, int | None]
"""A process, or a thread that is not known to be of one."""
_NOTHING, _THREAD, _PROCESS = range(3)


@dataclass(kw_only=True)
class Vmm:
    """One process, or one thread where the recording shows no processes (``pid`` null)."""

    pid: int | None
    tid: int | None
    name: str | None
    acts: dict[str, int] = field(default_factory=dict)


def find_vmms(trace: Trace) -> list[Vmm]:
    """Who made KVM, VFIO or iommufd calls, busiest first.  Reads the trace once."""
    counts: Counter[tuple[_Who, str, int]] = Counter()
    names: dict[_Who, str | None] = {}
    for batch in trace.batches(_COLUMNS):
        _count(batch, counts, names)
    return _summed(counts, names)


def _count(
    batch: pa.RecordBatch, counts: Counter[tuple[_Who, str, int]], names: dict[_Who, str | None]
) -> None:
    """Add a batch's calls.  Rows of one caller, event and command are counted as one number, of
    more bits each than they need."""
    events = batch.column("event")
    words = events.dictionary.to_pylist()
    sources = np.array([_CALLS.index(w) if w in _CALLS else -1 for w in words] or [-1])
    source = sources[events.indices.to_numpy()]
    command = numbers(batch.column("cmd"))
    rows = np.flatnonzero((source >= 0) & np.isin(command, _COMMANDS))
    if not len(rows):
        return
    who, known_by = np.zeros(len(rows), np.int64), np.full(len(rows), _NOTHING)
    for column, kind in (("tid", _THREAD), ("pid", _PROCESS)):
        array = batch.column(column)
        there = ~nulls(array)[rows] if array.null_count else np.ones(len(rows), bool)
        who[there], known_by[there] = numbers(array)[rows][there], kind
    parts = (who, known_by, source[rows], np.searchsorted(_COMMANDS, command[rows]))
    key = reduce(lambda all_, part: all_ << 8 | part, parts)
    _, first, many = np.unique(key, return_index=True, return_counts=True)
    for at, n in sorted(zip(first.tolist(), many.tolist(), strict=True)):
        row, number, kind = int(rows[at]), int(who[at]), known_by[at]
        caller = (number if kind == _PROCESS else None, number if kind == _THREAD else None)
        counts[caller, _CALLS[source[row]], int(command[row])] += n
        names.setdefault(caller, batch.column("comm")[row].as_py())


def _summed(counts: Counter[tuple[_Who, str, int]], names: dict[_Who, str | None]) -> list[Vmm]:
    """One call shows in several sources: the source that saw most of a command counts."""
    most: dict[tuple[_Who, int], int] = {}
    for (who, _, command), n in counts.items():
        most[who, command] = max(n, most.get((who, command), 0))
    found = {who: Vmm(pid=who[0], tid=who[1], name=name) for who, name in names.items()}
    for (who, command), n in most.items():
        acts = found[who].acts
        acts[_ACTS[command]] = acts.get(_ACTS[command], 0) + n
    return sorted(found.values(), key=lambda v: -sum(v.acts.values()))
