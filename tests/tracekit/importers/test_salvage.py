"""What is kept of damaged recordings: of each CPU the rows before the damage, then a hole."""

from __future__ import annotations

import gzip
import random
import struct
from collections import Counter, defaultdict
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tracekit.cli import main
from tracekit.errors import TracekitError
from tracekit.ftrace import writer
from tracekit.ftrace.trace_dat import TraceDat
from tracekit.ftrace.writer import Instance, Lost, Record, Recording, event_format, pages, record
from tracekit.importers import import_files
from tracekit.store import Manifest

SAMPLES = Path(__file__).parents[2] / "data" / "recordings"
KINDS = ("v6-none", "v7-none", "v7-zstd", "v7-zlib")
LAYOUTS = [(6, "none"), (7, "none"), (7, "zstd"), (7, "zlib")]
MAP, UNMAP = 700, 701
WORDS = [page * 4096 + at for page in range(3) for at in (8, 9, 16, 17, 20, 21)]
U64 = [(f"u64 {n}", 8, False) for n in ("iova", "size", "unmapped_size")]
FORMATS = [
    ("iommu", event_format("map", MAP, U64[:2])),
    ("iommu", event_format("unmap", UNMAP, U64)),
]

Row = dict[str, object]
Streams = dict[tuple[object, bool], list[Row]]


def imported(path: Path, *, salvage: bool = True) -> tuple[Manifest, list[Row]]:
    """The manifest and the rows, without their numbers."""
    out = path.with_suffix(".parquet")
    manifest = import_files([path], out, salvage=salvage)
    return manifest, pq.read_table(out).drop_columns(["seq"]).to_pylist()


def streams(rows: list[Row]) -> tuple[Streams, list[Row]]:
    """Rows by CPU and instance (openat is recorded in the second one), and the holes."""
    found: Streams = defaultdict(list)
    holes = []
    for row in rows:
        if row["event"] == "trace.lost":
            holes.append(row)
        else:
            found[row["cpu"], "openat" in str(row["source"])].append(row)
    return found, holes


def checked(path: Path, whole: Streams, last_ns: int) -> str:
    """Salvage a damaged file: what came of it.  What does not hold is an assertion."""
    out = path.with_suffix(".parquet")
    out.unlink(missing_ok=True)
    try:
        manifest, rows = imported(path)
    except TracekitError as error:
        said = error.message
    else:
        said = ""
    if said:
        assert "\n" not in said
        assert not out.exists()
        return "refused"
    found, holes = streams(rows)
    times = [row["ts_ns"] for row in rows]
    assert times == sorted(times)  # type: ignore[type-var]
    for key, kept in found.items():
        assert kept == whole[key][: len(kept)], key
    short = [key for key in whole if len(found[key]) < len(whole[key])]
    # More, where nobody can know that a CPU's pages were all there.
    assert Counter(cpu for cpu, _ in short) <= Counter(hole["cpu"] for hole in holes)
    for hole in holes:
        ends = [
            kept[-1]["ts_ns"] if (kept := found[key]) else min(times, default=0)  # type: ignore[type-var]
            for key in whole
            if key[0] == hole["cpu"]
        ]
        assert hole["ts_ns"] in ends
        assert hole["count"] is None
        assert hole["until_ns"] == last_ns or hole["until_ns"] == max(times)  # type: ignore[type-var]
    assert len(holes) <= len(short) + 1
    assert manifest.lost_unknown == bool(holes)
    assert manifest.sources[0]["salvaged"]
    return "in part" if short else "whole"


@pytest.mark.parametrize("kind", KINDS)
def test_a_recording_cut_anywhere_keeps_what_each_cpu_had_before(kind: str, tmp_path: Path) -> None:
    raw = gzip.decompress((SAMPLES / f"salvage-{kind}.dat.gz").read_bytes())
    path = tmp_path / "t.dat"
    path.write_bytes(raw)
    _, rows = imported(path, salvage=False)
    whole, _ = streams(rows)
    # The statistics say when recording ended, to the microsecond.
    last_ns = 10_491_374_000
    outcomes: Counter[str] = Counter()
    for cut in [*range(0, len(raw), len(raw) // 25), len(raw) - 1, len(raw) - 150]:
        path.write_bytes(raw[:cut])
        outcomes[checked(path, whole, last_ns)] += 1
    assert min(outcomes[o] for o in ("refused", "in part")) > 2, outcomes
    assert outcomes["whole"] or kind == "v6-none", outcomes


def mapped(ts: int) -> Record:
    """A map."""
    return Record(ts, record(MAP, 42, struct.pack("<QQ", ts << 12, 4096)))


def two_cpus() -> Recording:
    """A recording with eight pages."""
    cpus: list[list[Record | Lost]] = [
        [mapped(1000 + 2 * i + c) for i in range(520)] for c in (0, 1)
    ]
    return Recording(formats=FORMATS, cpus=cpus)


@pytest.mark.parametrize(("version", "compression"), LAYOUTS)
def test_every_place_of_a_cut_gives_a_prefix_or_one_message(
    version: int, compression: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "CHUNK_PAGES", 1)
    path = tmp_path / "t.dat"
    two_cpus().write(path, version=version, compression=compression)
    raw = path.read_bytes()
    whole, _ = streams(imported(path, salvage=False)[1])
    outcomes: Counter[str] = Counter()
    with TraceDat.open(path) as file:
        edges = [c.offset + d for b in file.buffers for c in b.cpus for d in (-1, 0, 1, 4, 5, 12)]
    for cut in [*range(0, len(raw), len(raw) // 40), *edges, len(raw) - 1]:
        path.write_bytes(raw[:cut])
        outcomes[checked(path, whole, -1)] += 1
    print(version, compression, dict(outcomes))
    assert min(outcomes[o] for o in ("refused", "in part")) > 2, outcomes


@pytest.mark.parametrize(("version", "compression"), LAYOUTS)
def test_a_flipped_bit_costs_no_more_than_the_rest_of_its_cpu(
    version: int, compression: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "CHUNK_PAGES", 1)
    path = tmp_path / "t.dat"
    two_cpus().write(path, version=version, compression=compression)
    raw = path.read_bytes()
    with TraceDat.open(path) as file:
        first, second = file.buffers[0].cpus
    whole, _ = streams(imported(path, salvage=False)[1])
    rng = random.Random(version + len(compression))
    outcomes: Counter[str] = Counter()
    for _ in range(15):
        broken = bytearray(raw)
        # A plain page's few words that say how it is read, or any byte of a chunk.
        at = rng.randrange(second.size) if compression != "none" else rng.choice(WORDS)
        broken[second.offset + at] ^= 1 << rng.randrange(8)
        path.write_bytes(broken)
        manifest, rows = imported(path)
        found, holes = streams(rows)
        assert found[0, False] == whole[0, False]
        assert len(holes) <= 1 or manifest.events.get("trace.clock_back")
        outcomes["hole" if holes else "none"] += 1
    assert outcomes["hole"] > 0
    for _ in range(24):
        broken = bytearray(raw)
        for _ in range(rng.choice((1, 8))):
            broken[rng.randrange(first.offset)] ^= 1 << rng.randrange(8)
        path.write_bytes(broken)
        path.with_suffix(".parquet").unlink(missing_ok=True)
        said = ""
        try:
            imported(path)
        except TracekitError as error:
            said = error.message
        outcomes["refused" if said else "kept"] += 1
        assert "\n" not in said
        assert path.with_suffix(".parquet").exists() == (not said)
    assert min(outcomes[o] for o in ("kept", "refused")) > 0, outcomes


def test_a_damaged_page_ends_its_cpu_and_the_hole_reaches_to_the_last_time(tmp_path: Path) -> None:
    path = tmp_path / "t.dat"
    two_cpus().write(path)
    raw = bytearray(path.read_bytes())
    with TraceDat.open(path) as file:
        first = file.buffers[0].cpus[0]
    struct.pack_into("<Q", raw, first.offset + 2 * 4096 + 8, 4097)
    path.write_bytes(raw)
    with pytest.raises(TracekitError, match="page 2 is damaged") as caught:
        imported(path, salvage=False)
    assert caught.value.help is not None
    assert "--salvage" in caught.value.help
    manifest, rows = imported(path)
    found, holes = streams(rows)
    kept = found[0, False]
    assert 0 < len(kept) < 520
    assert len(found[1, False]) == 520
    (hole,) = holes
    assert (hole["cpu"], hole["ts_ns"], hole["until_ns"]) == (0, kept[-1]["ts_ns"], 2039)
    source = manifest.sources[0]
    assert (source["damages"], manifest.lost_unknown, manifest.loss_marks) == (1, True, 1)
    assert source["salvaged"] == (
        "t.dat, CPU 0: page 2 is damaged: the commit word says more bytes than a page holds"
    )


def test_a_record_that_is_too_short_for_its_event_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "t.dat"
    one: list[Record | Lost] = [mapped(1000 + i) for i in range(300)]
    one[200] = Record(1200, record(UNMAP, 42, struct.pack("<QQ", 1, 2)))
    Recording(formats=FORMATS, cpus=[one]).write(path)
    with pytest.raises(TracekitError, match="fewer than its format says"):
        imported(path, salvage=False)
    manifest, rows = imported(path)
    kept, holes = streams(rows)
    assert 100 < len(kept[0, False]) <= 200
    assert len(holes) == 1
    assert "a record is shorter" in str(manifest.sources[0]["salvaged"])


def test_an_intact_recording_is_salvaged_whole(tmp_path: Path) -> None:
    path = tmp_path / "t.dat"
    two_cpus().write(path)
    before = imported(path, salvage=False)[1]
    manifest, rows = imported(path)
    assert rows == before
    assert manifest.sources[0]["salvaged"] == "nothing is damaged"
    assert manifest.loss_marks == 0


def test_holes_of_the_recorder_stay_beside_those_of_the_damage(tmp_path: Path) -> None:
    path = tmp_path / "t.dat"
    one: list[Record | Lost] = [mapped(5), Lost(17), *(mapped(9 + i) for i in range(400))]
    Recording(formats=FORMATS, cpus=[one]).write(path)
    path.write_bytes(path.read_bytes()[:-1])
    manifest, rows = imported(path)
    assert [r["count"] for r in rows if r["event"] == "trace.lost"] == [17, None]
    assert (manifest.lost_events, manifest.lost_unknown) == (17, True)


def test_help_names_salvage_only_where_it_would_help(tmp_path: Path) -> None:
    path = tmp_path / "t.dat"
    two_cpus().write(path, version=6)
    raw = path.read_bytes()
    for size, helps in ((300, False), (len(raw) - 5000, True)):
        path.write_bytes(raw[:size])
        with pytest.raises(TracekitError) as caught:
            imported(path, salvage=False)
        assert ("--salvage" in (caught.value.help or "")) == helps


def test_nothing_left_is_said_with_its_reason(tmp_path: Path) -> None:
    path = tmp_path / "t.dat"
    two_cpus().write(path)
    with TraceDat.open(path) as file:
        first = file.buffers[0].cpus[0].offset
    raw = path.read_bytes()
    for size, why in ((200, "metadata|section"), (first, "CPU 0: pages are missing")):
        path.write_bytes(raw[:size])
        with pytest.raises(TracekitError, match=f"nothing of t.dat can be salvaged: .*({why})"):
            imported(path)


@pytest.mark.parametrize("kind", KINDS)
def test_pages_that_a_killed_trace_cmd_left_beside_the_file_are_taken(
    kind: str, tmp_path: Path
) -> None:
    raw = gzip.decompress((SAMPLES / f"salvage-{kind}.dat.gz").read_bytes())
    path = tmp_path / "t.dat"
    path.write_bytes(raw)
    with TraceDat.open(path) as file:
        first = file.buffers[0].cpus[0].offset
    path.write_bytes(raw[:first])
    beside = [Record(10**9 + i, record(60000, 7, b"")) for i in range(2000)]
    for cpu in (0, 1):
        (tmp_path / f"t.dat.cpu{cpu}").write_bytes(pages(beside))
    (tmp_path / "t.dat.cpus").write_bytes(b"not one of them")
    manifest, _ = imported(path)
    assert {r.name: r.count for r in manifest.recorded if r.count} == {"?:60000": 4000}
    assert "t.dat.cpuN beside it" in str(manifest.sources[0]["salvaged"])


def test_a_lost_instance_is_a_hole_on_each_of_its_cpus(tmp_path: Path) -> None:
    path = tmp_path / "t.dat"
    made = Recording(formats=FORMATS, cpus=[[mapped(5)], []])
    made.instances = [Instance(name="more", cpus=[[mapped(7)], [mapped(8)]])]
    made.write(path, version=6)
    raw = path.read_bytes()
    path.write_bytes(raw[: raw.rindex(b"flyrecord")])
    manifest, rows = imported(path)
    assert [(r["event"], r["cpu"]) for r in rows] == [
        ("iommu.map", 0), ("trace.lost", 0), ("trace.lost", 1),
    ]  # fmt: skip
    assert manifest.sources[0]["instances"] == "more"


def test_the_command_salvages_and_says_how_without(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, out = tmp_path / "t.dat", tmp_path / "t.parquet"
    two_cpus().write(path)
    path.write_bytes(path.read_bytes()[:-100])
    assert main(["import", str(path), "-o", str(out)]) == 2
    said = capsys.readouterr().err
    assert "error: t.dat: the data of CPU 1" in said
    assert "--salvage" in said
    assert not out.exists()
    assert main(["import", str(path), "-o", str(out), "--salvage"]) == 0
    assert out.exists()
