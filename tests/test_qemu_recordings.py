"""Real QEMU beside the kernel's trace: one order of time, and one account of what is mapped.

Ground truth is what QMP said at every step, with both clocks.  ``$TRACEKIT_TRACES`` names a folder
whose ``qemu/`` holds recordings; without it, the sample in tests/data/qemu.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from replay import run
from tracekit.importers import import_files
from tracekit.store import Manifest, open_trace

SAMPLE = Path(__file__).parent / "data" / "qemu"
NAMED = os.environ.get("TRACEKIT_TRACES")
FOLDER = Path(NAMED) / "qemu" if NAMED and (Path(NAMED) / "qemu").is_dir() else SAMPLE

PAGE = 4096
REGION = range(1 << 32, (1 << 32) + (256 << 20))
"""Where the virtio-mem device has its memory: memaddr of the recordings' `info memory-devices`."""
BLOCK = 2 << 20
DMA_MAPS, DMA_UNMAPS = (0x3B71, 0x3B85, 0x3B8F), (0x3B72, 0x3B86)
PLUG, UNPLUG, RESPONSE, ALL_UNPLUGGED = 0, 1, 16, 18
ACK = 0

Rows = list[dict[str, Any]]


@dataclass(frozen=True)
class Recorded:
    """A recording of the kernel and of QEMU, imported as one trace."""

    name: str
    truth: dict[str, Any]
    manifest: Manifest
    path: Path

    @property
    def steps(self) -> list[tuple[int, int, bool]]:
        """Each settled step: when, the plugged size by QMP, and whether a device is there."""
        found, present = [], True
        for step in self.truth["steps"]:
            if step.get("qmp") in ("device_del", "device_add"):
                present = step["qmp"] == "device_add"
            if "virtio_mem_size" in step:
                found.append((step["mono_ns"], step["virtio_mem_size"], present))
        return found

    @cached_property
    def rows(self) -> Rows:
        table = pq.read_table(self.path)
        wanted = ("iommu.map", "iommu.unmap", "ioctl.arguments", "qemu.virtio_mem")
        chosen = pc.is_in(pc.cast(table["event"], "string"), pc.cast(list(wanted), "string"))
        return table.filter(chosen).to_pylist()


def names() -> list[str]:
    return sorted(p.name.removesuffix(".truth.json") for p in FOLDER.glob("*.truth.json"))


def with_simpletrace() -> list[Any]:
    """Recordings with both of QEMU's traces; the sample has none."""
    found = [n for n in names() if (FOLDER / f"{n}.simpletrace.bin").exists()]
    reason = "TRACEKIT_TRACES names no folder with a recording of both QEMU traces"
    return found or [pytest.param("none", marks=pytest.mark.skip(reason=reason))]


@pytest.fixture(scope="module", params=names())
def recorded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    out = tmp_path_factory.mktemp("qemu") / "t.parquet"
    name: str = request.param
    files = [FOLDER / f"{name}.trace.dat", FOLDER / f"{name}.qemu.log.gz"]
    manifest = import_files(files, out, probes=FOLDER / "dynamic_events-qemu.txt")
    truth = json.loads((FOLDER / f"{name}.truth.json").read_text())
    return Recorded(name, truth, manifest, out)


def plain(path: Path) -> pa.Table:
    """A trace's rows without their numbers, texts as text."""
    table = pq.read_table(path).drop_columns("seq").combine_chunks()
    texts = [
        f.with_type(pa.string()) if pa.types.is_dictionary(f.type) else f for f in table.schema
    ]
    return table.cast(pa.schema(texts))


def until(rows: Rows, moment: int) -> Iterator[dict[str, Any]]:
    return (r for r in rows if r["ts_ns"] <= moment)


def pages(iova: int, size: int) -> range:
    return range(max(iova, REGION.start) // PAGE, min(iova + size, REGION.stop) // PAGE)


def mapped_in_the_iommu(rows: Rows, moment: int) -> int:
    """Bytes of the device's memory that the IOMMU translates, by its own events."""
    held: set[int] = set()
    for row in until(rows, moment):
        if row["event"] == "iommu.map":
            held.update(pages(row["iova"], row["size"]))
        elif row["event"] == "iommu.unmap":
            held.difference_update(pages(row["iova"], row["unmapped"]))
    return len(held) * PAGE


def mapped_by_calls(rows: Rows, moment: int) -> int:
    """Bytes of the device's memory that map and unmap calls, as entered, leave mapped."""
    held: set[int] = set()
    for row in until(rows, moment):
        if row["event"] != "ioctl.arguments" or row["iova"] is None:
            continue
        if row["cmd"] in DMA_MAPS:
            held.update(pages(row["iova"], row["size"]))
        elif row["cmd"] in DMA_UNMAPS:
            held.difference_update(pages(row["iova"], row["size"]))
    return len(held) * PAGE


def requests(rows: Rows) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """The guest's plug and unplug requests in QEMU's log, each with its response."""
    open_: dict[str, Any] | None = None
    for row in rows:
        if row["event"] != "qemu.virtio_mem":
            continue
        if row["cmd"] in (PLUG, UNPLUG):
            assert open_ is None
            open_ = row
        elif row["cmd"] == RESPONSE and open_ is not None:
            yield open_, row
            open_ = None


def plugged_by_the_log(rows: Rows, moment: int) -> int:
    """Bytes that QEMU's log says are plugged."""
    held: set[int] = set()
    done = {id(asked): answer["ret"] == ACK for asked, answer in requests(rows)}
    for row in until(rows, moment):
        if row["event"] != "qemu.virtio_mem":
            continue
        if row["cmd"] == ALL_UNPLUGGED:
            held.clear()
        elif row["cmd"] in (PLUG, UNPLUG) and done[id(row)]:
            here = pages(row["gpa"], row["count"] * BLOCK)
            (held.update if row["cmd"] == PLUG else held.difference_update)(here)
    return len(held) * PAGE


def test_mapped_virtio_mem_bytes_are_the_plugged_size_at_every_settled_step(
    recorded: Recorded,
) -> None:
    """A device that is away has nothing mapped.

    An iommufd's IOMMU is emptied first when it goes, its ioas by later calls: for that while the
    two accounts differ, and no step is settled then.
    """
    if not recorded.steps:
        assert "virtio-mem" not in " ".join(recorded.truth["argv"])
        assert not [r for r in recorded.rows if r["event"] == "qemu.virtio_mem"]
        return
    for moment, size, present in recorded.steps:
        assert plugged_by_the_log(recorded.rows, moment) == size
        assert mapped_in_the_iommu(recorded.rows, moment) == (size if present else 0)
        assert mapped_by_calls(recorded.rows, moment) == (size if present else 0)


def discarded_while_mapped(rows: Rows) -> int:
    """Bytes of the device's memory that were mapped when QEMU was asked to unplug them."""
    held: set[int] = set()
    total = 0
    for row in rows:
        here: range | set[int] = range(0)
        if row["event"] == "iommu.map":
            held.update(pages(row["iova"], row["size"]))
        elif row["event"] == "iommu.unmap":
            held.difference_update(pages(row["iova"], row["unmapped"]))
        elif row["event"] == "qemu.virtio_mem" and row["cmd"] == UNPLUG:
            here = pages(row["gpa"], row["count"] * BLOCK)
        elif row["event"] == "qemu.virtio_mem" and row["cmd"] == ALL_UNPLUGGED:
            here = set(held)
        total += len(held.intersection(here))
    return total * PAGE


@pytest.mark.parametrize("grace_ms", [1, 100])
def test_no_alarm_and_the_discards_of_mapped_blocks_are_decided(
    recorded: Recorded, grace_ms: int
) -> None:
    result = run(open_trace(recorded.path), grace_ns=grace_ms * 1_000_000)
    outcome = next(o for o in result.outcomes if o.code == "TK102")
    said = sum(
        o.size or 0
        for f in outcome.findings
        for o in f.occurrences
        if o.iova is not None and o.iova in REGION
    )
    due = discarded_while_mapped(recorded.rows)
    print(f"{recorded.name}: {said >> 20} of {due >> 20} MiB discarded while mapped are told")
    assert said >= 0.95 * due
    assert outcome.judged.decided >= 0.95 * (outcome.judged.decided + outcome.judged.undecided)
    severities = {(f.severity.value, f.code) for f in result.findings}
    assert not {code for severity, code in severities if severity == "error"}
    if grace_ms == 100:
        refused = {"TK105", "TK106", "TK202"}
        assert {code for severity, code in severities if severity == "warning"} <= refused


def test_the_offset_between_the_clocks_is_right_within_its_error(recorded: Recorded) -> None:
    (told,) = [s for s in recorded.manifest.sources if s["clock"] == "realtime"]
    offset, error = told["clock_offset_ns"], told["clock_error_ns"]
    assert isinstance(offset, int)
    assert isinstance(error, int)
    assert str(told["clock_offset_from"]).startswith("matched calls")
    assert error < 1_000_000
    for read in recorded.truth["clocks"]:
        # realtime was read at some moment between the two readings of mono
        least, most = (read[f"mono_{side}_ns"] - read["real_ns"] for side in ("before", "after"))
        print(f"{recorded.name}: {offset - (least + most) // 2} ns off, stated {error} ns")
        assert offset - error <= most
        assert offset + error >= least


def test_a_request_its_calls_and_its_response_are_in_this_order(recorded: Recorded) -> None:
    """Of the two sources, by the estimated offset alone."""
    (told,) = [s for s in recorded.manifest.sources if s["clock"] == "realtime"]
    error = told["clock_error_ns"]
    calls = [r for r in recorded.rows if r["event"] == "ioctl.arguments" and r["iova"] is not None]
    seen = 0
    for asked, answer in requests(recorded.rows):
        wanted = DMA_MAPS if asked["cmd"] == PLUG else DMA_UNMAPS
        within = range(asked["gpa"], asked["gpa"] + asked["count"] * BLOCK)
        begin, end = asked["ts_ns"] - error, answer["ts_ns"] + error
        done = [r for r in calls if r["cmd"] in wanted and begin <= r["ts_ns"] <= end]
        covered = sum(r["size"] for r in done if r["iova"] in within)
        assert covered in (0, len(within))  # nothing, while the device is away
        seen += covered > 0
    if recorded.steps:
        assert seen


def test_merging_adds_rows_and_changes_none(recorded: Recorded, tmp_path: Path) -> None:
    alone = import_files(
        [FOLDER / f"{recorded.name}.trace.dat"],
        tmp_path / "t.parquet",
        probes=FOLDER / "dynamic_events-qemu.txt",
    )
    log = import_files([FOLDER / f"{recorded.name}.qemu.log.gz"], tmp_path / "log.parquet")
    table = plain(recorded.path)
    is_log = pc.starts_with(pc.fill_null(table["source"], ""), "qemu:")
    assert table.filter(pc.invert(is_log)).equals(plain(tmp_path / "t.parquet"))
    (told,) = [s for s in recorded.manifest.sources if s["clock"] == "realtime"]
    lines, shifted = plain(tmp_path / "log.parquet"), table.filter(is_log)
    assert shifted.drop_columns("ts_ns").equals(lines.drop_columns("ts_ns"))
    moved = pc.subtract(shifted["ts_ns"], lines["ts_ns"])
    assert pc.unique(moved).to_pylist() == [told["clock_offset_ns"]]
    assert recorded.manifest.rows == alone.rows + log.rows
    assert {r.name for r in recorded.manifest.recorded} == {
        r.name for m in (alone, log) for r in m.recorded
    }
    assert (recorded.manifest.kernel, recorded.manifest.clock) == (alone.kernel, alone.clock)


@pytest.mark.parametrize("name", with_simpletrace())
def test_simpletrace_and_the_log_say_the_same(name: str, tmp_path: Path) -> None:
    """But for thread, process and time: a line is written before its record."""
    binary, log = (FOLDER / f"{name}.{kind}" for kind in ("simpletrace.bin", "qemu.log.gz"))
    kernel = FOLDER / f"{name}.trace.dat"
    import_files([kernel, binary], tmp_path / "a.parquet")
    both = import_files([kernel, log], tmp_path / "b.parquet")
    error = both.sources[1]["clock_error_ns"]
    assert isinstance(error, int)
    found = []
    for one in ("a", "b"):
        rows = pq.read_table(tmp_path / f"{one}.parquet").to_pylist()
        found.append([r for r in rows if str(r["source"]).startswith("qemu:")])
    own = ("ts_ns", "seq", "pid", "tid")
    binary_rows, log_rows = (
        [{k: v for k, v in r.items() if k not in own} for r in f] for f in found
    )
    assert binary_rows == log_rows
    later = [a["ts_ns"] - b["ts_ns"] for a, b in zip(*found, strict=True)]
    assert min(later) >= -error
    assert sorted(later)[len(later) // 2] < 1_000_000


def test_the_region_is_where_qemu_says_it_is() -> None:
    for name in names():
        text = (FOLDER / f"{name}.truth.json").read_text()
        for said in re.findall(r"memaddr: 0x([0-9a-f]+)", text):
            assert int(said, 16) == REGION.start
