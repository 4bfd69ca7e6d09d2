"""A fleet of small made traces over several nights, and what an audit must say of each."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from matrix.judge import SMALL

from tracekit.store import Manifest, TraceWriter, open_trace
from tracekit.store.schema import batch_schema
from tracekit.synth.defects import Defects
from tracekit.synth.generate import generate

__all__ = ("NIGHTS", "Member", "full_fleet", "make_fleet", "small_fleet", "write_config")

NIGHTS = ("2026-11-20", "2026-11-21", "2026-11-22")
WORKLOADS = ("dma-ring", "mixed-sizes", "parallel-vcpus", "two-vms")
FAULTS = (
    ("missing-unmap", "dma-ring"),
    ("truncated-unmap", "dma-ring"),
    ("wrong-side-to-private", "mixed-sizes"),
    ("map-before-commit", "dma-ring"),
    ("missing-map", "mixed-sizes"),
    ("missing-unmap", "parallel-vcpus"),
)
"""Planted in turn, each where it can happen."""
KERNELS = ("6.12.95", "7.3.4")
QEMUS = ("10.1.2", "11.0.0")


@dataclass(frozen=True)
class Member:
    """One VM of the fleet.  ``faulty``: nights on which its fault happens, by number."""

    number: int
    fault: str | None = None
    workload: str = WORKLOADS[0]
    faulty: tuple[int, ...] = ()
    lossy: bool = False
    corrupt: tuple[int, ...] = ()
    absent: tuple[int, ...] = ()

    @property
    def host(self) -> str:
        return f"host-{self.number // 3:02}"

    @property
    def stream(self) -> str:
        return f"vm-{self.number:02}"

    def kind(self, night: int) -> str:
        """What a night's audit must make of it."""
        if night in self.absent:
            return "missing"
        if night in self.corrupt:
            return "bad"
        return "violated" if night in self.faulty else "held"


def full_fleet() -> list[Member]:
    """Sixty: 12 with faults on the last night, 6 lossy, 2 corrupt."""
    out = []
    for i in range(14):
        fault, workload = FAULTS[i % len(FAULTS)]
        # Eight are faulty always; two only since tonight, two again tonight, two no longer.
        nights = ((0, 1, 2), (2,), (0, 2), (0, 1))[0 if i < 8 else (i - 8) // 2 + 1]
        out.append(Member(i, fault, workload, faulty=nights))
    out += [Member(i, workload=WORKLOADS[i % 4], lossy=True) for i in range(14, 20)]
    out += [Member(20, corrupt=(0, 1, 2)), Member(21, workload="mixed-sizes", corrupt=(2,))]
    return out + [Member(i, workload=WORKLOADS[i % 4]) for i in range(22, 60)]


def small_fleet() -> list[Member]:
    """One of each kind."""
    return [
        Member(0, *FAULTS[0], faulty=(0, 1, 2)),
        Member(1, *FAULTS[1], faulty=(2,)),
        Member(2, *FAULTS[4], faulty=(0, 2)),
        Member(3, *FAULTS[5], faulty=(0, 1)),
        Member(4, lossy=True),
        Member(5, corrupt=(2,)),
        Member(6, workload="two-vms"),
        Member(7, workload="mixed-sizes", absent=(2,)),
        Member(8, *FAULTS[0], faulty=(0, 1, 2), corrupt=(1,)),
    ]


def make_fleet(folder: Path, members: list[Member], nights: int = 3) -> Path:
    """Write everybody's traces; the folder above ``host=``."""
    for member in members:
        for night in range(nights):
            if night not in member.absent:
                _make(folder, member, night)
    return folder


def place_of(folder: Path, member: Member, night: int) -> Path:
    """Where a member's trace of a night is."""
    qemu = QEMUS[member.number % 2]
    day = folder / f"host={member.host}" / f"date={NIGHTS[night]}"
    return day / f"qemu={qemu}" / f"vm={member.stream}" / "trace.parquet"


def write_config(path: Path, sources: str, **tables: Mapping[str, object]) -> Path:
    """An ``audit.toml``; values as they stand in TOML."""
    lines = ['name = "nightly"', "[[sources]]", f'root = "{sources}"']
    for name, keys in tables.items():
        lines += [f"[{name}]", *(f"{key} = {_toml(value)}" for key, value in keys.items())]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return f'"{value}"' if isinstance(value, str) else str(value).replace("'", '"')


def _make(folder: Path, member: Member, night: int) -> None:
    out = place_of(folder, member, night)
    out.parent.mkdir(parents=True)
    fault = member.fault if night in member.faulty else None
    made = folder / f".made-{os.getpid()}.parquet"
    generate(
        member.workload, made, seed=member.number, events=1000 if member.lossy else 300,
        fault=fault, parameters=SMALL.get(member.workload),
        defects=Defects(seed=night, lose=0.1) if member.lossy else None,
    )  # fmt: skip
    _of_host(made, out, member)
    if night in member.corrupt:
        # In the pages, not in the footer: it opens, and breaks off.
        whole = bytearray(out.read_bytes())
        whole[len(whole) // 4 : len(whole) // 4 + 64] = bytes(64)
        out.write_bytes(whole)


def _of_host(made: Path, out: Path, member: Member) -> None:
    """The trace as recorded on the member's host."""
    trace = open_trace(made)
    schema = batch_schema()
    with TraceWriter(out) as writer:
        for batch in trace.batches(schema.names):
            writer.write(batch)
        manifest = trace.manifest
        writer.finish(
            Manifest(
                host=member.host,
                kernel=KERNELS[member.number % 2],
                machine=manifest.machine,
                cpus=manifest.cpus,
                recorded=manifest.recorded,
                lost_events=manifest.lost_events,
                loss_marks=manifest.loss_marks,
            )
        )
    made.unlink()
    shutil.rmtree(made.with_suffix(".truth.json"), ignore_errors=True)
    for left in made.parent.glob(f"{made.name}*"):
        left.unlink()
