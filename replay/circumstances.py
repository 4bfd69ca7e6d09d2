"""What else the trace says about a violation: device faults on its pages (D17), read-only slots
(D16).

Looked up afterwards, and only in traces that hold such events.  Nothing here decides a verdict.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from replay.checks.violations import Violation
from replay.engine.columns import numbers
from tracekit.findings import EvidenceRow

if TYPE_CHECKING:
    from replay.checkpoint.continued import ContinuedTrace

__all__ = ("Circumstances", "faults_of", "maps_of", "slots_of")

SLOT_COMMANDS = (0x4020AE46, 0x40A0AE49)
MAP_COMMANDS = (0x3B71,)
READ_ONLY = 2
WRITE = 2
MOST_FAULTS = 3
"""Faults that are shown of one violation."""


def faults_of(trace: ContinuedTrace) -> pa.Table:
    """The faults of devices whose address is known: seq, ts_ns, iova, name."""
    columns = ("seq", "ts_ns", "iova", "name")
    return trace.of_type("iommu.fault", columns, lambda batch: batch.column("iova").is_valid())


def slots_of(trace: ContinuedTrace) -> pa.Table:
    """The calls that make slots which the guest may only read: seq, id, gpa, size."""
    columns = ("seq", "id", "gpa", "size")
    return _calls(trace, "kvm.vm_ioctl", columns, SLOT_COMMANDS, READ_ONLY)


def maps_of(trace: ContinuedTrace) -> pa.Table:
    """The calls that map memory to which the device may write: seq, iova, size."""
    return _calls(trace, "vfio.type1_ioctl", ("seq", "iova", "size"), MAP_COMMANDS, WRITE)


def _calls(
    trace: ContinuedTrace,
    name: str,
    columns: Sequence[str],
    commands: Collection[int],
    flag: int,
) -> pa.Table:
    """Those of the calls that have the flag, and of which all of the columns are known."""

    def keep(batch: pa.RecordBatch) -> pa.Array:
        command, flags = (numbers(batch.column(c)) for c in ("cmd", "flags"))
        good = np.isin(command, list(commands)) & ((flags & flag) > 0)
        for column in columns:
            good &= np.asarray(batch.column(column).is_valid())
        return pa.array(good)

    table = trace.of_type(name, (*columns, "cmd", "flags"), keep)
    return table.select(list(columns))


class Circumstances:
    """Faults and read-only slots of a trace, once they are asked for."""

    def __init__(self, trace: ContinuedTrace) -> None:
        events = trace.manifest.events
        self._faults: pa.Table | None = None
        if events.get("iommu.fault"):
            self._faults = faults_of(trace)
            self._times = self._faults.column("ts_ns").to_numpy()
            self._places = self._faults.column("iova").to_numpy()
        self._slots: list[dict[str, Any]] = []
        self._maps: list[dict[str, Any]] = []
        if events.get("kvm.vm_ioctl") and events.get("vfio.type1_ioctl"):
            self._slots = slots_of(trace).to_pylist()
            self._maps = maps_of(trace).to_pylist() if self._slots else []

    def added(self, v: Violation) -> Violation:
        """The violation with what else is known of its pages."""
        if v.address is None or not v.size:
            return v
        lo, hi = v.address, v.address + v.size
        chain = _in_order([*v.chain, *self._faults_in(lo, hi, v)])
        return replace(v, chain=tuple(chain), notes=(*v.notes, *self._read_only(lo, hi, v)))

    def _faults_in(self, lo: int, hi: int, v: Violation) -> list[EvidenceRow]:
        if self._faults is None:
            return []
        first = int(np.searchsorted(self._times, v.from_ns))
        last = len(self._times)
        if v.until_ns is not None:
            last = int(np.searchsorted(self._times, v.until_ns, "right"))
        at = self._places[first:last]
        inside = (at >= max(lo, 0)) & (at <= min(hi, 1 << 64) - 1)
        found = self._faults.take(pa.array(first + np.flatnonzero(inside)[:MOST_FAULTS]))
        return [
            EvidenceRow(
                ts_ns=f["ts_ns"],
                seq=f["seq"],
                what="fault",
                text=f"fault    device {f['name'] or '?'} at {f['iova']:#x}",
                address=f["iova"],
                size=1,
            )
            for f in found.to_pylist()
        ]

    def _read_only(self, lo: int, hi: int, v: Violation) -> list[str]:
        before = max(v.seqs)
        for slot in self._slots:
            a, b = max(lo, slot["gpa"]), min(hi, slot["gpa"] + slot["size"])
            if a >= b or slot["seq"] > before:
                continue
            for call in self._maps:
                if call["seq"] <= before and call["iova"] < b and a < call["iova"] + call["size"]:
                    return [
                        f"slot {slot['id'] & 0xFFFF} is read-only for the guest, and the device may"
                        f" write to it (event #{call['seq']})"
                    ]
        return []


def _in_order(rows: Sequence[EvidenceRow]) -> list[EvidenceRow]:
    """By time; what never came stays where it was, before the end."""
    dated = sorted((r for r in rows if r.ts_ns is not None and r.what != "end"), key=_time)
    rest = [r for r in rows if r.ts_ns is None or r.what == "end"]
    return [*dated, *rest]


def _time(row: EvidenceRow) -> int:
    assert row.ts_ns is not None
    return row.ts_ns
