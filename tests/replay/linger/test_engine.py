"""The socket engine: compiled and plain agree, memory stays bounded, other events cost little."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from trace_language import trace_of

from replay.engine.kept import Kept
from replay.linger import forgetting, stream
from replay.linger.engine import Engine, close_records
from replay.linger.kernel import layout as L
from replay.linger.stream import COLUMNS, concerns
from tracekit.errors import TraceFormatError
from tracekit.importers import import_files
from tracekit.store import open_trace
from tracekit.store.schema import batch_schema

DATA = Path(__file__).parents[2] / "data" / "traces" / "vsock"

ONE = """
    0s     sock  socket
    1ms    sock  connect
    2ms    sock  linger 1 5
    3ms    sock  send 4096
    4ms    sock  sent 4096
    5ms    sock  vclose for=1ms
    6.5ms  sock  peer-reset read=4096
"""


def batch_of(rows: list[dict[str, object]]) -> pa.RecordBatch:
    schema = pa.schema(
        [batch_schema().field(c) if c != "seq" else pa.field("seq", pa.int64()) for c in COLUMNS]
    )
    arrays = [pa.array([r.get(f.name) for r in rows], f.type) for f in schema]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def repeated(
    times: int, *, ports: int = 1 << 30, step_ns: int = 7_000_000
) -> Iterator[pa.RecordBatch]:
    """One socket's life, again and again, each time from another port."""
    base = batch_of(trace_of(ONE))
    columns = {name: base.column(i) for i, name in enumerate(base.schema.names)}
    n = base.num_rows
    own = {c: np.asarray(columns[c].fill_null(0)).astype(np.uint64) for c in ("local", "peer")}
    for at in range(times):
        changed = dict(columns)
        changed["ts_ns"] = pa.array(np.asarray(columns["ts_ns"]) + at * step_ns)
        changed["seq"] = pa.array(np.arange(at * n, (at + 1) * n))
        for name, values in own.items():
            mine = (values & np.uint64(0xFFFFFFFF)) == 1001
            shifted = np.where(mine, values + np.uint64(at % ports), values)
            mask = ~np.asarray(columns[name].is_valid())
            changed[name] = pa.array(shifted, mask=mask)
        yield pa.RecordBatch.from_arrays(
            [changed[c] for c in base.schema.names], schema=base.schema
        )


def events_of(rows: list[dict[str, object]]) -> Counter[str]:
    return Counter(str(r["event"]) for r in rows)


@pytest.mark.nightly  # compiling takes 20 s where it was not done before
def test_compiled_and_plain_agree(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    import_files([next(DATA.glob("*7.3*.dat"))], path)
    trace = open_trace(path)
    plain, compiled = (
        close_records(trace.batches(COLUMNS), events=trace.manifest.events, compiled=c).records
        for c in (False, True)
    )
    assert len(plain) > 30
    assert np.array_equal(plain, compiled)


@pytest.mark.parametrize("rows", [1, 7, 100])
def test_the_size_of_batches_changes_nothing(rows: int, tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    import_files([next(DATA.glob("*6.12*.dat"))], path)
    trace = open_trace(path)
    events = trace.manifest.events
    whole = close_records(trace.batches(COLUMNS), events=events).records
    pieces = close_records(trace.batches(COLUMNS, rows=rows), events=events).records
    # The CID that is shown of a side is the first that a batch told.
    keep = np.delete(np.arange(L.R_COLS), [L.R_LCID, L.R_SK])
    order, other = np.argsort(whole[:, L.R_SEQ0]), np.argsort(pieces[:, L.R_SEQ0])
    assert np.array_equal(whole[order][:, keep], pieces[other][:, keep])


def engine_and_records(batches: Iterator[pa.RecordBatch]) -> tuple[Engine, np.ndarray, list[int]]:
    """After a whole trace: the engine, what it told, and the most things it knew at a time."""
    events = events_of(trace_of(ONE))
    records: list[np.ndarray] = []
    engine = Engine(events, set(events), lambda r, _: records.append(r), compiled=False)
    most = [0] * 4
    for record_batch in batches:
        engine.feed(record_batch)
        tables = (
            engine.stream.sides, engine.stream.sockets, engine.stream.descriptors,
            engine.stream.threads,
        )  # fmt: skip
        most = [max(m, len(t)) for m, t in zip(most, tables, strict=True)]
    engine.finish()
    return engine, np.concatenate(records), most


def test_connections_that_are_long_over_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "_KEPT", 50)
    _, records, most = engine_and_records(repeated(400, step_ns=2_000_000_000))
    assert most[0] < 200
    closes = records[records[:, L.R_KIND] == L.CLOSE]
    assert len(closes) == 400
    assert set(closes[:, L.R_U1].tolist()) == {0}
    assert set(closes[:, L.R_LPORT].tolist()) == set(range(1001, 1401))
    assert (closes[:, L.R_RST_IN] != L.NULL).all()


def renamed(times: int, *, step_ns: int = 2_000_000_000) -> Iterator[pa.RecordBatch]:
    """The same, and each time another thread, kernel socket and process does it."""
    for at, record_batch in enumerate(repeated(times, step_ns=step_ns)):
        columns = dict(zip(record_batch.schema.names, record_batch.columns, strict=True))
        for name in ("tid", "pid", "object"):
            values, valid = np.asarray(columns[name].fill_null(0)), columns[name].is_valid()
            moved = values + np.asarray(at * 1000, values.dtype)
            columns[name] = pa.array(moved, columns[name].type, mask=~np.asarray(valid))
        yield pa.RecordBatch.from_arrays(list(columns.values()), schema=record_batch.schema)


def test_everything_that_has_a_number_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sockets, threads and descriptors that were not seen for a minute make room for others."""
    monkeypatch.setattr(stream, "_KEPT", 60)
    _, records, most = engine_and_records(renamed(500))
    assert max(most) < 300
    closes = records[records[:, L.R_KIND] == L.CLOSE]
    assert len(closes) == 500
    assert set(closes[:, L.R_U1].tolist()) == {0}
    assert set(closes[:, L.R_ON_WHY].tolist()) == {L.KNOWN}


def test_a_trace_of_too_many_things_at_once_is_still_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All within a minute: what was unseen longest goes, and nothing is invented of it."""
    monkeypatch.setattr(stream, "_KEPT", 40)
    monkeypatch.setattr(forgetting, "MOST", 100)
    _, records, most = engine_and_records(renamed(400, step_ns=7_000_000))
    assert max(most) < 400
    closes = records[records[:, L.R_KIND] == L.CLOSE]
    assert len(closes) == 400
    assert set(closes[:, L.R_U1].tolist()) <= {0, L.NULL}


def test_a_trace_without_vsock_is_not_even_read() -> None:
    assert not concerns({"iommu.map": 5, "close.entered": 7, "vsock.release": 0})
    assert concerns({"iommu.map": 5, "vsock.release": 1})


@pytest.mark.nightly
def test_five_million_events_a_second_where_few_are_of_vsock() -> None:
    rows = 1 << 16
    filler = batch_of(
        [{"ts_ns": i, "seq": i, "event": "iommu.map", "tid": 7, "size": 4096} for i in range(rows)]
    )
    batches = [filler] * 200
    begun = time.perf_counter()
    close_records(iter(batches), events={"vsock.release": 1, "iommu.map": rows * 200})
    rate = rows * 200 / (time.perf_counter() - begun)
    print(f"{rate / 1e6:.1f} M events/s")
    assert rate > 5e6


def test_what_children_may_have_is_bounded() -> None:
    """A server forks for each connection and closes its own copy; no child closes any."""
    lines = [
        f"{10 * i}ms sock accepted fd=5 sk={i + 1} to={6000 + i}\n"
        f"{10 * i + 1}ms sock forks {i + 2}\n{10 * i + 2}ms sock close 5\n"
        for i in range(200)
    ]
    rows = trace_of("".join(lines))
    events = events_of(rows)
    engine = Engine(events, set(events), lambda *_: None, compiled=False)
    engine.feed(batch_of(rows))
    state = engine.kept_state()
    live = state["O"][:, L.O_CREATED] != L.NULL
    assert np.count_nonzero(live) == 64
    assert len(live) <= 66
    restored = Engine(events, set(events), lambda *_: None, compiled=False)
    restored.restore(Kept(state, "engine"))
    state["O"][np.flatnonzero(live)[0], L.O_REFS] += 1
    with pytest.raises(TraceFormatError, match="O is missing or malformed"):
        restored.restore(Kept(state, "engine"))


@pytest.mark.parametrize(("table", "open_in"), [("E", "S"), ("Q", "T")])
def test_a_kept_close_of_no_kind_is_no_state(table: str, open_in: str) -> None:
    """The trace ends while one close() is told and kept, and another one waits."""
    text = ONE.replace("6.5ms  sock  peer-reset read=4096", "7ms sock2 vclose fd=5 sk=2 from=1002")
    rows = [row for row in trace_of(text) if row["event"] != "close.returned"]
    rows = [row for row in rows if row["tid"] != 502 or not str(row["event"]).endswith("ed")]
    events = events_of(rows)
    engine = Engine(events, set(events), lambda *_: None, compiled=False)
    engine.feed(batch_of(rows))
    state = engine.kept_state()
    column = {"S": L.S_CLOSED, "T": L.T_OPEN}[open_in]
    at = np.flatnonzero(state[open_in][:, column])
    assert len(at)
    Engine(events, set(events), lambda *_: None, compiled=False).restore(Kept(state, "engine"))
    state[table][at[0], L.R_KIND] = 99
    with pytest.raises(TraceFormatError, match=f"{table} is missing or malformed"):
        Engine(events, set(events), lambda *_: None, compiled=False).restore(Kept(state, "engine"))
