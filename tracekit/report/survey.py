"""One pass over a trace for its pictures: what happened how often, where, and what was lost.

Memory does not grow with the trace: counts go into a fixed number of steps of time, addresses
into a bounded list of ranges.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from tracekit.store import Trace

__all__ = ("STEPS", "Loss", "Ranges", "Survey", "survey")

STEPS = 400
"""Steps of time that the rates are counted in."""
_MOST_LOSSES = 500
_PAGE_BITS = 12
_TOP = 1 << 52
"""An address at or above it is no address that a machine has."""
_COLUMNS = ("ts_ns", "event", "iova", "gpa", "size", "attributes", "cmd", "count", "until_ns")
_ATTRIBUTES = 0x4020AED2
_MAPS = (0x3B71, 0x3B85, 0x3B8F)
_UNMAPS = (0x3B72, 0x3B86)
_MAP_CALLS = ("vfio.type1_ioctl", "iommufd.ioctl")
_PRIVATE = 8


@dataclass(frozen=True, kw_only=True)
class Loss:
    """Events that are missing between two times; ``count`` null: nobody counted them."""

    from_ns: int
    until_ns: int
    count: int | None


class Ranges:
    """Pages that anything happened to, as at most ``most`` ranges; near ones become one."""

    def __init__(self, most: int = 4096) -> None:
        self._most = most
        self._lo = np.zeros(0, np.int64)
        self._hi = np.zeros(0, np.int64)

    def add(self, address: Any, size: Any) -> None:
        """Add byte ranges (int64 arrays of equal length); what is no sane range is left out."""
        sane = (address >= 0) & (size > 0) & (address < _TOP) & (size <= _TOP)
        lo = address[sane] >> _PAGE_BITS
        hi = (address[sane] + size[sane] + (1 << _PAGE_BITS) - 1) >> _PAGE_BITS
        if len(lo):
            self._merge(lo, hi)

    def pages(self, most: int) -> list[tuple[int, int]]:
        """The ranges as page numbers [lo, hi), in order, coarsened to at most ``most``."""
        lo, hi = _coarsened(self._lo, self._hi, most)
        return list(zip(lo.tolist(), hi.tolist(), strict=True))

    def _merge(self, lo: Any, hi: Any) -> None:
        lo, hi = np.concatenate([self._lo, lo]), np.concatenate([self._hi, hi])
        order = np.argsort(lo, kind="stable")
        lo, hi = lo[order], np.maximum.accumulate(hi[order])
        first = np.concatenate([[True], lo[1:] > hi[:-1]])
        last = np.concatenate([first[1:], [True]])
        self._lo, self._hi = _coarsened(lo[first], hi[last], self._most)


def _coarsened(lo: Any, hi: Any, most: int) -> tuple[Any, Any]:
    """The smallest gaps closed until at most ``most`` ranges are left."""
    if len(lo) <= most:
        return lo, hi
    gaps = lo[1:] - hi[:-1]
    kept = np.sort(np.argsort(gaps, kind="stable")[len(gaps) - (most - 1) :])
    return lo[np.concatenate([[0], kept + 1])], hi[np.concatenate([kept, [len(hi) - 1]])]


@dataclass(kw_only=True)
class Survey:
    """What a trace's pictures are scaled by.

    ``rates``: by name, events in each of :data:`STEPS` equal steps of [start_ns, end_ns].
    ``losses``: the first of them; ``more_losses`` counts the others.  ``touched``: pages that were
    converted or mapped; ``first_ns`` and ``last_ns``: when, or unmapped.
    """

    start_ns: int
    end_ns: int
    rates: dict[str, Any] = field(default_factory=dict)
    losses: list[Loss] = field(default_factory=list)
    more_losses: int = 0
    touched: Ranges = field(default_factory=Ranges)
    first_ns: int | None = None
    last_ns: int | None = None

    @property
    def active_ns(self) -> tuple[int, int]:
        """From shortly before the first such event until shortly after the last."""
        first = self.start_ns if self.first_ns is None else self.first_ns
        last = self.end_ns if self.last_ns is None else self.last_ns
        spare = max((last - first) // 50, 1_000_000)
        return max(self.start_ns, first - spare), min(self.end_ns, last + spare)

    @property
    def step_ns(self) -> float:
        return (self.end_ns - self.start_ns + 1) / STEPS


def survey(trace: Trace) -> Survey:
    """Read the whole trace once, a few columns of it.

    :raises TraceFormatError: the trace breaks off or is damaged
    """
    start, end = trace.manifest.span_ns or (0, 0)
    found = Survey(start_ns=start, end_ns=max(end, start))
    events = trace.manifest.events
    calls = _MAP_CALLS if any(events.get(c) for c in _MAP_CALLS) else ("ioctl.arguments",)
    attributes = "kvm.attributes" if events.get("kvm.attributes") else "kvm.vm_ioctl"
    if not events.get(attributes):
        attributes = "ioctl.arguments"
    for batch in trace.batches(_COLUMNS):
        if batch.num_rows:
            _count(found, batch, calls, attributes, by_kernel=bool(events.get("iommu.map")))
    return found


def _count(
    found: Survey, batch: pa.RecordBatch, calls: tuple[str, ...], attributes: str, by_kernel: bool
) -> None:
    words = batch.column(1).dictionary.to_pylist()
    indices = np.asarray(batch.column(1).indices)
    ts = np.asarray(batch.column(0))
    steps = np.clip(((ts - found.start_ns) / found.step_ns).astype(np.int64), 0, STEPS - 1)
    command = np.asarray(batch.column(6).fill_null(0)).astype(np.int64)
    size = _int64(batch.column(4))

    def of(*names: str) -> Any:
        return np.isin(indices, [words.index(n) for n in names if n in words])

    def add(name: str, rows: Any) -> None:
        if rows.any():
            have = found.rates.setdefault(name, np.zeros(STEPS, np.int64))
            have += np.bincount(steps[rows], minlength=STEPS)

    add("events", np.ones(len(ts), bool))
    changed = of(attributes)
    if attributes != "kvm.attributes":
        changed &= command == _ATTRIBUTES
    private = (_int64(batch.column(5)) & _PRIVATE) != 0
    add("to private", changed & private)
    add("to shared", changed & ~private)
    found.touched.add(_int64(batch.column(3))[changed], size[changed])
    if by_kernel:
        maps, unmaps = of("iommu.map"), of("iommu.unmap")
    else:
        asked = of(*calls)
        maps, unmaps = asked & np.isin(command, _MAPS), asked & np.isin(command, _UNMAPS)
    add("map", maps)
    add("unmap", unmaps)
    found.touched.add(_int64(batch.column(2))[maps], size[maps])
    acted = np.flatnonzero(changed | maps | unmaps)
    if len(acted):
        found.first_ns = int(ts[acted[0]]) if found.first_ns is None else found.first_ns
        found.last_ns = int(ts[acted[-1]])
    for i in np.flatnonzero(of("trace.lost")):
        row = batch.slice(int(i), 1).to_pylist()[0]
        if len(found.losses) == _MOST_LOSSES:
            found.more_losses += 1
            continue
        until = max(row["ts_ns"], row["until_ns"] or row["ts_ns"])
        found.losses.append(Loss(from_ns=row["ts_ns"], until_ns=until, count=row["count"]))


def _int64(array: pa.Array) -> Any:
    """Integers as int64; nulls become -1, and what has no int64 is negative."""
    values = array.fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
    if array.null_count:
        values[np.asarray(array.is_null())] = -1
    return values
