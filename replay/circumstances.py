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
        self._faults: pl.DataFrame | None = None
        if events.get("iommu.fault"):
            frame = trace.events("iommu.fault").select("seq", "ts_ns", "iova", "name")
            self._faults = _collected(frame.drop_nulls("iova"), trace)
        self._slots: list[dict[str, Any]] = []
        self._maps: list[dict[str, Any]] = []
        if events.get("kvm.vm_ioctl") and events.get("vfio.type1_ioctl"):
            self._find_slots(trace)

    def _find_slots(self, trace: Trace) -> None:
        import polars as pl

        calls = trace.events("kvm.vm_ioctl").filter(
            pl.col("cmd").is_in(SLOT_COMMANDS) & (pl.col("flags") & READ_ONLY > 0)
        )
        chosen = calls.select("seq", "id", "gpa", "size").drop_nulls()
        self._slots = _collected(chosen, trace).to_dicts()
        if self._slots:
            maps = trace.events("vfio.type1_ioctl").filter(
                (pl.col("cmd") == MAP_COMMAND) & (pl.col("flags") & WRITE > 0)
            )
            chosen = maps.select("seq", "iova", "size").drop_nulls()
            self._maps = _collected(chosen, trace).to_dicts()

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
        ts = self._faults["ts_ns"]
        first = ts.search_sorted(v.from_ns)
        last = len(ts) if v.until_ns is None else ts.search_sorted(v.until_ns, "right")
        during = self._faults.slice(first, max(last - first, 0))
        at = during["iova"]
        found = during.filter((at >= max(lo, 0)) & (at <= min(hi, 1 << 64) - 1)).head(MOST_FAULTS)
        return [
            EvidenceRow(
                ts_ns=f["ts_ns"],
                seq=f["seq"],
                what="fault",
                text=f"fault    device {f['name'] or '?'} at {f['iova']:#x}",
                address=f["iova"],
                size=1,
            )
            for f in found.iter_rows(named=True)
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


def _collected(frame: pl.LazyFrame, trace: Trace) -> pl.DataFrame:
    """The frame.

    :raises TraceFormatError: pages that Arrow reads and polars does not
    """
    import polars as pl

    try:
        return frame.collect()
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
