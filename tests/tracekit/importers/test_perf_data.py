"""perf.data of all kinds -> a trace: made ones here, perf's own in test_perf_data_recorded.py."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracekit.errors import ImportFormatError, TracekitError
from tracekit.ftrace.event_format import parse_format
from tracekit.ftrace.writer import event_format, record
from tracekit.importers import import_files, perf_data
from tracekit.store import Manifest

MAP, PROBE, RETURN = 700, 701, 702
IP, TID, TIME, ADDR, READ, CHAIN, ID, CPU, PERIOD, STREAM, RAW = (1 << n for n in range(11))
IDENTIFIER = 1 << 16
USUAL = TID | TIME | ID | CPU | RAW
ALL_FIELDS = USUAL | IP | ADDR | READ | CHAIN | PERIOD | STREAM | IDENTIFIER
ID_ALL, CLOCK = 1 << 18, 1 << 25
TOTALS, IDS, GROUP, LOST_COUNT = 3, 4, 8, 16


def fields(*names: str) -> list[tuple[str, int, bool]]:
    return [(f"u64 {name}", 8, False) for name in names]


FORMATS = [
    ("iommu", event_format("map", MAP, fields("iova", "paddr", "size"))),
    ("probe", event_format("kvm_vm_ioctl", PROBE, fields("__probe_ip", "cmd", "arg"))),
    ("probe", event_format("kvm_vm_ioctl__return", RETURN, fields("__probe_func", "ret"))),
]


def mapped(iova: int = 0x1000, tid: int = 42) -> bytes:
    return record(MAP, tid, struct.pack("<QQQ", iova, 2 * iova, 4096))


def entry(kind: int, body: bytes, misc: int = 0) -> bytes:
    """A record: its header and ``body``."""
    return struct.pack("<IHH", kind, misc, 8 + len(body)) + body


@dataclass(kw_only=True)
class Attr:
    """An event as it was opened, with what a sample of it looks like."""

    config: int = MAP
    type: int = 2
    sample_type: int = USUAL
    read_format: int = 0
    period: int = 1
    flags: int = ID_ALL | CLOCK
    clockid: int = 1
    ids: Sequence[int] = (7,)

    def packed(self) -> bytes:
        head = struct.pack(
            "<IIQQQQQ", self.type, 128, self.config, self.period, self.sample_type,
            self.read_format, self.flags,
        )  # fmt: skip
        return (head.ljust(92, b"\0") + struct.pack("<i", self.clockid)).ljust(128, b"\0")

    def sample(self, ts: int, raw: bytes, cpu: int = 0, id: int | None = None) -> bytes:
        """A sample record."""
        id = self.ids[0] if id is None else id
        return entry(9, self._fields(ts, cpu, id) + self._tail(raw))

    def _fields(self, ts: int, cpu: int, id: int) -> bytes:
        values = (
            (IDENTIFIER, struct.pack("<Q", id)), (IP, struct.pack("<Q", 0xFFFF_FFFF_8100_0000)),
            (TID, struct.pack("<II", 41, 42)), (TIME, struct.pack("<Q", ts)),
            (ADDR, struct.pack("<Q", 0xADD7)), (ID, struct.pack("<Q", id)),
            (STREAM, struct.pack("<Q", 99)), (CPU, struct.pack("<II", cpu, 0)),
            (PERIOD, struct.pack("<Q", 1)),
        )  # fmt: skip
        return b"".join(v for bit, v in values if self.sample_type & bit)

    def _tail(self, raw: bytes) -> bytes:
        body = b""
        if self.sample_type & READ:
            form = self.read_format
            times = bytes(8) * (form & 1) + bytes(8) * (form >> 1 & 1)
            value = bytes(8) * (1 + bool(form & IDS) + bool(form & LOST_COUNT))
            body += struct.pack("<Q", 3) + times + 3 * value if form & GROUP else times + value
        if self.sample_type & CHAIN:
            body += struct.pack("<QQQ", 2, 1, 2)
        if self.sample_type & RAW:
            pad = -(4 + len(raw)) % 8
            body += struct.pack("<I", len(raw) + pad) + raw + bytes(pad)
        return body

    def trailer(self, ts: int, cpu: int, id: int | None = None) -> bytes:
        """What stands behind a record that is no sample."""
        id = self.ids[0] if id is None else id
        values = (
            (TID, struct.pack("<II", 41, 42)), (TIME, struct.pack("<Q", ts)),
            (ID, struct.pack("<Q", id)), (STREAM, struct.pack("<Q", 99)),
            (CPU, struct.pack("<II", cpu, 0)), (IDENTIFIER, struct.pack("<Q", id)),
        )  # fmt: skip
        return b"".join(v for bit, v in values if self.sample_type & bit)


def text(value: str) -> bytes:
    """A text of a feature."""
    raw = value.encode() + b"\0"
    return struct.pack("<I", len(raw)) + raw


def tracing_data(*, long_size: int = 8, endian: int = 0) -> bytes:
    parts = [b"\x17\x08\x44tracing0.6\0", bytes([endian, long_size]), struct.pack("<I", 4096)]
    parts += [b"header_page\0", bytes(8), b"header_event\0", bytes(8), bytes(4)]
    parts.append(struct.pack("<I", len(FORMATS)))
    for system, form in FORMATS:
        parts += [system.encode(), b"\0", struct.pack("<IQ", 1, len(form)), form.encode()]
    return b"".join([*parts, bytes(16)])


@dataclass(kw_only=True)
class Recording:
    """A perf.data to be written."""

    attrs: Sequence[Attr] = field(default_factory=lambda: [Attr()])
    records: Sequence[bytes] = ()
    features: dict[int, bytes] = field(default_factory=dict)

    def all_features(self) -> dict[int, bytes]:
        known = {
            1: tracing_data(), 3: text("host"), 4: text("7.3.4"), 5: text("6.1"),
            6: text("x86_64"), 7: struct.pack("<II", 4, 4),
        }  # fmt: skip
        return dict(sorted({**known, **self.features}.items()))

    def as_file(self) -> bytes:
        each = 128 + 16
        ids_at = 104
        ids = b"".join(struct.pack(f"<{len(a.ids)}Q", *a.ids) for a in self.attrs)
        table, at = b"", ids_at
        for a in self.attrs:
            table += a.packed() + struct.pack("<QQ", at, 8 * len(a.ids))
            at += 8 * len(a.ids)
        data = b"".join(self.records) + entry(68, b"")  # there is always something
        data_at = at + len(table)
        features = self.all_features()
        where = data_at + len(data) + 16 * len(features)
        sections, bodies = b"", b""
        for body in features.values():
            sections += struct.pack("<QQ", where + len(bodies), len(body))
            bodies += body
        flags = sum(1 << number for number in features)
        head = b"PERFILE2" + struct.pack(
            "<QQQQQQQQ", 104, each, at, len(table), data_at, len(data), 0, 0
        )
        return head + flags.to_bytes(32, "little") + ids + table + data + sections + bodies

    def as_pipe(self) -> bytes:
        out = [b"PERFILE2", struct.pack("<Q", 16)]
        for a in self.attrs:
            out.append(entry(64, a.packed() + struct.pack(f"<{len(a.ids)}Q", *a.ids)))
        for number, body in self.all_features().items():
            if number == 1:
                padded = body + bytes(-len(body) % 8)
                out += [entry(66, struct.pack("<I", len(body))), padded]
            else:
                out.append(entry(80, struct.pack("<Q", number) + body))
        return b"".join([*out, *self.records])


def imported(
    made: Recording | bytes, folder: Path, **options: bool
) -> tuple[Manifest, list[dict[str, object]]]:
    """The manifest and the rows of a made recording."""
    raw = made if isinstance(made, bytes) else made.as_file()
    (folder / "perf.data").write_bytes(raw)
    manifest = import_files([folder / "perf.data"], folder / "t.parquet", **options)  # type: ignore[arg-type]
    return manifest, pq.read_table(folder / "t.parquet").to_pylist()


def times(rows: Sequence[dict[str, object]]) -> list[object]:
    return [row["ts_ns"] for row in rows]


@pytest.mark.parametrize("sample_type", [USUAL, ALL_FIELDS, ALL_FIELDS & ~ID, USUAL | CHAIN])
@pytest.mark.parametrize("form", [0, TOTALS, IDS | LOST_COUNT, GROUP | IDS, GROUP | 0x17])
@pytest.mark.parametrize("pipe", [False, True])
def test_every_field_before_the_raw_data_is_passed_over(
    tmp_path: Path, sample_type: int, form: int, pipe: bool
) -> None:
    a = Attr(sample_type=sample_type, read_format=form)
    made = Recording(attrs=[a], records=[a.sample(100 + i, mapped(i << 12), i) for i in range(4)])
    manifest, rows = imported(made.as_pipe() if pipe else made, tmp_path)
    assert [(r["ts_ns"], r["cpu"], r["iova"], r["tid"]) for r in rows] == [
        (100 + i, i, i << 12, 42) for i in range(4)
    ]
    assert (manifest.host, manifest.kernel, manifest.machine) == ("host", "7.3.4", "x86_64")
    assert (manifest.cpus, manifest.clock, manifest.events) == (4, "mono", {"iommu.map": 4})


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 3)), min_size=1, max_size=60))
@settings(max_examples=25, deadline=None)
def test_each_cpu_is_sorted_and_equal_times_keep_their_order(
    tmp_path_factory: pytest.TempPathFactory, when: list[tuple[int, int]]
) -> None:
    a = Attr()
    records = [a.sample(ts, mapped(i << 12), cpu) for i, (ts, cpu) in enumerate(when)]
    _, rows = imported(Recording(records=records), tmp_path_factory.mktemp("s"))
    numbered = sorted(range(len(when)), key=lambda i: (when[i][0], when[i][1]))
    assert [r["iova"] for r in rows] == [i << 12 for i in numbered]


@pytest.mark.parametrize("small", [False, True])
def test_events_are_told_apart_by_their_ids(
    tmp_path: Path, small: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(perf_data, "SMALL", 1 << 30 if small else 0)
    big = (1 << 63) + 5
    a = Attr(ids=(3, big))
    cycles = Attr(type=0, config=0, sample_type=USUAL & ~RAW, ids=(4,))
    records = [
        a.sample(10, mapped(), 0, big),
        cycles.sample(11, b""),
        cycles.sample(12, b"", 1),
        a.sample(13, mapped(), 1),
        a.sample(14, mapped(), 1, 12345),
    ]
    desc = struct.pack("<II", 2, 128)
    for attr, name in ((a, "iommu:map"), (cycles, "cycles:k")):
        desc += attr.packed() + struct.pack("<I", len(attr.ids)) + text(name)
        desc += struct.pack(f"<{len(attr.ids)}Q", *attr.ids)
    made = Recording(attrs=[a, cycles], records=records, features={12: desc})
    manifest, rows = imported(made, tmp_path)
    assert times(rows) == [10, 13]
    counts = {r.name: (r.count, r.event) for r in manifest.recorded if r.count}
    assert counts == {
        "iommu:map": (2, "iommu.map"),
        "cycles:k": (2, None),
        "perf:unknown-id": (1, None),
    }


def test_lost_records_are_a_hole_from_the_record_before_on_that_cpu(tmp_path: Path) -> None:
    a = Attr()
    lost = entry(2, struct.pack("<QQ", 7, 30) + a.trailer(50, 1))
    records = [
        a.sample(10, mapped(), 1), a.sample(20, mapped(), 1), a.sample(30, mapped(), 0),
        lost, a.sample(50, mapped(), 1),
    ]  # fmt: skip
    manifest, rows = imported(Recording(records=records), tmp_path)
    (mark,) = (r for r in rows if r["event"] == "trace.lost")
    assert [mark[k] for k in ("ts_ns", "until_ns", "count", "cpu")] == [20, 50, 30, 1]
    assert (manifest.lost_events, manifest.loss_marks, manifest.lost_unknown) == (30, 1, False)
    assert times(rows) == [10, 20, 20, 30, 50]


def test_what_perf_counts_in_the_end_is_lost_behind_the_last_record(tmp_path: Path) -> None:
    """LOST_SAMPLES repeats what LOST said; only what is more was lost after it."""
    a = Attr(ids=(7, 8))
    index = struct.pack("<Q", 2) + struct.pack("<8Q", 7, 0, 0, 1, 8, 1, 1, 1)
    records = [
        entry(69, index),
        a.sample(10, mapped(), 0), a.sample(20, mapped(), 1),
        entry(2, struct.pack("<QQ", 7, 30) + a.trailer(40, 0)),
        a.sample(40, mapped(), 0),
        entry(13, struct.pack("<Q", 30) + a.trailer(0, 0, 7)),
        entry(13, struct.pack("<Q", 5) + a.trailer(0, 0, 8)),
        entry(13, struct.pack("<Q", 9) + a.trailer(0, 0, 8), 1 << 15),
    ]  # fmt: skip
    manifest, rows = imported(Recording(attrs=[a], records=records), tmp_path)
    marks = [
        (r["cpu"], r["ts_ns"], r["until_ns"], r["count"])
        for r in rows
        if r["event"] == "trace.lost"
    ]
    assert marks == [(0, 10, 40, 30), (1, 20, 40, 5)]
    assert manifest.lost_events == 35


@pytest.mark.parametrize(
    "other", [{"period": 100}, {"period": 0}, {"flags": ID_ALL | CLOCK | 1 << 10}]
)
def test_a_sampled_event_is_lost_all_the_time(tmp_path: Path, other: dict[str, int]) -> None:
    """``perf record -c 100``, ``-F 99``, a group's member: what came between nobody knows."""
    a = Attr(**other)  # type: ignore[arg-type]
    records = [a.sample(ts, mapped(), ts % 2) for ts in (10, 20, 31)]
    manifest, rows = imported(Recording(attrs=[a], records=records), tmp_path)
    (mark,) = (r for r in rows if r["event"] == "trace.lost")
    assert [mark[k] for k in ("ts_ns", "until_ns", "count")] == [10, 31, None]
    assert manifest.lost_unknown
    # Formats of what was not opened say nothing about what happened.
    assert [r.name for r in manifest.recorded] == ["iommu:map"]
    assert "sampled" in manifest.sources[0]


def test_a_throttled_event_is_lost_meanwhile(tmp_path: Path) -> None:
    a, cycles = Attr(), Attr(type=0, ids=(8,))
    records = [a.sample(10, mapped())]
    for kind, ts, attr in ((5, 15, a), (5, 16, cycles), (6, 20, a), (5, 25, a)):
        body = struct.pack("<QQQ", ts, attr.ids[0], 1) + attr.trailer(ts, 0)
        records.append(entry(kind, body))
    records.append(a.sample(30, mapped()))
    _, rows = imported(Recording(attrs=[a, cycles], records=records), tmp_path)
    marks = [(r["ts_ns"], r["until_ns"]) for r in rows if r["event"] == "trace.lost"]
    assert marks == [(15, 20), (25, 30)]


def test_thread_names_are_the_last_ones_and_are_inherited(tmp_path: Path) -> None:
    a = Attr()

    def comm(ts: int, tid: int, name: bytes) -> bytes:
        return entry(3, struct.pack("<II", 1, tid) + name.ljust(16, b"\0") + a.trailer(ts, 0))

    def fork(ts: int, tid: int, parent: int) -> bytes:
        return entry(7, struct.pack("<IIIIQ", 1, 1, tid, parent, ts) + a.trailer(ts, 0))

    records = [
        comm(0, 42, b"perf-exec"), comm(5, 42, b"qemu"), comm(3, 42, b"late in the file"),
        fork(6, 43, 42), fork(7, 44, 42), comm(8, 44, b"vhost"), fork(6, 44, 42),
        a.sample(10, mapped(tid=42)), a.sample(11, mapped(tid=43)), a.sample(12, mapped(tid=44)),
        a.sample(13, mapped(tid=45)),
    ]  # fmt: skip
    _, rows = imported(Recording(records=records), tmp_path)
    assert [r["comm"] for r in rows] == ["qemu", "qemu", "vhost", None]


def test_a_probe_of_perf_probe_is_in_the_function_that_it_is_called_by(tmp_path: Path) -> None:
    entered, returned = Attr(config=PROBE, ids=(1,)), Attr(config=RETURN, ids=(2,))
    address = 0xFFFF_FFFF_8100_1234
    records = [
        entered.sample(10, record(PROBE, 42, struct.pack("<QQQ", address, 0xAE03, 5))),
        returned.sample(20, record(RETURN, 42, struct.pack("<QQ", address, 1))),
    ]
    manifest, rows = imported(Recording(attrs=[entered, returned], records=records), tmp_path)
    assert [r["event"] for r in rows] == ["kvm.vm_ioctl", "kvm.vm_ioctl_returned"]
    assert rows[0]["cmd"] == 0xAE03
    assert manifest.sources[0]["functions_by_event_name"] == (
        "probe:kvm_vm_ioctl, probe:kvm_vm_ioctl__return"
    )
    (tmp_path / "p").write_text("p:probe/kvm_vm_ioctl some_other_function cmd=%si\n")
    again = import_files([tmp_path / "perf.data"], tmp_path / "u.parquet", probes=tmp_path / "p")
    what = {r.name: (r.event, r.function) for r in again.recorded}
    assert what["probe:kvm_vm_ioctl"] == (None, "some_other_function")


@pytest.mark.parametrize(
    ("flags", "clockid", "name"),
    [(ID_ALL, 0, "perf"), (CLOCK, 1, "mono"), (CLOCK, 4, "mono_raw"), (CLOCK, 7, "boot"),
     (CLOCK, 0, "realtime"), (CLOCK, 11, "tai")],
)  # fmt: skip
def test_the_clock_is_the_one_of_the_events(
    tmp_path: Path, flags: int, clockid: int, name: str
) -> None:
    a = Attr(flags=flags, clockid=clockid)
    pair = struct.pack("<IIQQ", 1, clockid, 2_000, 1_000)
    made = Recording(attrs=[a], records=[a.sample(10, mapped())], features={29: pair})
    manifest, _ = imported(made, tmp_path)
    assert manifest.clock == name
    said = [manifest.sources[0].get(f"clock_pair_{k}_ns") for k in ("realtime", "mono")]
    assert said == ([2_000, 1_000] if name == "mono" else [None, None])


def no_sample(*missing: int) -> Recording:
    a = Attr(sample_type=USUAL & ~sum(missing))
    return Recording(attrs=[a], records=[a.sample(10, mapped())])


def two(**other: int) -> Recording:
    a, b = Attr(), Attr(ids=(8,), **other)  # type: ignore[arg-type]
    return Recording(attrs=[a, b], records=[a.sample(10, mapped())])


def changed(at: int, new: bytes) -> bytes:
    raw = bytearray(Recording(records=[Attr().sample(10, mapped())]).as_file())
    raw[at : at + len(new)] = new
    return bytes(raw)


def one(record: bytes) -> Recording:
    return Recording(records=[record])


BAD: dict[str, tuple[Recording | bytes, str]] = {
    "no time": (no_sample(TIME), "without their time"),
    "no cpu": (no_sample(CPU), "without their CPU"),
    "no raw": (no_sample(RAW), "without their raw data"),
    "swapped": (changed(0, b"2ELIFREP"), "big-endian"),
    "old": (changed(0, b"PERFFILE"), "first format"),
    "header": (changed(8, b"\x10\x27"), "header of 10000 bytes"),
    "32 bits": (Recording(features={1: tracing_data(long_size=4)}), "32-bit long"),
    "big endian": (Recording(features={1: tracing_data(endian=1)}), "big-endian"),
    "other machine": (Recording(features={6: text("aarch64")}), "'aarch64'; x86_64 is read"),
    "clocks": (two(clockid=7), "different clocks"),
    "unknown clock": (Recording(attrs=[Attr(clockid=3)]), "clock with the id 3"),
    "same id": (Recording(attrs=[Attr(), Attr()]), "the same id 7"),
    "no id": (two(sample_type=USUAL & ~ID), "cannot be told apart"),
    "no attributes": (Recording(attrs=[]), "names no event"),
    "zero size": (one(struct.pack("<IHH", 9, 0, 0)), "shorter than its header"),
    "cut sample": (one(entry(9, bytes(8))), "shorter than its fields"),
    "other event": (
        one(Attr().sample(1, record(PROBE, 1, bytes(24)))), "of another event than the sample",
    ),
    "time": (one(Attr().sample(1 << 63, mapped())), "past 63 bits"),
    "cpu": (one(Attr().sample(1, mapped(), 9000)), "too high a number"),
    "cut record": (one(Attr().sample(1, mapped())[:-16]), "is cut off"),
    "cut AUX": (one(entry(71, struct.pack("<Q", 1 << 40) + bytes(32))), "AUX data"),
    "sample first": (
        b"PERFILE2" + struct.pack("<Q", 16) + Attr().sample(1, mapped()), "before the events",
    ),
    "no zstd": (one(entry(81, b"no zstd stream")), "no zstd stream"),
    "short": (one(Attr().sample(1, record(MAP, 1, bytes(8)))), "fewer than its format says"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_what_cannot_be_read_is_one_clear_error(tmp_path: Path, name: str) -> None:
    made, said = BAD[name]
    with pytest.raises(ImportFormatError, match=said) as error:
        imported(made, tmp_path)
    assert "perf.data" in error.value.message
    assert not (tmp_path / "t.parquet").exists()
    if name.startswith("no ") and name[3:] in ("time", "cpu", "raw"):
        assert "perf record -e" in (error.value.help or "")


def test_the_errors_of_a_file_that_was_not_closed_name_the_way_out(tmp_path: Path) -> None:
    killed = changed(48, bytes(8))
    with pytest.raises(ImportFormatError, match="was not closed") as error:
        imported(killed, tmp_path)
    assert "--salvage" in (error.value.help or "")
    whole = Recording(records=[Attr().sample(10, mapped())]).as_file()
    for size in (300, 400, 500):  # in the records, the features' table, the formats
        with pytest.raises(ImportFormatError, match="cut off") as error:
            imported(whole[:size], tmp_path)
        assert "--salvage" in (error.value.help or "")
    with pytest.raises(ImportFormatError, match="formats of events are missing") as error:
        imported(killed, tmp_path, salvage=True)
    assert "perf.data.formats" in (error.value.help or "")


def kernel_at(address: int) -> bytes:
    """Where the kernel was when it was recorded."""
    where = struct.pack("<IIQQQ", 0xFFFFFFFF, 0, address, 1 << 24, address)
    return entry(1, where + b"[kernel.kallsyms]_text\0\0" + bytes(32))


@pytest.mark.parametrize("same_boot", [True, False])
def test_a_killed_recorders_file_is_read_with_the_formats_of_another(
    tmp_path: Path, same_boot: bool
) -> None:
    a = Attr()
    records = [kernel_at(0xFFFF_FFFF_8000_0000), *(a.sample(i, mapped(), i % 2) for i in range(9))]
    whole = Recording(records=records).as_file()
    at, size = struct.unpack_from("<QQ", whole, 40)
    killed = whole[:48] + bytes(8) + whole[56 : at + size - 28]
    other = kernel_at(0xFFFF_FFFF_8000_0000 if same_boot else 0xFFFF_FFFF_9000_0000)
    (tmp_path / "perf.data.formats").write_bytes(Recording(records=[other]).as_file())
    if not same_boot:
        with pytest.raises(ImportFormatError, match="the same boot"):
            imported(killed, tmp_path, salvage=True)
        return
    manifest, rows = imported(killed, tmp_path, salvage=True)
    assert [r["ts_ns"] for r in rows if r["event"] == "iommu.map"] == list(range(8))
    marks = [(r["cpu"], r["ts_ns"], r["until_ns"], r["count"]) for r in rows
             if r["event"] == "trace.lost"]  # fmt: skip
    assert marks == [(0, 6, 7, None), (1, 7, 7, None)]
    assert manifest.lost_unknown
    assert manifest.sources[0]["formats_from"] == "perf.data.formats"
    assert "is cut off" in str(manifest.sources[0]["salvaged"])


def test_damage_in_the_middle_costs_what_comes_after(tmp_path: Path) -> None:
    a = Attr()
    records = [a.sample(10, mapped()), struct.pack("<IHH", 9, 0, 0), a.sample(20, mapped())]
    raw = Recording(records=records).as_file()
    with pytest.raises(ImportFormatError, match="damaged at byte") as error:
        imported(raw, tmp_path)
    assert "--salvage" in (error.value.help or "")
    manifest, rows = imported(raw, tmp_path, salvage=True)
    assert [(r["event"], r["ts_ns"]) for r in rows] == [("iommu.map", 10), ("trace.lost", 10)]
    assert "damaged at byte" in str(manifest.sources[0]["salvaged"])
    whole, _ = imported(Recording(records=records[:1]), tmp_path, salvage=True)
    assert whole.sources[0]["salvaged"] == "nothing is damaged"
    assert not whole.loss_marks


ZOO = Recording(
    attrs=[Attr(sample_type=ALL_FIELDS, read_format=GROUP | 0x17)],
    records=[
        Attr(sample_type=ALL_FIELDS, read_format=GROUP | 0x17).sample(i, mapped(), i % 3)
        for i in range(6)
    ]
    + [
        entry(2, struct.pack("<QQ", 7, 3) + Attr(sample_type=ALL_FIELDS).trailer(9, 1)),
        entry(13, struct.pack("<Q", 9) + Attr(sample_type=ALL_FIELDS).trailer(0, 0)),
        entry(3, bytes(24) + Attr(sample_type=ALL_FIELDS).trailer(9, 1)),
        entry(7, bytes(24) + Attr(sample_type=ALL_FIELDS).trailer(9, 1)),
        entry(69, struct.pack("<5Q", 1, 7, 0, 0, 0)),
        entry(71, bytes(40)),
        entry(68, b""),
    ],
)


@given(
    st.booleans(),
    st.booleans(),
    st.lists(st.tuples(st.integers(0, 1 << 20), st.integers(0, 255)), max_size=5),
    st.integers(0, 1 << 20),
)
@settings(max_examples=150, deadline=None)
def test_flipped_and_cut_bytes_give_a_trace_or_one_error(
    tmp_path_factory: pytest.TempPathFactory,
    pipe: bool,
    salvage: bool,
    flips: list[tuple[int, int]],
    cut: int,
) -> None:
    raw = bytearray(ZOO.as_pipe() if pipe else ZOO.as_file())
    for at, value in flips:
        raw[at % len(raw)] = value
    folder = tmp_path_factory.mktemp("f")
    try:
        manifest, rows = imported(bytes(raw[: len(raw) - cut % 400]), folder, salvage=salvage)
    except TracekitError:
        assert not (folder / "t.parquet").exists()
        return
    assert len(rows) == manifest.rows


def test_the_formats_of_this_file_parse() -> None:
    for system, form in FORMATS:
        assert parse_format(system, form).fields
