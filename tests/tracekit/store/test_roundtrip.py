"""What is written is what is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tracekit.errors import TracekitError, UnknownNameError
from tracekit.events import COLUMNS, EVENT_TYPES, ColumnType, Event, event_columns
from tracekit.events.iommu import IommuMap
from tracekit.events.trace import EventsLost
from tracekit.store import (
    Manifest,
    TraceWriter,
    arrow_schema,
    batch_schema,
    from_events,
    open_trace,
    write_events,
)

VALUES: dict[ColumnType, st.SearchStrategy[Any]] = {
    ColumnType.U8: st.integers(0, 2**8 - 1),
    ColumnType.U32: st.integers(0, 2**32 - 1),
    ColumnType.U64: st.integers(0, 2**64 - 1),
    ColumnType.I32: st.integers(-(2**31), 2**31 - 1),
    ColumnType.I64: st.integers(-(2**63), 2**63 - 1),
    ColumnType.TEXT: st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
}


@st.composite
def events(draw: st.DrawFn) -> Event:
    """Any event of any type."""
    kind = EVENT_TYPES[draw(st.sampled_from(sorted(EVENT_TYPES)))]
    given_: dict[str, Any] = {"ts_ns": draw(st.integers(0, 1000))}
    own = [(c, required) for c, _, required in event_columns(kind.name_)]
    common = [(c, False) for c in COLUMNS[2:9] if c.name != "event"]
    for c, required in [*own, *common]:
        value = VALUES[c.type] if required else st.none() | VALUES[c.type]
        given_[c.name] = draw(value)
    return kind(**given_)


def maps(count: int, step: int = 10) -> list[Event]:
    return [
        IommuMap(ts_ns=i * step, cpu=i % 2, tid=7, comm="vmm", iova=i << 12, size=4096)
        for i in range(count)
    ]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(events(), max_size=40))
def test_any_events_come_back_sorted_by_time_and_numbered(
    tmp_path_factory: pytest.TempPathFactory, given_: list[Event]
) -> None:
    path = tmp_path_factory.mktemp("trace") / "t.parquet"
    write_events(path, given_)
    trace = open_trace(path)
    read = [row for batch in trace.batches() for row in batch.to_pylist()]
    assert [row["seq"] for row in read] == list(range(len(given_)))
    names = [c.name for c in COLUMNS]
    expected = [e.row() for e in sorted(given_, key=lambda e: e.ts_ns)]
    for row, event in zip(read, expected, strict=True):
        assert row == {name: event.get(name) for name in names} | {"seq": row["seq"]}


def test_the_schema_is_the_declared_columns() -> None:
    schema = arrow_schema()
    assert schema.names == [c.name for c in COLUMNS]
    assert len(schema) <= 32
    assert schema.field("event").type == pa.dictionary(pa.int32(), pa.utf8())
    assert "seq" not in batch_schema().names


def test_batches_are_bounded_and_in_the_order_asked_for(tmp_path: Path) -> None:
    write_events(tmp_path / "t.parquet", maps(1000))
    batches = list(open_trace(tmp_path / "t.parquet").batches(("iova", "ts_ns", "seq"), rows=300))
    assert [b.num_rows for b in batches] == [300, 300, 300, 100]
    assert batches[0].schema.names == ["iova", "ts_ns", "seq"]


def test_a_typed_view_has_the_common_columns_and_those_of_its_type(tmp_path: Path) -> None:
    write_events(tmp_path / "t.parquet", [*maps(5), EventsLost(ts_ns=7, until_ns=9, count=3)])
    view = open_trace(tmp_path / "t.parquet").events("trace.lost").collect()
    assert view.columns[-2:] == ["until_ns", "count"]
    assert view.select("ts_ns", "until_ns", "count").rows() == [(7, 9, 3)]
    assert "iova" not in view.columns


def test_an_unknown_event_type_is_an_error_that_offers_the_closest(tmp_path: Path) -> None:
    write_events(tmp_path / "t.parquet", maps(1))
    with pytest.raises(UnknownNameError) as caught:
        open_trace(tmp_path / "t.parquet").events("iommu.mapp")
    assert "iommu.map" in str(caught.value.help)


def test_single_rows_are_found_by_number(tmp_path: Path) -> None:
    write_events(tmp_path / "t.parquet", maps(1000))
    trace = open_trace(tmp_path / "t.parquet")
    assert trace.rows([999, 3, 3, 5000])["iova"].to_pylist() == [3 << 12, 999 << 12]
    assert trace.rows([4], ["iova"]).to_pylist() == [{"seq": 4, "iova": 4 << 12}]
    assert trace.rows([]).num_rows == 0


def test_single_rows_are_found_in_every_row_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tracekit.store.writer.ROW_GROUP_ROWS", 100)
    with TraceWriter(tmp_path / "t.parquet", first_seq=50) as writer:
        for batch in from_events(maps(1000)):
            writer.write(batch)
        writer.finish(Manifest())
    wanted = [50, 149, 150, 349, 350, 351, 1049]
    found = open_trace(tmp_path / "t.parquet").rows([*wanted, 0, 49, 1050], ["iova"])
    assert found["seq"].to_pylist() == wanted
    assert found["iova"].to_pylist() == [(n - 50) << 12 for n in wanted]


def test_segments_are_one_trace(tmp_path: Path) -> None:
    every = maps(30)
    folder = tmp_path / "capture"
    folder.mkdir()
    for number, first in enumerate(range(0, 30, 10)):
        with TraceWriter(folder / f"{number:03}.parquet", first_seq=first) as writer:
            for batch in from_events(every[first : first + 10]):
                writer.write(batch)
            writer.finish(Manifest(lost_events=1, cpus=2))
    (folder / ".004.parquet.x.part").write_text("being written")
    trace = open_trace(folder)
    assert trace.manifest.rows == 30
    assert trace.manifest.lost_events == 3
    assert trace.manifest.span_ns == (0, 290)
    assert trace.manifest.events == {"iommu.map": 30}
    assert [s for b in trace.batches(["seq"]) for s in b["seq"].to_pylist()] == list(range(30))
    assert trace.rows([9, 10, 29])["seq"].to_pylist() == [9, 10, 29]
    assert trace.scan().collect().height == 30


def test_nothing_is_left_without_finish_or_after_an_exception(tmp_path: Path) -> None:
    with TraceWriter(tmp_path / "a.parquet") as writer:
        for batch in from_events(maps(3)):
            writer.write(batch)
    with pytest.raises(RuntimeError, match="stop"), TraceWriter(tmp_path / "b.parquet"):
        raise RuntimeError("stop")
    assert list(tmp_path.iterdir()) == []


def test_what_was_there_stays_until_the_new_file_is_complete(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    write_events(path, maps(3))
    before = path.read_bytes()
    with TraceWriter(path) as writer:
        writer.write(next(from_events(maps(9))))
    assert path.read_bytes() == before


def test_rows_out_of_time_order_are_our_mistake(tmp_path: Path) -> None:
    (backwards,) = from_events(maps(3)[::-1])
    with TraceWriter(tmp_path / "t") as writer, pytest.raises(AssertionError, match="time order"):
        writer.write(backwards)


def test_a_place_that_cannot_be_written_is_one_error(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "no" / "t.parquet"):
        with pytest.raises(TracekitError, match="cannot write"), TraceWriter(place):
            pass


def test_row_groups_are_bounded(tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    from tracekit.store.writer import ROW_GROUP_ROWS

    batch = next(from_events(maps(1000, step=0)))
    with TraceWriter(tmp_path / "t.parquet") as writer:
        for _ in range(300):
            writer.write(batch)
        writer.finish(Manifest())
    metadata = pq.ParquetFile(tmp_path / "t.parquet").metadata
    sizes = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
    assert sizes == [ROW_GROUP_ROWS, ROW_GROUP_ROWS, 300_000 - 2 * ROW_GROUP_ROWS]


def test_a_notebook_shows_what_a_trace_is(tmp_path: Path) -> None:
    write_events(tmp_path / "t.parquet", maps(3), Manifest(kernel="<script>"))
    trace = open_trace(tmp_path / "t.parquet")
    assert "3 events" in repr(trace)
    assert "<script>" not in trace._repr_html_()
    assert "iommu.map" in trace._repr_html_()
