"""Files that are no trace, or were one."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tracekit.errors import TraceFormatError
from tracekit.events import SCHEMA_VERSION
from tracekit.events.iommu import IommuMap
from tracekit.store import Manifest, arrow_schema, open_trace, write_events
from tracekit.store.footer import seal_footer


def trace_bytes(tmp_path: Path, rows: int = 2000) -> bytes:
    path = tmp_path / "good.parquet"
    events = [
        IommuMap(ts_ns=i * 10, tid=7, comm="vmm", source="iommu:map", iova=i << 12, size=4096)
        for i in range(rows)
    ]
    write_events(path, events)
    return path.read_bytes()


def read_all(path: Path) -> list[dict[str, Any]]:
    trace = open_trace(path)
    trace.rows([1, 2])
    return [row for batch in trace.batches() for row in batch.to_pylist()]


def sealed(path: Path, table: pa.Table, manifest: str | None) -> Path:
    """A Parquet file that looks like ours, made by somebody else."""
    with pq.ParquetWriter(path, table.schema) as writer:
        writer.write_table(table)
        if manifest is not None:
            writer.add_key_value_metadata({b"tracekit": manifest.encode()})
    seal_footer(path)
    return path


def test_no_cut_file_is_read(tmp_path: Path) -> None:
    good = trace_bytes(tmp_path)
    path = tmp_path / "cut.parquet"
    for length in range(0, len(good), 97):
        path.write_bytes(good[:length])
        with pytest.raises(TraceFormatError):
            read_all(path)


def test_a_flipped_bit_is_an_error_or_changes_nothing(tmp_path: Path) -> None:
    good = trace_bytes(tmp_path)
    path = tmp_path / "flipped.parquet"
    path.write_bytes(good)
    expected = read_all(path)
    chance = random.Random(4)
    refused = []
    for _ in range(400):
        damaged = bytearray(good)
        damaged[chance.randrange(len(good))] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        try:
            assert read_all(path) == expected
        except TraceFormatError as error:
            refused.append(str(error))
    assert len(refused) > 300
    assert all(len(said.splitlines()) == 1 for said in refused)


@pytest.mark.parametrize(
    ("content", "said"),
    [(b"", "is empty"), (b"hello, world", "not a Parquet file"), (b"PAR1" * 9, "footer")],
)
def test_what_is_no_parquet_file_is_named_as_such(
    tmp_path: Path, content: bytes, said: str
) -> None:
    path = tmp_path / "x.parquet"
    path.write_bytes(content)
    with pytest.raises(TraceFormatError, match=said):
        open_trace(path)


def test_places_that_are_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").mkdir()
    for place, said in (
        (tmp_path / "nothing", "No such file"),
        (tmp_path / "pipe", "not a regular file"),
        (Path("/dev/zero"), "not a regular file"),
        (tmp_path / "empty", "without trace segments"),
        (tmp_path / ("x" * 300), "too long"),
    ):
        with pytest.raises(TraceFormatError, match=said):
            open_trace(place)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    path.write_bytes(b"PAR1")
    path.chmod(0)
    with pytest.raises(TraceFormatError, match="Permission denied"):
        open_trace(path)


def test_somebody_elses_parquet_file(tmp_path: Path) -> None:
    path = tmp_path / "theirs.parquet"
    pq.write_table(pa.table({"a": [1]}), path)
    with pytest.raises(TraceFormatError, match="no trace"):
        open_trace(path)
    with pytest.raises(TraceFormatError, match="without our manifest"):
        open_trace(sealed(path, pa.table({"a": [1]}), None))


def test_columns_that_are_missing_or_of_another_type(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    manifest = Manifest().to_json()
    with pytest.raises(TraceFormatError, match="lacks the columns"):
        open_trace(sealed(path, pa.table({"a": pa.array([], pa.int8())}), manifest))
    empty = arrow_schema().empty_table()
    other = empty.set_column(9, "iova", pa.array([], pa.float64()))
    with pytest.raises(TraceFormatError, match="column iova is double, not uint64"):
        open_trace(sealed(path, other, manifest))


def test_an_older_trace_without_a_column_and_a_later_one_with_more_are_read(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    table = arrow_schema().empty_table().drop_columns(["until_ns"])
    table = table.append_column("of_the_future", pa.array([], pa.list_(pa.int8())))
    trace = open_trace(sealed(path, table, Manifest().to_json()))
    assert trace.scan().collect().height == 0
    assert trace.rows([0], ["until_ns"]).num_rows == 0


def test_rows_that_are_not_in_order_or_have_no_time(tmp_path: Path) -> None:
    good = tmp_path / "good.parquet"
    write_events(good, [IommuMap(ts_ns=t, iova=0, size=1) for t in (1, 2)])
    table = pq.read_table(good).replace_schema_metadata(None)
    manifest = open_trace(good).manifest.to_json()
    backwards = sealed(tmp_path / "b.parquet", table.take([1, 0]), manifest)
    with pytest.raises(TraceFormatError, match="not in"):
        read_all(backwards)
    one = open_trace(good).manifest.to_json().replace('"rows":2', '"rows":3')
    with pytest.raises(TraceFormatError, match="holds 2 rows"):
        open_trace(sealed(tmp_path / "c.parquet", table, one))


def test_segments_that_overlap_or_are_of_two_hosts(tmp_path: Path) -> None:
    for name, host in (("1.parquet", "a"), ("2.parquet", "a")):
        write_events(tmp_path / name, [IommuMap(ts_ns=5, iova=0, size=1)], Manifest(host=host))
    with pytest.raises(TraceFormatError, match="event numbers"):
        open_trace(tmp_path)
    write_events(tmp_path / "2.parquet", [IommuMap(ts_ns=4, iova=0, size=1)], Manifest(host="a"))
    with pytest.raises(TraceFormatError, match="begins before"):
        open_trace(tmp_path)
    write_events(tmp_path / "2.parquet", [IommuMap(ts_ns=9, iova=0, size=1)], Manifest(host="b"))
    with pytest.raises(TraceFormatError, match="another host"):
        open_trace(tmp_path)


GOOD = json.loads(Manifest().to_json())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "null",
        "{",
        "[" * 100_000,
        json.dumps({**GOOD, "rows": -1}),
        json.dumps({**GOOD, "rows": True}),
        json.dumps({**GOOD, "rows": 1 << 70}),
        json.dumps({**GOOD, "rows": 1.5}),
        json.dumps({**GOOD, "events": {"x": "y"}}),
        json.dumps({**GOOD, "events": []}),
        json.dumps({**GOOD, "recorded": [1]}),
        json.dumps({**GOOD, "recorded": [{}]}),
        json.dumps({**GOOD, "clock": "x" * 10_000}),
        json.dumps({**GOOD, "host": 7}),
        json.dumps({**GOOD, "span_ns": [2, 1]}),
        json.dumps({**GOOD, "span_ns": [None, 1]}),
        json.dumps({**GOOD, "span_ns": {}}),
        json.dumps({**GOOD, "sources": [{"a": {"b": 1}}]}),
        json.dumps({**GOOD, "probes": [1]}),
        json.dumps({**GOOD, "lost_unknown": 1}),
        json.dumps({k: v for k, v in GOOD.items() if k != "kernel"} | {"events": None}),
        '{"schema": 1e400}',
        " " * (9 << 20),
    ],
    ids=range(24),
)
def test_no_manifest_is_believed(text: str) -> None:
    with pytest.raises(TraceFormatError) as caught:
        Manifest.from_json(text, Path("t.parquet"))
    assert "t.parquet" in str(caught.value)
    assert len(str(caught.value)) < 300


def test_a_later_schema_says_what_is_read() -> None:
    text = json.dumps({**GOOD, "schema": SCHEMA_VERSION + 1})
    with pytest.raises(TraceFormatError, match=f"schema {SCHEMA_VERSION + 1}; this version reads"):
        Manifest.from_json(text, Path("t.parquet"))


def test_a_manifest_survives_the_way_to_json_and_back() -> None:
    manifest = Manifest(
        host="h", kernel="7.3", span_ns=(1, 2), sources=({"file": "x", "size": 3},), hz=250
    )
    assert Manifest.from_json(manifest.to_json(), Path("t")) == manifest
