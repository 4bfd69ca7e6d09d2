"""What else a trace says of a violation: faults (D17) are evidence, read-only slots (D16) notes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from judging import events_of, judge
from trace_language import trace_of

from replay import run
from tracekit.store import open_trace, write_events

HOST = """
    0us    vmm  create-vm
    1us    vmm  memory
    2us    vmm  set-iommu
"""
STALE = """
    5us    vmm  map      0x0+64K
    10us   vmm  private  0x0+64K
    30us   vmm  run
"""


def test_a_fault_on_the_stale_pages_is_in_the_evidence(tmp_path: Path) -> None:
    text = HOST + STALE + "    40us   vmm  fault 0x3000+4K\n    50us   vmm  unmap 0x0+64K\n"
    (finding,) = judge(text, tmp_path)["TK101"].findings
    whats = [row.what for row in finding.occurrences[0].chain]
    assert whats == ["map", "private", "run", "fault", "unmap"]


def test_a_fault_elsewhere_or_after_the_unmap_is_not(tmp_path: Path) -> None:
    later = "    40us   vmm  fault 0x90000+4K\n    50us   vmm  unmap 0x0+64K\n"
    text = HOST + STALE + later + "    60us   vmm  fault 0x3000+4K\n"
    (finding,) = judge(text, tmp_path)["TK101"].findings
    assert "fault" not in [row.what for row in finding.occurrences[0].chain]


def test_a_fault_whose_address_nobody_recorded_is_none_of_any_page(tmp_path: Path) -> None:
    text = HOST + STALE + "    40us   vmm  fault 0x3000+4K\n    50us   vmm  unmap 0x0+64K\n"
    events = [replace(e, iova=None) if e.name_ == "iommu.fault" else e for e in events_of(text)]
    write_events(tmp_path / "t.parquet", events)
    (finding,) = run(open_trace(tmp_path / "t.parquet"), only=["TK101"]).findings
    assert "fault" not in [row.what for row in finding.occurrences[0].chain]


def test_a_device_that_may_write_to_a_read_only_slot_is_a_note(tmp_path: Path) -> None:
    slot = "    3us    vmm  slot 0 0x0+1M flags=2\n"
    (finding,) = judge(HOST + slot + STALE, tmp_path)["TK101"].findings
    assert finding.notes == (
        "slot 0 is read-only for the guest, and the device may write to it"
        f" (event #{call_of(HOST + slot + STALE)})",
    )
    writable = HOST + slot.replace("flags=2", "") + STALE
    (finding,) = judge(writable, tmp_path)["TK101"].findings
    assert finding.notes == ()
    read = HOST + slot + STALE.replace("0x0+64K\n    10us", "0x0+64K flags=1\n    10us")
    (finding,) = judge(read, tmp_path)["TK101"].findings
    assert finding.notes == ()


def call_of(text: str) -> int:
    """The number of the row that tells the map's arguments."""
    return next(int(r["seq"]) for r in trace_of(text) if r["event"] == "vfio.type1_ioctl")
