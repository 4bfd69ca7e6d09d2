"""simpletrace -> rows, compared with what QEMU's own script says about the same file."""

from __future__ import annotations

import gzip
import os
import struct
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracekit.errors import ImportFormatError, TracekitError, UsageError
from tracekit.ftrace.byte_source import RegularFile
from tracekit.importers import import_files
from tracekit.importers.qemu_events import TRACE_EVENTS
from tracekit.importers.simpletrace import (
    DROPPED,
    HEADER,
    MAGIC,
    read_records,
    read_trace_events,
    take_arguments,
)
from tracekit.store import Manifest

SAMPLES = Path(__file__).parents[2] / "data" / "qemu"
RECORDINGS = Path(os.environ.get("TRACEKIT_TRACES") or "nowhere") / "qemu"
PLUG, OTHER = 7, 8


def header(order: str = "<", version: int = 4) -> bytes:
    return struct.pack(f"{order}QQQ", HEADER, MAGIC, version)


def mapping(id: int, name: bytes, order: str = "<") -> bytes:
    return struct.pack(f"{order}QQI", 0, id, len(name)) + name


def event(id: int, ts_ns: int, *arguments: int | bytes, order: str = "<", pid: int = 98) -> bytes:
    payload = b"".join(
        struct.pack(f"{order}I", len(a)) + a
        if isinstance(a, bytes)
        else struct.pack(f"{order}Q", a & (1 << 64) - 1)
        for a in arguments
    )
    return struct.pack(f"{order}QQQII", 1, id, ts_ns, 24 + len(payload), pid) + payload


NAMES = mapping(PLUG, b"virtio_mem_plug_request") + mapping(OTHER, b"qmp_enter_stop")


def imported(
    data: bytes, folder: Path, *, salvage: bool = False, trace_events: Path | None = None
) -> tuple[Manifest, list[dict[str, object]]]:
    (folder / "trace.bin").write_bytes(data)
    out = folder / "t.parquet"
    manifest = import_files([folder / "trace.bin"], out, salvage=salvage, trace_events=trace_events)
    return manifest, pq.read_table(out).to_pylist()


def files() -> list[tuple[Path, Path, Path]]:
    """A simpletrace, its decoded text and its declarations: the sample, and whole recordings."""
    found = [
        (SAMPLES / "simpletrace.bin", SAMPLES / "simpletrace.txt", SAMPLES / "trace-events.txt")
    ]
    for path in sorted(RECORDINGS.glob("*.simpletrace.bin")):
        found.append((path, path.with_suffix(".txt.gz"), RECORDINGS / "trace-events-all-10.2.2.gz"))
    return found


def plain(path: Path, folder: Path) -> Path:
    """The file, expanded if need be."""
    if path.suffix != ".gz":
        return path
    (folder / path.stem).write_bytes(gzip.decompress(path.read_bytes()))
    return folder / path.stem


@pytest.mark.parametrize("recording", files(), ids=lambda f: f[0].stem)
def test_every_record_is_what_qemu_s_script_says(
    recording: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    binary, text, events = recording
    types = read_trace_events(plain(events, tmp_path))
    expected = plain(text, tmp_path).read_text().splitlines()
    last: int | None = None
    with RegularFile(binary) as file:
        for record, line in zip(read_records(file), expected, strict=True):
            assert record.name is not None
            taken = take_arguments(record.payload, types[record.name], "<")
            assert taken is not None
            since = 0 if last is None else record.ts_ns - last
            last = record.ts_ns
            words = [record.name, f"{since / 1000:.3f}", f"pid={record.pid}"]
            words += [f"{n}={v!r}" if isinstance(v, bytes) else f"{n}=0x{v:x}" for n, v in taken]
            assert " ".join(words) == line.rstrip()


@pytest.mark.parametrize("recording", files(), ids=lambda f: f[0].stem)
def test_every_record_is_a_row_or_counted_by_name(
    recording: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    binary, text, events = recording
    lines = plain(text, tmp_path).read_text().splitlines()
    names = [line.split(" ")[0] for line in lines]
    data = binary.read_bytes()
    manifest, rows = imported(data, tmp_path)
    _, typed = imported(data, tmp_path, trace_events=plain(events, tmp_path))
    assert rows == typed
    assert manifest.clock == "mono"
    assert [r["source"] for r in rows] == [f"qemu:{n}" for n in names if n in TRACE_EVENTS]
    assert {r.name: r.count for r in manifest.recorded} == {
        f"qemu:{n}": names.count(n) for n in names
    }
    assert {r["pid"] for r in rows} == {98}
    assert all(r["tid"] is None for r in rows)
    slots = [line for line in lines if line.startswith("kvm_set_user_memory")]
    told = [r for r in rows if r["event"] == "qemu.set_user_memory"]
    for line, row in zip(slots, told, strict=True):
        for word, column in (("guest_phys_addr", "gpa"), ("memory_size", "size")):
            assert f" {word}=0x{row[column]:x}" in line
        assert " fd=0xffffffff " in line
        assert row["file_fd"] == -1


@pytest.mark.parametrize("order", ["<", ">"])
def test_both_byte_orders_are_read(order: str, tmp_path: Path) -> None:
    data = header(order) + mapping(PLUG, b"virtio_mem_plug_request", order)
    data += event(PLUG, 5, 1 << 32, 32, order=order)
    _, rows = imported(data, tmp_path)
    assert [(r["ts_ns"], r["gpa"], r["count"], r["pid"]) for r in rows] == [(5, 1 << 32, 32, 98)]


def test_numbers_have_the_sign_of_their_type(tmp_path: Path) -> None:
    unmap = mapping(9, b"iommufd_backend_unmap_dma")
    for refused in (-1, 0xFFFFFFFF):
        data = header() + unmap + event(9, 5, 22, 2, 0x1000, 0x2000, refused)
        _, rows = imported(data, tmp_path)
        assert (rows[0]["ret"], rows[0]["fd"], rows[0]["size"]) == (-1, 22, 0x2000)


def test_texts_are_text_whatever_is_in_them(tmp_path: Path) -> None:
    data = header() + mapping(9, b"ram_block_discard_range")
    data += event(9, 5, b"a\xff\0\x1b]0;x", 0x1000, 0x2000, 1, 0, 0)
    _, rows = imported(data, tmp_path)
    assert rows[0]["name"] == "a\ufffd\0\x1b]0;x"


def test_an_event_with_other_arguments_is_counted_and_left_out(tmp_path: Path) -> None:
    data = header() + NAMES + event(PLUG, 5, 1, 2, 3) + event(PLUG, 6, 1) + event(PLUG, 7, 1, 2)
    manifest, rows = imported(data, tmp_path)
    assert len(rows) == 1
    (other,) = manifest.unrecognised
    assert (other.name, other.count) == (
        "qemu:virtio_mem_plug_request (arguments not understood)",
        2,
    )


def test_declarations_of_the_build_say_how_its_arguments_go(tmp_path: Path) -> None:
    """By name: another order, one more, and no text where a number was."""
    declared = tmp_path / "trace-events-all"
    declared.write_text(
        "# comment\ndisable virtio_mem_plug_request(uint16_t nb_blocks, const char *id,"
        ' void *p, uint64_t addr) "x"\n'
    )
    data = header() + NAMES + event(PLUG, 5, 32, b"vm0", 0xDEAD, 1 << 32)
    _, rows = imported(data, tmp_path, trace_events=declared)
    assert (rows[0]["gpa"], rows[0]["count"]) == (1 << 32, 32)


def test_a_file_that_declares_nothing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("nothing here\n")
    with pytest.raises(UsageError, match="declares no trace events"):
        imported(header() + NAMES, tmp_path, trace_events=tmp_path / "x")


def test_dropped_events_are_a_hole(tmp_path: Path) -> None:
    data = header() + NAMES + event(PLUG, 100, 1, 2)
    data += event(DROPPED, 900, 17) + event(PLUG, 500, 1, 2) + event(PLUG, 1000, 1, 2)
    manifest, rows = imported(data, tmp_path)
    assert [(r["ts_ns"], r["event"], r["until_ns"]) for r in rows] == [
        (100, "qemu.virtio_mem", None),
        (100, "trace.lost", 900),
        (500, "qemu.virtio_mem", None),
        (1000, "qemu.virtio_mem", None),
    ]
    assert rows[1]["count"] == 17
    assert (manifest.lost_events, manifest.loss_marks) == (17, 1)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (header(version=3), "version 3 is not read"),
        (header()[:20], "cut off"),
        (header() + NAMES + event(PLUG, 5, 1, 2)[:-3], "cut off"),
        (header() + NAMES + event(77, 5), "event 77, which has no name"),
        (header() + NAMES + struct.pack("<Q", 5), "record of type 5"),
        (header() + struct.pack("<QQI", 0, 1, 1 << 30), "name of 1073741824 bytes"),
        (header() + NAMES + struct.pack("<QQQII", 1, PLUG, 5, 3, 1), "a record of 3 bytes"),
        (header() + NAMES + struct.pack("<QQQII", 1, PLUG, 1 << 63, 24, 1), "of time"),
        (header() + NAMES + event(DROPPED, 5), "count of dropped events of 0 bytes"),
    ],
)
def test_damage_is_one_clear_error(data: bytes, said: str, tmp_path: Path) -> None:
    with pytest.raises(ImportFormatError, match=said) as caught:
        imported(data, tmp_path)
    assert caught.value.message.startswith("trace.bin: ")
    assert not (tmp_path / "t.parquet").exists()


def test_what_comes_before_the_damage_can_be_kept(tmp_path: Path) -> None:
    whole = header() + NAMES + event(PLUG, 5, 1, 2) + event(PLUG, 9, 1, 2)
    manifest, rows = imported(whole[:-3], tmp_path, salvage=True)
    assert [(r["ts_ns"], r["event"]) for r in rows] == [(5, "qemu.virtio_mem"), (5, "trace.lost")]
    assert (manifest.loss_marks, manifest.lost_unknown) == (1, True)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 1 << 14), st.integers(0, 255)), max_size=5),
    st.integers(1, 1 << 14),
    st.booleans(),
)
def test_damaged_bytes_give_rows_or_one_clear_error(
    tmp_path_factory: pytest.TempPathFactory, flips: list[tuple[int, int]], end: int, salvage: bool
) -> None:
    folder = tmp_path_factory.mktemp("simple")
    damaged = bytearray((SAMPLES / "simpletrace.bin").read_bytes())
    for at, value in flips:
        damaged[at % len(damaged)] = value
    said: str | None = None
    try:
        manifest, rows = imported(bytes(damaged[:end]), folder, salvage=salvage)
    except TracekitError as error:
        said = error.message
    if said is None:
        assert manifest.rows == len(rows)
    else:
        assert len(said) < 500
        assert not (folder / "t.parquet").exists()
