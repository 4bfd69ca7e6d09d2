"""No input ends in anything but rows or one clear error: tests/fuzz, for some seconds.

``$TRACEKIT_FUZZ_SECONDS`` fuzzes for that long; without it so many inputs are tried as take about
twenty seconds, always the same ones.  docs/fuzzing.md says more.
"""

from __future__ import annotations

import base64
import os
import re
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fuzz.run import Summary, Workers
from fuzz.targets import TARGETS

from tracekit.errors import ImportFormatError, TraceFormatError, TracekitError
from tracekit.events.iommu import IommuMap
from tracekit.ftrace.clocks import Correction, Samples
from tracekit.ftrace.event_format import parse_fields
from tracekit.ftrace.kallsyms import Kallsyms
from tracekit.ftrace.probes import Argument, Dereference, parse_definitions, parse_fetch
from tracekit.ftrace.ring_buffer import MARK_LOST, Records, decode_pages
from tracekit.ftrace.writer import PAGE_SIZE
from tracekit.importers import import_files
from tracekit.store import open_trace, write_events
from tracekit.store.footer import seal_footer

SECONDS = float(os.environ.get("TRACEKIT_FUZZ_SECONDS", "0"))
ONLY_READ = ("rows", "sparse")
"""Targets of whose inputs none is refused: our own writer made them."""


@pytest.fixture(scope="module")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    """A process to fuzz in, with everything uncompiled."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("NUMBA_DISABLE_JIT", "1")
        with Workers(seed=1, keep=tmp_path_factory.mktemp("findings")) as made:
            yield made


@pytest.mark.parametrize("target", TARGETS)
def test_no_input_ends_in_anything_but_rows_or_one_clear_error(
    target: str, workers: Workers
) -> None:
    if SECONDS:
        summary = workers.fuzz(target, seconds=SECONDS / len(TARGETS))
    else:
        summary = workers.fuzz(target, cases=TARGETS[target].cases)
        assert summary.tried == TARGETS[target].cases
    print(summary.row())
    assert not summary.found, summary.findings()
    # Otherwise the inputs would be too bad, or too good, to say anything.
    assert summary.outcomes["read"] > 0
    assert summary.outcomes["refused"] > 0 or target in ONLY_READ


@pytest.fixture
def hasty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Workers]:
    """A process with little time and memory."""
    monkeypatch.setenv("TRACEKIT_FUZZ_CPU_SECONDS", "1.5")
    monkeypatch.setenv("TRACEKIT_FUZZ_MEMORY_MIB", "300")
    monkeypatch.setattr("fuzz.run.STILL_SECONDS", 1.0)
    with Workers(seed=1, keep=tmp_path / "findings") as made:
        yield made


def test_every_kind_of_failure_is_found_and_survived(hasty: Workers, tmp_path: Path) -> None:
    said: dict[str, Summary] = {}
    for fault in ("raises", "memory", "dies", "endless", "waits"):
        said[fault] = hasty.fuzz(f"faulty-{fault}", cases=5)
    kinds = {fault: "; ".join(summary.found) for fault, summary in said.items()}
    assert kinds["raises"].startswith("KeyError in faulty.py")
    assert kinds["memory"] == "too much memory"
    assert kinds["dies"].startswith("the process ended by SIGABRT")
    assert kinds["endless"].startswith("more than")
    assert kinds["waits"].startswith("no end")
    for fault, summary in said.items():
        assert summary.tried == 5, fault
        assert [one["cases"] for one in summary.found.values()] == [[2]], fault
    kept = sorted(p.name for p in (tmp_path / "findings").iterdir())
    assert kept == ["faulty-memory-1-2", "faulty-raises-1-2"]


# -- what was found once -------------------------------------------------------------------------


def test_holes_of_several_pages_before_the_first_record_are_in_order() -> None:
    # The first page has a hole and a late time, the second one a hole and an early time.
    words = np.zeros(2 * PAGE_SIZE // 4, np.uint32)
    for page, stamp in ((0, 1000), (1, 10)):
        at = page * PAGE_SIZE // 4
        words[at], words[at + 2] = stamp, 1 << 31
    room = Records(1, 2 * PAGE_SIZE, PAGE_SIZE).stream(0)
    result = decode_pages(
        words, 2, PAGE_SIZE, 0, 8, 16,
        room.ts, room.at, room.size, room.until, room.lost, room.state,
    )  # fmt: skip
    assert result == 0
    assert room.at[:2].tolist() == [MARK_LOST, MARK_LOST]
    assert room.ts[:2].tolist() == [1000, 1000]


def test_a_schema_that_arrow_reads_and_polars_does_not_is_one_error(tmp_path: Path) -> None:
    good, path = tmp_path / "good.parquet", tmp_path / "t.parquet"
    write_events(good, [IommuMap(ts_ns=1, iova=0, size=4096)])
    trace = open_trace(good)
    table = pa.Table.from_batches(trace.batches()).append_column("later", pa.array(["x"]))
    with pq.ParquetWriter(path, table.schema) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({b"tracekit": trace.manifest.to_json().encode()})
    raw = path.read_bytes()
    # Arrow's own schema stands in the footer in base64; Parquet's, which names the column too, not.
    (schema,) = re.findall(rb"ARROW:schema.{1,4}?(/////[A-Za-z0-9+/=]+)", raw, re.DOTALL)
    broken = base64.b64decode(schema).replace(b"later", b"lat\xffr")
    path.write_bytes(raw.replace(schema, base64.b64encode(broken)))
    seal_footer(path)
    assert open_trace(path).rows([0]).num_rows == 1
    for frame in (lambda t: t.scan(), lambda t: t.events("iommu.map")):
        with pytest.raises(TraceFormatError, match="damaged"):
            frame(open_trace(path))


def test_symbols_that_are_all_alike_are_searched_once() -> None:
    began = time.process_time()
    assert Kallsyms(b"0" * (4 << 20)).functions_at(5) == []
    alike = Kallsyms(b"0000000000000001 t a\n" * 200_000)
    assert set(alike.functions_at(5)) == {"a"}
    assert time.process_time() - began < 2


def test_a_field_line_of_a_megabyte_is_refused_at_once() -> None:
    began = time.process_time()
    with pytest.raises(ImportFormatError, match="cannot read the field line"):
        parse_fields("\tfield:" + "a[" * (1 << 19) + ";\toffset:8;\tsize:8;", "header_page")
    assert time.process_time() - began < 1


@pytest.mark.parametrize(
    ("expression", "read"),
    [
        ("+0(" * 20 + "%di" + ")" * 20, True),
        ("+0(" * 1000 + "%di" + ")" * 1000, False),
        ("+010(%di)", True),
        ("+09(%di)", False),
        ("+" + "9" * 5000 + "(%di)", False),
    ],
    ids=["nested", "nested too deep", "octal", "no octal", "too many digits"],
)
def test_what_a_probe_reads_is_followed_or_left(expression: str, read: bool) -> None:
    found = parse_fetch(expression, eprobe=False)
    assert (found is not None) == read


def test_an_octal_offset_is_eight_to_a_digit() -> None:
    assert parse_fetch("+010(%di)", eprobe=False) == Dereference(Argument(0), 8, False)
    for offset, at_entry in (("+00", True), ("+010", False), ("+" + "9" * 400, False)):
        (found,) = parse_definitions([f"p:a/b function{offset}"], "x")
        assert found.at_entry == at_entry


def test_a_definition_that_no_trace_could_hold_is_refused() -> None:
    with pytest.raises(ImportFormatError, match="line 2 is longer"):
        parse_definitions(["p:a/b f", "p:a/c f x=" + "a" * 5000], "probes.txt")


def test_more_names_than_a_manifest_holds_leave_no_trace_behind(tmp_path: Path) -> None:
    path, out = tmp_path / "s.bin", tmp_path / "out"
    out.mkdir()
    words = [struct.pack("<QQQ", (1 << 64) - 1, 0xF2B177CB0AA429B4, 4)]
    for number in range(40_000):
        name = b"%0200d" % number
        words.append(struct.pack("<QQI", 0, number, len(name)) + name)
        words.append(struct.pack("<QQQII", 1, number, 5, 24, 7))
    path.write_bytes(b"".join(words))
    with pytest.raises(TracekitError, match="more than a trace holds"):
        import_files([path], out / "t.parquet")
    assert not list(out.iterdir())


def test_stamps_are_shifted_by_their_own_samples_whatever_their_order() -> None:
    count = 20_000
    samples = Samples(
        tuple(range(0, 10 * count, 10)), tuple(range(count)), (1,) * count, (0,) * count
    )
    stamps = np.arange(0, 10 * count - 10, 10, dtype=np.int64)
    shift = Correction(shifts={0: samples}).of_cpu(0, "x")
    assert shift is not None
    assert (shift.ns(stamps) == stamps + stamps // 10).all()
    assert (shift.ns(stamps[::-1]) == (stamps + stamps // 10)[::-1]).all()
    assert len(shift.ns(stamps[:0])) == 0
