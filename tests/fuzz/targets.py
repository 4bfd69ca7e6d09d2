"""What is fuzzed: for each parser how a hostile input is made of small real ones, and its check."""

from __future__ import annotations

import gzip
import json
import tarfile
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

import numpy as np
import polars as pl
from fuzz import rows
from fuzz.define import COMPILED, Case, Target
from fuzz.mutations import edge, mutated, mutated_text
from fuzz.oracle import check_import, check_replay, check_trace, refused_well
from fuzz.recordings import (
    Parts,
    mutated_gzip,
    mutated_pages,
    mutated_perf_data,
    mutated_simpletrace,
    parts_of,
    rebuilt,
)

from tracekit.compiled.kernels import kernel
from tracekit.errors import TracekitError, UsageError
from tracekit.ftrace.event_format import parse_format
from tracekit.ftrace.kallsyms import Kallsyms
from tracekit.ftrace.probes import parse_definitions
from tracekit.ftrace.recognise import probe_address_field, recognise
from tracekit.ftrace.ring_buffer import FAULTS, PageLayout, Records, decode_pages, page_layout
from tracekit.importers import import_files
from tracekit.importers.clocks import parse_clock_offset
from tracekit.store import Manifest, arrow_schema, open_trace
from tracekit.store.footer import seal_footer

__all__ = ("TARGETS",)

DATA = Path(__file__).parents[1] / "data"
PROBES = (
    "traces/kvm/dynamic_events-7.3.4-tracekit-lab.txt",
    "traces/vfio/dynamic_events-6.12.95+deb12-amd64.txt",
    "qemu/dynamic_events-qemu.txt",
)
LARGEST_SEED = 200_000
Rng = Random


# -- seeds -----------------------------------------------------------------------------------------


def _read(path: Path) -> bytes:
    raw = path.read_bytes()
    return gzip.decompress(raw) if path.suffix == ".gz" else raw


@cache
def seeds(*patterns: str) -> tuple[tuple[str, bytes], ...]:
    """Files of tests/data, unpacked: their names there, and bytes."""
    found = sorted({p for pattern in patterns for p in DATA.glob(pattern)})
    assert found, patterns
    return tuple((p.relative_to(DATA).as_posix(), _read(p)) for p in found)


def contents(*patterns: str) -> tuple[bytes, ...]:
    """Their bytes alone."""
    return tuple(raw for _, raw in seeds(*patterns))


def trace_dats() -> tuple[bytes, ...]:
    return contents("recordings/*.dat.gz", "traces/*/*.dat", "qemu/*.dat")


@cache
def trace_dat_parts() -> tuple[Parts, ...]:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "t.dat"
        found = []
        for raw in trace_dats():
            path.write_bytes(raw)
            found.append(parts_of(path))
    return tuple(found)


@cache
def raw_folder() -> Mapping[str, bytes]:
    with tarfile.open(DATA / "recordings/raw.tar.gz") as file:
        return {
            m.name.removeprefix("raw/"): held.read()
            for m in file.getmembers()
            if (held := file.extractfile(m)) is not None and m.name.startswith("raw/")
        }


@cache
def trace_rows() -> tuple[list[rows.Row], ...]:
    """Rows of recordings, for the engine."""
    with TemporaryDirectory() as folder:
        source, out = Path(folder) / "t.dat", Path(folder) / "t.parquet"
        found = []
        for raw in (*trace_dats(), *contents("ftrace_text/trace.txt", "qemu/log-*")):
            source.write_bytes(raw)
            import_files([source], out)
            found.append([r for b in open_trace(out).batches() for r in b.to_pylist()])
    for table in found:
        for row in table:
            del row["seq"]
    return tuple(found)


# -- inputs ----------------------------------------------------------------------------------------


def _options(rng: Rng, *, salvage: float = 0.5) -> dict[str, object]:
    return {"salvage": rng.random() < salvage}


def make_trace_dat(rng: Rng) -> Case:
    """A damaged trace.dat: bytes of a real one, or any version made of damaged parts."""
    if rng.random() < 0.35:
        raw = mutated(rng, rng.choice(trace_dats()), trace_dats())
    else:
        every = trace_dat_parts()
        with TemporaryDirectory() as folder:
            raw = rebuilt(rng, rng.choice(every), every, Path(folder) / "t.dat")
    files, options = {"t.dat": raw}, _options(rng)
    if rng.random() < 0.2:
        files["probes.txt"] = mutated_text(rng, rng.choice(contents(*PROBES)))
        options["probes"] = "probes.txt"
    return Case(files=files, inputs=("t.dat",), options=options)


def make_raw_pages(rng: Rng) -> Case:
    """A folder of tracefs's files, some damaged, missing, or under another name."""
    files = dict(raw_folder())
    for _ in range(rng.choice((1, 1, 2, 4))):
        name = rng.choice(sorted(files))
        kind = rng.random()
        if kind < 0.1 and len(files) > 1:
            del files[name]
        elif kind < 0.2:
            cpu = rng.choice((0, 2, 7, 8191, 8192, 9999))
            to = rng.choice((f"per_cpu/cpu{cpu}/trace_pipe_raw", f"x.cpu{cpu}", "kallsyms"))
            files[to] = files[name]
        elif "raw" in name or ".cpu" in name:
            pages = mutated_pages if rng.random() < 0.8 else (lambda r, d, size: mutated(r, d))
            files[name] = pages(rng, files[name], 4096)
        else:
            files[name] = mutated_text(rng, files[name])
    inside = {f"raw/{name}": data for name, data in files.items()}
    return Case(files=inside, inputs=("raw",), options=_options(rng))


def make_ring_pages(rng: Rng) -> Case:
    """Pages alone, of several sizes."""
    parts = rng.choice(trace_dat_parts())
    raw = rng.choice([p for p in parts.pages if p] or [bytes(4096)])
    size = parts.page_size
    if rng.random() < 0.1:
        size = rng.choice((4096, 8192, 65536))
    raw = mutated_pages(rng, raw[: 8 * size], size, parts.pages)
    for _ in range(rng.choice((0, 0, 1))):
        raw = mutated_pages(rng, raw, size, parts.pages)
    return Case(files={"pages": raw[: len(raw) // size * size]}, options={"page_size": size})


def make_ftrace_text(rng: Rng) -> Case:
    """Text of tracefs's two files and of trace-cmd's report, damaged."""
    texts = (*contents("ftrace_text/trace*.txt"), *contents("recordings/*.report.txt.gz"))
    text = rng.choice(texts)
    lines = text.splitlines(keepends=True)
    begin = rng.choice((0, 0, rng.randrange(len(lines))))
    text = b"".join(
        [*lines[: rng.choice((0, 12))], *lines[begin : begin + rng.choice((3, 30, 200))]]
    )
    files, options = {"t.txt": mutated_text(rng, text, texts)}, _options(rng)
    if rng.random() < 0.2:
        files["probes.txt"] = mutated_text(rng, _read(DATA / "ftrace_text/dynamic_events.txt"))
        options["probes"] = "probes.txt"
    return Case(files=files, inputs=("t.txt",), options=options)


def make_perf_data(rng: Rng) -> Case:
    """perf.data of file and pipe mode, compressed or not."""
    every = contents("perf/*.data")
    raw = rng.choice(every)
    others = [raw, *every]
    raw = mutated(rng, raw, others) if rng.random() < 0.3 else mutated_perf_data(rng, raw, others)
    files = {"perf.data": raw}
    if rng.random() < 0.05:
        files["perf.data.formats"] = rng.choice(every)
    return Case(files=files, inputs=("perf.data",), options=_options(rng))


def make_simpletrace(rng: Rng) -> Case:
    """A simpletrace, now and then with a damaged list of QEMU's declarations."""
    raw = _read(DATA / "qemu/simpletrace.bin")
    files = {
        "s.bin": mutated(rng, raw) if rng.random() < 0.3 else mutated_simpletrace(rng, raw, ())
    }
    options = _options(rng)
    if rng.random() < 0.3:
        declared = _read(DATA / "qemu/trace-events.txt")
        files["events"] = mutated_text(rng, declared) if rng.random() < 0.8 else declared
        options["trace_events"] = "events"
    return Case(files=files, inputs=("s.bin",), options=options)


def make_qemu_log(rng: Rng) -> Case:
    """QEMU's log of several versions, plain or gzip."""
    texts = contents("qemu/log-sample-*.txt", "qemu/*.log.gz")
    text = rng.choice(texts)
    if len(text) > 40_000:
        begin = text.find(b"\n", rng.randrange(len(text) // 2)) + 1
        text = text[begin : begin + 20_000]
    worse = mutated_gzip if rng.random() < 0.4 else mutated_text
    raw = worse(rng, text, texts)
    return Case(files={"q.log": raw}, inputs=("q.log",), options=_options(rng))


def make_definitions(rng: Rng) -> Case:
    """A recording that is sound, and definitions that are not."""
    names = ("traces/kvm/*fmt-default*.dat", "traces/vfio/*type1*.dat", "qemu/*.dat")
    at = rng.randrange(3)
    text = mutated_text(rng, contents(PROBES[at])[0], contents(*PROBES))
    files = {"t.dat": contents(names[at])[0], "probes.txt": text}
    return Case(files=files, inputs=("t.dat",), options={"probes": "probes.txt"})


def make_texts(rng: Rng) -> Case:
    """The texts that explain records: a format, a header page, symbols; and an offset's text."""
    parts = rng.choice(trace_dat_parts())
    system, text = rng.choice(parts.formats)
    files = {
        "system": mutated_text(rng, system.encode()) if rng.random() < 0.1 else system.encode(),
        "format": mutated_text(rng, text, [t for _, t in parts.formats]),
        "header_page": mutated_text(rng, parts.header_page),
        "kallsyms": mutated_text(rng, parts.kallsyms or b"ffffffff81000000 T _text\n"),
        "definitions": mutated_text(rng, rng.choice(contents(*PROBES))),
        "offset": mutated_text(rng, b"-1795364545.25s+-2ms")[:200],
    }
    return Case(files=files, options={"address": edge(rng)})


def make_merge(rng: Rng) -> Case:
    """A kernel's recording and QEMU's of the same host, one or both damaged."""
    kernel_side, qemu_side = (
        contents("qemu/*.dat")[0],
        rng.choice((contents("qemu/q10*.log.gz")[0], _read(DATA / "qemu/simpletrace.bin"))),
    )
    if rng.random() < 0.3:
        kernel_side = rng.choice((*contents("ftrace_text/trace.txt"), *contents("perf/*.data")))
    if rng.random() < 0.4:
        kernel_side = mutated(rng, kernel_side)
    if rng.random() < 0.7:
        binary = qemu_side.startswith(b"\xff")
        qemu_side = (
            mutated_simpletrace(rng, qemu_side, ()) if binary else mutated_text(rng, qemu_side)
        )
    files = {"a": kernel_side, "b": qemu_side}
    if rng.random() < 0.1:
        files["c"] = rng.choice(contents("qemu/log-sample-*.txt"))
    options = _options(rng)
    if rng.random() < 0.5:
        number = rng.choice((edge(rng), rng.getrandbits(40)))
        unit, sign = rng.choice(("ns", "us", "s")), rng.choice(("", "-"))
        options["clock_offset"] = f"{sign}{number}{unit}"
    inputs = list(files)
    rng.shuffle(inputs)
    return Case(files=files, inputs=tuple(inputs), options=options)


def make_rows(rng: Rng) -> Case:
    """A sound file with hostile rows, for the engine."""
    if rng.random() < 0.5:
        table = rows.hostile_table(rng)
    else:
        table = rows.mutated_table(rng, rng.choice(trace_rows()))
    with TemporaryDirectory() as folder:
        raw = rows.written(Path(folder) / "t.parquet", table, _manifest(rng))
    options = {"in_place": rng.random() < 0.3, "grace_ns": rng.choice((0, 10**6, edge(rng, 63)))}
    return Case(files={"t.parquet": raw}, inputs=("t.parquet",), options=options)


def make_sparse(rng: Rng) -> Case:
    """Calls all over the address space: what the engine keeps of them is bounded."""
    with TemporaryDirectory() as folder:
        raw = rows.written(Path(folder) / "t.parquet", rows.sparse_table(rng), _manifest(rng))
    options = {"in_place": rng.random() < 0.3}
    return Case(files={"t.parquet": raw}, inputs=("t.parquet",), options=options)


def _manifest(rng: Rng) -> Manifest:
    return Manifest(
        host="h", kernel="7.3", clock=rng.choice(("mono", "realtime", "x")), cpus=2,
        lost_events=rng.choice((0, 0, 3, (1 << 63) - 1)), lost_unknown=rng.random() < 0.1,
        hz=rng.choice((None, 0, 250, (1 << 63) - 1)),
    )  # fmt: skip


def make_parquet(rng: Rng) -> Case:
    """A trace whose file is damaged: pages, the sealed footer, the manifest, or the columns."""
    table = rows.mutated_table(rng, rng.choice(trace_rows()))
    with TemporaryDirectory() as folder:
        path = Path(folder) / "t.parquet"
        good = rows.written(path, table, _manifest(rng))
        kind = rng.random()
        if kind < 0.25:
            raw = mutated(rng, good)
        elif kind < 0.55:
            raw = _resealed(rng, good, path)
        else:
            raw = _foreign(rng, path)
    files = {"t.parquet": raw}
    if rng.random() < 0.1:
        files = {"t/1.parquet": raw, "t/2.parquet": rng.choice((good, raw))}
    return Case(files=files, inputs=(next(iter(files)).split("/")[0],))


def _resealed(rng: Rng, good: bytes, path: Path) -> bytes:
    """Damage in the footer or anywhere, with the checksum over the footer right again."""
    size = int.from_bytes(good[-8:-4], "little")
    begin = len(good) - 8 - size
    within = (begin, len(good) - 8) if rng.random() < 0.6 else (4, begin - 12)
    raw = mutated(rng, good, within=within)
    path.write_bytes(raw[: begin - 12] + raw[begin:])
    seal_footer(path)
    return path.read_bytes()


def _foreign(rng: Rng, path: Path) -> bytes:
    """A sound Parquet file of somebody else: another manifest, order, encoding or other columns."""
    trace = open_trace(path)
    table = trace.scan().collect().to_arrow()
    table = table.cast(arrow_schema())
    said = json.loads(trace.manifest.to_json())
    text = json.dumps(said).encode()
    for _ in range(rng.choice((0, 1, 2))):
        kind = rng.randrange(6)
        if kind == 0:
            said[rng.choice(sorted(said))] = rng.choice(
                (None, edge(rng), -1, 1.5, "x" * 300, [], {}, [edge(rng)] * 2, True, "\x1b[2J")
            )
            text = json.dumps(said).encode()
        elif kind == 1:
            text = mutated_text(rng, text)
        elif kind == 2 and table.num_columns > 1:
            table = table.remove_column(rng.randrange(table.num_columns))
        elif kind == 3 and table.num_rows:
            table = table.take(rng.sample(range(table.num_rows), table.num_rows))
        elif kind == 4:
            at = rng.randrange(table.num_columns)
            table = table.append_column(
                rng.choice((table.column_names[at], "new")), table.column(at)
            )
        else:
            name = "seq" if "seq" in table.column_names else table.column_names[0]
            at = table.column_names.index(name)
            if str(table.schema.types[at]) == "int64":
                first = rng.choice((edge(rng, 62), 0, -5))
                numbers = np.arange(table.num_rows, dtype=np.int64) + first
                table = table.set_column(at, table.schema.field(at), [numbers])
    rows.foreign(
        path, table, text,
        compression=rng.choice(("NONE", "SNAPPY", "ZSTD", "GZIP", "LZ4", "BROTLI")),
        use_dictionary=rng.random() < 0.5,
        data_page_version=rng.choice(("1.0", "2.0")),
        write_page_checksum=rng.random() < 0.5,
        data_page_size=rng.choice((64, 1 << 20)),
        write_statistics=rng.random() < 0.5,
    )  # fmt: skip
    seal_footer(path)
    return path.read_bytes()


# -- checks ----------------------------------------------------------------------------------------


def check_ring_pages(case: Case, folder: Path) -> str:
    """Records lie in their pages, times never run back, and machine code finds what Python does."""
    raw, size = case.files["pages"], int(case.options["page_size"])
    count = len(raw) // size
    layout = PageLayout(size, 0, 8, 16, size - 16)
    rooms = []
    for compiled in (False, True)[: 1 + COMPILED]:
        room = Records(1, max(count, 1) * size, size).stream(0)
        chunk = np.frombuffer(raw, np.uint8).copy()
        result = kernel(decode_pages, compile=compiled)(
            chunk.view(np.uint32), count, size, layout.stamp, layout.commit, layout.data,
            room.ts, room.at, room.size, room.until, room.lost, room.state,
        )  # fmt: skip
        rooms.append((result, room))
        assert result == 0 or result in FAULTS
        found, marks = int(room.state[3]), int(room.state[4])
        ts, at, sizes = room.ts[:found], room.at[:found], room.size[:found]
        assert (ts >= 0).all()
        assert (ts[1:] >= ts[:-1]).all()
        real = at >= 0
        assert (at[real] % 4 == 0).all()
        assert (sizes[real] >= 8).all()
        assert (at[real].astype(np.int64) + sizes[real] <= len(raw)).all()
        assert ((sizes[~real] >= 0) & (sizes[~real] < max(marks, 1))).all()
    (one, a), (other, b) = rooms[0], rooms[-1]
    assert one == other
    n = int(a.state[3])
    assert (a.state[:5] == b.state[:5]).all()
    for name in ("ts", "at", "size"):
        assert (getattr(a, name)[:n] == getattr(b, name)[:n]).all(), name
    return "refused" if one else "read"


def check_texts(case: Case, folder: Path) -> str:
    """Each text by itself."""
    refused = 0
    texts = {name: data.decode("utf-8", "replace") for name, data in case.files.items()}
    definitions = {}
    try:
        definitions = {
            d.source: d for d in parse_definitions(texts["definitions"].splitlines(), "x")
        }
    except TracekitError as error:
        refused_well(error)
        refused += 1
    try:
        layout = page_layout(texts["header_page"], 4096)
        assert 0 <= layout.stamp < layout.data < 4096
        assert layout.capacity == 4096 - layout.data
    except TracekitError as error:
        refused_well(error)
        refused += 1
    symbols = Kallsyms(case.files["kallsyms"])
    numbers = [int(case.options["address"])]
    for line in case.files["kallsyms"].split(b"\n")[:3]:
        word = line[:16]
        if len(word) == 16 and set(word) <= set(b"0123456789abcdef"):
            numbers.append(int(word, 16))
    functions = [name for n in numbers for name in symbols.functions_at(n)]
    try:
        event = parse_format(texts["system"], texts["format"])
        probe_address_field(event)
        recognise(event, definitions.get(event.source), [])
        recognise(event, definitions.get(event.source), [*functions, "vfio_iommu_type1_ioctl"])
        for definition in definitions.values():
            recognise(event, definition, functions)
    except TracekitError as error:
        refused_well(error)
        refused += 1
    try:
        parse_clock_offset(texts["offset"])
    except UsageError as error:
        refused_well(error)
        refused += 1
    return "refused" if refused == 4 else "read"


def check_parquet(case: Case, folder: Path) -> str:
    """A trace that opens is sound, and can be replayed."""
    path = folder / case.inputs[0]
    try:
        trace = open_trace(path)
        batches = sum(b.num_rows for b in trace.batches())
        assert batches == trace.manifest.rows
        trace.rows([0, 1, trace.manifest.first_seq, (1 << 63) - 1])
        repr(trace)
        trace._repr_html_()
        check_replay(trace)
        frame = trace.scan()
        with suppress(pl.exceptions.PolarsError):  # of pages that Arrow reads: the caller's to see
            frame.collect()
    except TracekitError as error:
        refused_well(error)
        return "refused"
    return "read"


def check_rows(case: Case, folder: Path) -> str:
    """Our writer wrote it, so it must be read; and the engine must take whatever it holds."""
    trace = check_trace(folder / "t.parquet")
    return "refused" if check_replay(trace, **case.options) == "refused" else "read"


TARGETS: dict[str, Target] = {
    "trace.dat": Target(make=make_trace_dat, check=check_import, cases=60),
    "raw-pages": Target(make=make_raw_pages, check=check_import, cases=90),
    "ring-pages": Target(make=make_ring_pages, check=check_ring_pages, cases=1200),
    "ftrace-text": Target(make=make_ftrace_text, check=check_import, cases=110),
    "perf.data": Target(make=make_perf_data, check=check_import, cases=130),
    "simpletrace": Target(make=make_simpletrace, check=check_import, cases=130),
    "qemu-log": Target(make=make_qemu_log, check=check_import, cases=90),
    "definitions": Target(make=make_definitions, check=check_import, cases=28),
    "texts": Target(make=make_texts, check=check_texts, cases=250),
    "merge": Target(make=make_merge, check=check_import, cases=24),
    "parquet": Target(make=make_parquet, check=check_parquet, cases=45),
    "rows": Target(make=make_rows, check=check_rows, cases=40),
    "sparse": Target(make=make_sparse, check=check_rows, cases=4),
}
"""By name, in the order in which they are run."""
