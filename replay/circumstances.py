"""What else the trace says about a violation: device faults on its pages (D17), read-only slots
(D16).

Looked up afterwards, and only in traces that hold such events.  Nothing here decides a verdict.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from replay.checks.violations import Violation
from tracekit.errors import TraceFormatError
from tracekit.findings import EvidenceRow

if TYPE_CHECKING:
    import polars as pl

    from tracekit.store import Trace

__all__ = ("Circumstances",)

SLOT_COMMANDS = (0x4020AE46, 0x40A0AE49)
MAP_COMMAND = 0x3B71
READ_ONLY = 2
WRITE = 2
MOST_FAULTS = 3
"""Faults that are shown of one violation."""


class Circumstances:
    """Faults and read-only slots of a trace, once they are asked for."""

    def __init__(self, trace: Trace) -> None:
        events = trace.manifest.events
        self._faults: list[dict[str, Any]] = []
        if events.get("iommu.fault"):
            frame = trace.events("iommu.fault").select("seq", "ts_ns", "iova", "name", "flags")
            self._faults = _rows(frame, trace)
        self._slots: list[dict[str, Any]] = []
        self._maps: list[dict[str, Any]] = []
        if events.get("kvm.vm_ioctl") and events.get("vfio.type1_ioctl"):
            self._find_slots(trace)

    def _find_slots(self, trace: Trace) -> None:
        import polars as pl

        calls = trace.events("kvm.vm_ioctl").filter(
            pl.col("cmd").is_in(SLOT_COMMANDS) & (pl.col("flags") & READ_ONLY > 0)
        )
        self._slots = _rows(calls.select("seq", "id", "gpa", "size").drop_nulls(), trace)
        if self._slots:
            maps = trace.events("vfio.type1_ioctl").filter(
                (pl.col("cmd") == MAP_COMMAND) & (pl.col("flags") & WRITE > 0)
            )
            self._maps = _rows(maps.select("seq", "iova", "size").drop_nulls(), trace)

    def added(self, v: Violation) -> Violation:
        """The violation with what else is known of its pages."""
        if v.address is None or not v.size:
            return v
        lo, hi = v.address, v.address + v.size
        chain = _in_order([*v.chain, *self._faults_in(lo, hi, v)]) if self._faults else v.chain
        return replace(v, chain=tuple(chain), notes=(*v.notes, *self._read_only(lo, hi, v)))

    def _faults_in(self, lo: int, hi: int, v: Violation) -> list[EvidenceRow]:
        found = [
            f
            for f in self._faults
            if lo <= f["iova"] < hi
            and f["ts_ns"] >= v.from_ns
            and (v.until_ns is None or f["ts_ns"] <= v.until_ns)
        ]
        return [
            EvidenceRow(
                ts_ns=f["ts_ns"],
                seq=f["seq"],
                what="fault",
                text=f"fault    device {f['name'] or '?'} at {f['iova']:#x}",
                address=f["iova"],
                size=1,
            )
            for f in found[:MOST_FAULTS]
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


def _rows(frame: pl.LazyFrame, trace: Trace) -> list[dict[str, Any]]:
    """The frame's rows.

    :raises TraceFormatError: pages that Arrow reads and polars does not
    """
    import polars as pl

    try:
        return frame.collect().to_dicts()
    except pl.exceptions.PolarsError as why:
        said = str(why).splitlines()[0][:200]
        raise TraceFormatError(f"{trace.path}: a page cannot be read: {said}") from None


def _in_order(rows: Sequence[EvidenceRow]) -> list[EvidenceRow]:
    """By time; what never came stays where it was, before the end."""
    dated = sorted((r for r in rows if r.ts_ns is not None and r.what != "end"), key=_time)
    rest = [r for r in rows if r.ts_ns is None or r.what == "end"]
    return [*dated, *rest]


def _time(row: EvidenceRow) -> int:
    assert row.ts_ns is not None
    return row.ts_ns
