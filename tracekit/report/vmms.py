"""Processes in a trace that act as a virtual machine monitor, and how often they did what."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

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
_COLUMNS = ("event", "cmd", "pid", "tid", "comm")


@dataclass(kw_only=True)
class Vmm:
    """One process, or one thread where the recording shows no processes (``pid`` null)."""

    pid: int | None
    tid: int | None
    name: str | None
    acts: dict[str, int] = field(default_factory=dict)


def find_vmms(trace: Trace) -> list[Vmm]:
    """Who made KVM, VFIO or iommufd calls, busiest first.  Reads the trace once."""
    counts: Counter[tuple[int | None, int | None, str, int]] = Counter()
    names: dict[tuple[int | None, int | None], str] = {}
    for batch in trace.batches(_COLUMNS):
        events = batch.column("event")
        words = events.dictionary.to_pylist()
        calls = np.isin(events.indices.to_numpy(), [words.index(c) for c in _CALLS if c in words])
        commands = batch.column("cmd").fill_null(0).to_numpy().astype(np.int64)
        for row in batch.filter(pa.array(calls & np.isin(commands, list(_ACTS)))).to_pylist():
            who = (row["pid"], row["tid"] if row["pid"] is None else None)
            counts[*who, row["event"], row["cmd"]] += 1
            names.setdefault(who, row["comm"])
    return _summed(counts, names)


def _summed(
    counts: Counter[tuple[int | None, int | None, str, int]],
    names: dict[tuple[int | None, int | None], str],
) -> list[Vmm]:
    """One call shows in several sources: the source that saw most of a command counts."""
    most: dict[tuple[int | None, int | None, int], int] = {}
    for (pid, tid, _, command), n in counts.items():
        key = (pid, tid, command)
        most[key] = max(n, most.get(key, 0))
    found = {who: Vmm(pid=who[0], tid=who[1], name=name) for who, name in names.items()}
    for (pid, tid, command), n in most.items():
        acts = found[pid, tid].acts
        acts[_ACTS[command]] = acts.get(_ACTS[command], 0) + n
    return sorted(found.values(), key=lambda v: -sum(v.acts.values()))
