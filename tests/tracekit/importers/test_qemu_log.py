"""QEMU's log -> rows: each version's way of writing it, and whatever else stands in it."""

from __future__ import annotations

import gzip
import random
import re
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracekit.errors import ImportFormatError, TracekitError
from tracekit.events import EVENT_TYPES
from tracekit.importers import import_files, qemu_log, row_batches
from tracekit.importers.qemu_events import TRACE_EVENTS
from tracekit.store import Manifest, open_trace

SAMPLES = Path(__file__).parents[2] / "data" / "qemu"
VERSIONS = ("7.2", "10.0.2", "10.2.2", "11.1.3")
EVENT = "virtio_mem_plug_request addr=0x100000000 nb_blocks=32"


def stamp(line: str) -> str:
    """What a line's time is, to sort by."""
    return re.split(r"[@: ]", line, maxsplit=1)[1] if "@" in line.split(" ")[0] else line


def imported(
    text: bytes | str, folder: Path, **options: bool
) -> tuple[Manifest, list[dict[str, object]]]:
    """The manifest and the rows of a log."""
    (folder / "qemu.log").write_bytes(text.encode() if isinstance(text, str) else text)
    manifest = import_files([folder / "qemu.log"], folder / "t.parquet", **options)  # type: ignore[arg-type]
    return manifest, pq.read_table(folder / "t.parquet").to_pylist()


def filled(row: dict[str, object]) -> dict[str, object]:
    """The columns of a row that say something."""
    return {k: v for k, v in row.items() if v is not None and k not in ("ts_ns", "seq", "source")}


@pytest.mark.parametrize("version", VERSIONS)
def test_every_version_s_log_is_read(version: str, tmp_path: Path) -> None:
    lines = (SAMPLES / f"log-sample-{version}.txt").read_text().splitlines()
    manifest, rows = imported("\n".join(sorted(lines, key=stamp)) + "\n", tmp_path)
    assert manifest.clock == "realtime"
    assert manifest.sources[0]["other_lines"] == 0
    assert "trace.clock_back" not in manifest.events
    assert sum(r.count for r in manifest.recorded) == len(lines)
    assert not [r.name for r in manifest.recorded if "not understood" in r.name]
    said = {
        re.split(r"[:@]|Z ", line.split(" ")[0 if "@" in line[:20] else 1])[-1] for line in lines
    }
    known = said & set(TRACE_EVENTS)
    assert {r["source"] for r in rows} == {f"qemu:{name}" for name in known}
    assert {r.name for r in manifest.unrecognised} == {f"qemu:{name}" for name in said - known}
    assert all((r["tid"] is not None) == (version in ("7.2", "10.0.2")) for r in rows)
    assert open_trace(tmp_path / "t.parquet").manifest == manifest


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "kvm_convert_memory start 0x7ff00000 size 0x200000 shared_to_private",
            {"event": "qemu.convert_memory", "gpa": 0x7FF00000, "size": 0x200000, "attributes": 8},
        ),
        (
            "ram_block_attributes_state_change offset 0x1000 size 0x2000 from 'mixture'"
            " to 'populated'",
            {
                "event": "qemu.ram_block_state_change",
                "offset": 0x1000,
                "size": 0x2000,
                "attributes": 0,
                "detail": '{"from": "mixture"}',
            },
        ),
        (
            "kvm_memory_fault start 0x0 size 0x1000 flags 0x8",
            {"event": "qemu.memory_fault", "gpa": 0, "size": 0x1000, "flags": 8},
        ),
        (
            "kvm_hc_map_gpa_range gpa 0x10 size 0x20 attributes 0x10 flags 0x0",
            {
                "event": "qemu.map_gpa_range",
                "gpa": 0x10,
                "size": 0x20,
                "attributes": 0x10,
                "flags": 0,
            },
        ),
        (
            "kvm_set_user_memory AddrSpace#1 Slot#3 flags=0x4 gpa=0x1000 size=0x2000"
            " ua=0x7f40c3e00000 guest_memfd=-1 guest_memfd_offset=0x0 ret=-12",
            {
                "event": "qemu.set_user_memory",
                "id": 0x10003,
                "flags": 4,
                "gpa": 0x1000,
                "size": 0x2000,
                "vaddr": 0x7F40C3E00000,
                "file_fd": -1,
                "offset": 0,
                "ret": -12,
            },
        ),
        (
            "kvm_set_user_memory Slot#3 flags=0x0 gpa=0x0 size=0xc000000 ua=0x7f6ebfe00000 ret=0",
            {
                "event": "qemu.set_user_memory",
                "id": 3,
                "flags": 0,
                "gpa": 0,
                "size": 0xC000000,
                "vaddr": 0x7F6EBFE00000,
                "ret": 0,
            },
        ),
        (
            "ram_block_discard_shared_range pc.ram@0x7f40b3c00000 + 0x10000000: madvise: 1"
            " fallocate: 1 ret: 0",
            {
                "event": "qemu.discard_range",
                "name": "pc.ram",
                "vaddr": 0x7F40B3C00000,
                "size": 0x10000000,
                "flags": 3,
                "ret": 0,
            },
        ),
        (
            "vfio_listener_region_del region_del 0x0 - 0xffffffffffffffff",
            {"event": "qemu.region", "iova": 0, "size": 2**64 - 1, "flags": 0},
        ),
        (
            'vfio_listener_region_add_no_dma_map Region "a "b"" 0x10 size=0x20 is not aligned to'
            " 0x1000 and cannot be mapped for DMA",
            {"event": "qemu.region", "iova": 16, "size": 32, "flags": 2, "name": 'a "b"'},
        ),
        (
            "vfio_listener_region_add_iommu region_add [iommu] vtd 0x0 - 0xfff",
            {"event": "qemu.iommu_region", "iova": 0, "size": 0x1000, "flags": 1, "name": "vtd"},
        ),
        (
            "vfio_listener_region_del_iommu region_del [iommu] vtd",
            {"event": "qemu.iommu_region", "flags": 0, "name": "vtd"},
        ),
        (
            "vfio_iommu_map_notify iommu UNMAP @ 0x1000 - 0x1fff",
            {"event": "qemu.iommu_notify", "iova": 0x1000, "size": 0x1000, "flags": 0},
        ),
        (
            "vfio_container_query_dirty_bitmap iova=0x0 size= 0x1000 bitmap_size=0x8 gpa=0x2000"
            " dirty_pages=1",
            {"event": "qemu.dirty_bitmap", "iova": 0, "size": 4096, "gpa": 0x2000, "count": 1},
        ),
        (
            "iommufd_backend_set_dirty  iommufd=22 hwpt=3 enable=1 (-1)",
            {"event": "qemu.dirty_tracking", "fd": 22, "id": 3, "flags": 1, "ret": -1},
        ),
        (
            "iommufd_backend_map_file_dma  iommufd=22 ioas=2 iova=0x0 size=0x1000 fd=13"
            " start=4096 readonly=1 (0)",
            {
                "event": "qemu.iommufd_map",
                "fd": 22,
                "id": 2,
                "iova": 0,
                "size": 4096,
                "file_fd": 13,
                "offset": 4096,
                "flags": 1,
                "ret": 0,
            },
        ),
        (
            "iommufd_backend_unmap_dma_non_exist  Unmap nonexistent mapping: iommufd=22 ioas=2"
            " iova=0xfe400000 size=0x100000 (-1)",
            {
                "event": "qemu.iommufd_unmap",
                "fd": 22,
                "id": 2,
                "iova": 0xFE400000,
                "size": 0x100000,
                "flags": 1,
                "ret": -1,
            },
        ),
        (
            "iommufd_backend_disconnect fd=-1 users=0",
            {"event": "qemu.iommufd_connection", "fd": -1, "flags": 0, "count": 0},
        ),
        (
            "virtio_mem_plug_request addr=0x100000000 nb_blocks=32",
            {"event": "qemu.virtio_mem", "cmd": 0, "gpa": 1 << 32, "count": 32},
        ),
        ("virtio_mem_send_response type=2", {"event": "qemu.virtio_mem", "cmd": 16, "ret": 2}),
        ("virtio_mem_unplugged_all ", {"event": "qemu.virtio_mem", "cmd": 18}),
        (
            "virtio_mem_resized_usable_region old_size=0x10new_size=0x20",
            {"event": "qemu.virtio_mem_resized", "size": 32, "detail": '{"old_size": 16}'},
        ),
    ],
)
def test_arguments_go_into_their_columns(
    line: str, expected: dict[str, object], tmp_path: Path
) -> None:
    _, with_thread = imported(f"98@1795365312.000001:{line}\n", tmp_path)
    _, iso = imported(f"2026-11-22T16:35:12.000001Z {line}\n", tmp_path)
    assert filled(with_thread[0]) == {**expected, "tid": 98}
    assert filled(iso[0]) == expected
    assert iso[0]["ts_ns"] == with_thread[0]["ts_ns"] == 1795365312_000001_000


def test_each_declaration_becomes_an_event_type() -> None:
    for known in TRACE_EVENTS.values():
        for one in known:
            assert one.event in EVENT_TYPES
            assert one.pattern.groups <= len(one.arguments)


def test_other_lines_are_counted_and_no_error(tmp_path: Path) -> None:
    text = (
        "qemu-system-x86_64: warning: something\n"
        "2026-11-22T16:36:17.299330Z qemu-system-x86_64: warning: something else\n"
        "2026-11-22T16:36:17.299330Z informally speaking\n"
        "2026-02-30T16:36:17.299330Z virtio_mem_unplugged_all \n"
        f"2026-11-22T16:36:17Z {EVENT}\r\n"
        "\n"
        "Invalid read at addr 0xFEE00000, size 4, region '(null)', reason: rejected\n"
        "2026-11-22T16:36:18.299330Z some_other_event 1 2 3\n"
        "2026-11-22T16:36:18.299330Z virtio_mem_plug_request addr=somewhere nb_blocks=1\n"
        "2026-11-22T16:36:18.299330Z virtio_mem_plug_request addr=0x1 nb_blocks=99999999\n"
        "2026-11-22T16:36:19.299330Z virtio_mem_send_resp"
    )
    manifest, rows = imported(text, tmp_path)
    assert [(r["ts_ns"], r["gpa"]) for r in rows] == [(1795365377_000000_000, 1 << 32)]
    assert manifest.sources[0]["other_lines"] == 6
    assert {r.name: (r.count, r.event) for r in manifest.recorded} == {
        "qemu:some_other_event": (1, None),
        "qemu:virtio_mem_plug_request": (1, "qemu.virtio_mem"),
        "qemu:virtio_mem_plug_request (arguments not understood)": (2, None),
    }


def test_a_last_line_without_its_end_is_not_believed(tmp_path: Path) -> None:
    """Of 32 blocks it would say 3."""
    manifest, rows = imported(f"1@5.000000:{EVENT}\n1@6.000000:{EVENT[:-1]}", tmp_path)
    assert [r["count"] for r in rows] == [32]
    assert manifest.sources[0]["other_lines"] == 1


def test_a_log_without_times_is_refused_with_a_way_on(tmp_path: Path) -> None:
    with pytest.raises(ImportFormatError, match=r"qemu\.log: .*carry no time") as caught:
        imported(f"{EVENT}\nvirtio_mem_send_response type=0\n", tmp_path)
    assert "timestamp=on" in (caught.value.help or "")
    assert not (tmp_path / "t.parquet").exists()


@pytest.mark.parametrize(
    "text", ["hello world\n", "2026-11-22T16:36:17.299330Z started everything\n", "1@2.3:x_y\n"]
)
def test_a_file_without_a_trace_event_is_not_taken_for_a_log(text: str, tmp_path: Path) -> None:
    with pytest.raises(ImportFormatError, match="no recording that is read here"):
        imported(text, tmp_path)


def test_names_by_the_guest_are_text_and_nothing_else(tmp_path: Path) -> None:
    _, rows = imported(
        "1@5.000000:ram_block_discard_range a@0x1 + 0x2: madvise: 0 fallocate: 0 ret: 0\x1b[2J@0x3"
        " + 0x4: madvise: 1 fallocate: 0 ret: 0\n",
        tmp_path,
    )
    (row,) = rows
    assert (row["vaddr"], row["size"], row["flags"]) == (3, 4, 1)
    assert row["name"] == "a@0x1 + 0x2: madvise: 0 fallocate: 0 ret: 0\x1b[2J"


def test_threads_that_write_late_are_put_in_order(tmp_path: Path) -> None:
    _, rows = imported(
        f"1@5.000900:{EVENT}\n2@5.000100:{EVENT}\n1@5.000950:{EVENT}\n2@5.000940:{EVENT}\n",
        tmp_path,
    )
    times = [(r["tid"], r["ts_ns"]) for r in rows]
    assert times == [(2, 5000100000), (1, 5000900000), (2, 5000940000), (1, 5000950000)]


def test_a_clock_that_was_set_back_is_held_and_told(tmp_path: Path) -> None:
    """Between threads by more than a wait; on one thread by anything."""
    manifest, rows = imported(
        f"1@9.000000:{EVENT}\n2@5.000000:{EVENT}\n2@5.000001:{EVENT}\n"
        f"1@12.000000:{EVENT}\n1@11.999999:{EVENT}\n",
        tmp_path,
    )
    assert [(r["ts_ns"], r["event"], r["until_ns"]) for r in rows] == [
        (9_000_000_000, "qemu.virtio_mem", None),
        (9_000_000_000, "trace.clock_back", 5_000_000_000),
        (9_000_000_000, "qemu.virtio_mem", None),
        (9_000_000_000, "qemu.virtio_mem", None),
        (12_000_000_000, "qemu.virtio_mem", None),
        (12_000_000_000, "trace.clock_back", 11_999_999_000),
        (12_000_000_000, "qemu.virtio_mem", None),
    ]
    assert manifest.events["trace.clock_back"] == 2


def test_a_long_log_comes_in_batches_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_batches, "BATCH_ROWS", 50)
    random_ = random.Random(5)
    times = [i * 1_000_000 + random_.randrange(90_000) * 1000 for i in range(1000)]
    text = "".join(
        f"{i}@{t // 10**9}.{t % 10**9 // 1000:06}:{EVENT}\n" for i, t in enumerate(times)
    )
    manifest, rows = imported(text, tmp_path)
    assert [r["ts_ns"] for r in rows] == sorted(times)
    assert manifest.events == {"qemu.virtio_mem": 1000}
    dense = "".join(f"{i}@1.{(i * 7919) % 90000:06}:{EVENT}\n" for i in range(1000))
    manifest, rows = imported(dense, tmp_path)
    assert manifest.events["qemu.virtio_mem"] == 1000


def test_gzip_is_seen_by_content_in_one_piece_or_several(tmp_path: Path) -> None:
    line = f"1@5.000000:{EVENT}\n".encode()
    whole = gzip.compress(line) + gzip.compress(line * 3) + bytes(512)
    manifest, rows = imported(whole, tmp_path)
    assert len(rows) == 4
    assert manifest.sources[0]["compression"] == "gzip"


def test_a_compressed_log_that_is_cut_or_damaged_is_an_error_or_salvaged(tmp_path: Path) -> None:
    lines = "".join(f"1@{i}.{i * 7919 % 1000000:06}:{EVENT}\n" for i in range(5000)).encode()
    whole = gzip.compress(lines)
    damaged = bytearray(whole)
    damaged[-4:] = bytes(4)  # the length of the text
    for broken, said in ((whole[: len(whole) // 2], "cut off"), (bytes(damaged), "damaged")):
        with pytest.raises(ImportFormatError, match=said):
            imported(broken, tmp_path)
        manifest, rows = imported(broken, tmp_path, salvage=True)
        assert rows[-1]["event"] == "trace.lost"
        assert (manifest.loss_marks, manifest.lost_unknown) == (1, True)
        assert len(rows) > 1000


def test_a_log_that_expands_without_end_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qemu_log, "MAX_EXPANDED", 1 << 20)
    line = f"1@5.000000:{EVENT}\n".encode()
    with pytest.raises(ImportFormatError, match="expands to more than"):
        imported(gzip.compress(line + bytes(1 << 21)), tmp_path)


def test_a_line_without_end_takes_no_memory_and_is_one_other_line(tmp_path: Path) -> None:
    line = f"1@5.000000:{EVENT}\n".encode()
    manifest, rows = imported(line + b"x" * (1 << 20) + b"\n" + line, tmp_path)
    assert len(rows) == 2
    assert manifest.sources[0]["other_lines"] == 1


def test_more_names_than_fit_are_counted_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(qemu_log, "MAX_NAMES", 10)
    manifest, _ = imported("".join(f"1@5.000000:name_{i} x\n" for i in range(50)), tmp_path)
    assert len(manifest.recorded) == 11
    assert sum(r.count for r in manifest.recorded) == 50


@settings(max_examples=150, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 255)), max_size=6),
    st.integers(0, 4000),
    st.booleans(),
    st.booleans(),
)
def test_damaged_bytes_give_rows_or_one_clear_error(
    tmp_path_factory: pytest.TempPathFactory,
    flips: list[tuple[int, int]],
    end: int,
    compressed: bool,
    salvage: bool,
) -> None:
    folder = tmp_path_factory.mktemp("log")
    good = (SAMPLES / "log-sample-11.1.3.txt").read_bytes()
    damaged = bytearray(gzip.compress(good, mtime=0) if compressed else good)
    for at, value in flips:
        damaged[at % len(damaged)] = value
    said: str | None = None
    try:
        manifest, rows = imported(bytes(damaged[: max(end, 1)]), folder, salvage=salvage)
    except TracekitError as error:
        said = error.message
    if said is None:
        assert manifest.rows == len(rows)
    else:
        assert len(said) < 500
        assert not (folder / "t.parquet").exists()
