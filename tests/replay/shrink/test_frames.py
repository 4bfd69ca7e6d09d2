"""Frames: a call with all that is nested in it."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
from trace_language import trace_of

from replay.shrink.frames import COLUMNS, frames_of
from tracekit.store import arrow_schema


def batch_of(rows: list[dict[str, Any]]) -> pa.RecordBatch:
    schema = arrow_schema()
    columns = [pa.array([row.get(c) for row in rows], schema.field(c).type) for c in COLUMNS]
    return pa.RecordBatch.from_arrays(columns, names=list(COLUMNS))


def grouped(rows: list[dict[str, Any]]) -> list[list[str]]:
    """The events of each frame."""
    frames: dict[int, list[str]] = {}
    for row, frame in zip(rows, frames_of([batch_of(rows)]).tolist(), strict=True):
        frames.setdefault(frame, []).append(row["event"])
    return list(frames.values())


def row(event: str, tid: int | None = 1, **columns: Any) -> dict[str, Any]:
    return {"event": event, "tid": tid, **columns}


def test_a_call_holds_what_happens_on_its_thread_until_it_returns() -> None:
    assert grouped(
        [
            row("ioctl.entered", cmd=1),
            row("ioctl.entered", tid=2, cmd=2),
            row("iommu.map"),
            row("ioctl.returned"),
            row("iommu.unmap"),
            row("ioctl.returned", tid=2),
        ]
    ) == [
        ["ioctl.entered", "iommu.map", "ioctl.returned"],
        ["ioctl.entered", "ioctl.returned"],
        ["iommu.unmap"],
    ]


def test_a_call_whose_return_is_missing_ends_before_the_next_one() -> None:
    rows = [row("ioctl.entered"), row("iommu.map"), row("madvise.entered"), row("kvm.entry")]
    assert grouped(rows) == [
        ["ioctl.entered", "iommu.map"],
        ["madvise.entered"],
        ["kvm.entry"],
    ]


def test_a_probe_on_the_entry_belongs_to_the_call_on_whichever_side_of_it_it_fires() -> None:
    one = [row("ioctl.arguments", cmd=7), row("ioctl.entered", cmd=7), row("ioctl.returned")]
    two = [row("ioctl.entered", cmd=7), row("ioctl.arguments", cmd=7), row("ioctl.returned")]
    assert [len(f) for f in grouped(one + two + one)] == [3, 3, 3]


def test_calls_of_which_only_the_probe_on_the_entry_tells_are_frames() -> None:
    rows = [row("ioctl.arguments", cmd=7), row("iommu.map"), row("ioctl.arguments", cmd=7)]
    assert [len(f) for f in grouped(rows)] == [2, 1]


def test_without_system_calls_a_probed_function_is_the_frame_and_nests() -> None:
    rows = [
        row("vsock.release"),
        row("vsock.transport_release"),
        row("vsock.linger"),
        row("vsock.lingered"),
        row("vsock.transport_released"),
        row("vsock.released"),
        row("vsock.packet_received"),
    ]
    assert [len(f) for f in grouped(rows)] == [6, 1]


def test_interrupts_losses_and_qemus_lines_are_no_part_of_a_call() -> None:
    rows = [
        row("ioctl.entered"),
        row("vsock.packet_received", context=0x10),
        row("trace.lost", tid=None),
        row("qemu.convert_memory"),
        row("ioctl.returned"),
    ]
    assert [len(f) for f in grouped(rows)] == [2, 1, 1, 1]


def test_cut_anywhere_into_batches_the_frames_are_the_same() -> None:
    rows = trace_of("""
        0us  vmm   set-iommu
        3us  vmm   map 0x100000+16K each=4K for=9us
        4us  vmm2  private 0x100000+16K for=20us
        6us  vmm   vclose for=9us
        9us  vmm3  run
    """)
    whole = frames_of([batch_of(rows)]).tolist()
    for at in range(1, len(rows)):
        assert frames_of([batch_of(rows[:at]), batch_of(rows[at:])]).tolist() == whole
