"""Hostile rows: every column of every event type with numbers that no host would show."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pyarrow as pa
import pyarrow.parquet as pq
from fuzz.define import COMPILED
from fuzz.mutations import edge

from tracekit.events import COLUMNS, EVENT_TYPES, ColumnType, event_columns
from tracekit.store import Manifest, TraceWriter
from tracekit.store.schema import arrow_schema, batch_schema

__all__ = ("hostile_table", "mutated_table", "sparse_table", "written")

Row = dict[str, int | str | None]

_BITS = {ColumnType.U8: 8, ColumnType.U32: 32, ColumnType.U64: 64}
_SIGNED = {ColumnType.I32: 32, ColumnType.I64: 64}
_TYPE = {c.name: c.type for c in COLUMNS}
_IOCTLS = (
    0x3B71, 0x3B72, 0x3B85, 0x3B86, 0x3B8F, 0x3B64, 0x3B65, 0x3B66, 0x3B68, 0x3B69, 0x3B6A,
    0x4020AED2, 0x4020AE46, 0x40A0AE49, 0xC040AED4, 0xAE01, 0xAE41, 0xAE80, 0x3B81, 0x3B82, 0x3B80,
)  # fmt: skip
_WORDS = (
    "0000:00:10.0",
    "/dev/kvm",
    "",
    "x" * 500,
    "\x1b[2J",
    "[guest_memfd]",
    "vfio",
    "\N{SNOWMAN}",
)
_USED = tuple(EVENT_TYPES)


def _value(rng: Random, column: str, small: bool) -> int | str:
    kind = _TYPE[column]
    if kind is ColumnType.TEXT:
        if column == "detail":
            return rng.choice(('{"a": 1}', "{", "", "null", '{"x": ' + "[" * 2000, "\x1b[31m"))
        return rng.choice(_WORDS)
    if column == "cmd" and rng.random() < 0.7:
        return rng.choice(_IOCTLS)
    if small:
        if column in ("iova", "gpa", "paddr", "vaddr", "offset"):
            return rng.randrange(64) << rng.choice((0, 9, 12, 12, 12, 21))
        if column in ("size", "unmapped"):
            return rng.randrange(1, 9) << rng.choice((0, 12, 12, 21))
        if column == "attributes":
            return rng.choice((0, 8))
        return rng.randrange(6)
    if kind in _SIGNED:
        bits = _SIGNED[kind]
        value = edge(rng, bits)
        return value - ((value >> (bits - 1)) << bits)
    return edge(rng, _BITS[kind])


def hostile_table(rng: Random) -> pa.Table:
    """Rows of any types in any order: few threads and addresses, so that they meet."""
    count = rng.choice((1, 3, 20, 60, 150))
    wild = rng.choice((0.02, 0.1, 0.5, 1.0))
    names = rng.sample(_USED, rng.choice((2, 5, 12, len(_USED))))
    step = rng.choice((0, 1, 1000, 10**7, 1 << 40))
    ts = rng.choice((0, 10**9, -(1 << 63), -5, (1 << 62)))
    rows: list[Row] = []
    for _ in range(count):
        ts = min(ts + rng.randrange(step + 1), (1 << 63) - 1)
        name = rng.choice(names)
        row: Row = {"ts_ns": ts, "event": name}
        own = [c.name for c, _, _ in event_columns(name)]
        every = [*own, "cpu", "tid", "pid", "context", "comm"]
        if rng.random() < 0.1:  # columns that such an event never has
            every = [c.name for c in COLUMNS if c.name not in ("ts_ns", "seq", "event")]
        for column in every:
            if rng.random() < 0.9:
                row[column] = _value(rng, column, rng.random() > wild)
        if rng.random() < 0.8:
            row["context"] = 0
        rows.append(row)
    return table_of(rows)


def mutated_table(rng: Random, rows: list[Row]) -> pa.Table:
    """Rows of a recording, some of them with other values, moved, left out or there twice."""
    begin = rng.randrange(len(rows))
    some = [dict(r) for r in rows[begin : begin + rng.choice((50, 150, 400))]]
    for _ in range(rng.choice((1, 3, 10, 40))):
        at = rng.randrange(len(some))
        kind = rng.randrange(8)
        if kind == 0 and len(some) > 1:
            del some[at]
        elif kind == 1:
            some.insert(rng.randrange(len(some)), dict(some[at]))
        elif kind == 2:
            some[at]["event"] = rng.choice(_USED)
        else:
            there = [k for k, v in some[at].items() if v is not None and k != "event"]
            column = rng.choice(
                [k for k in there if k in _TYPE and k not in ("seq", "ts_ns")] or ["tid"]
            )
            some[at][column] = _value(rng, column, rng.random() < 0.3)
    if rng.random() < 0.1:
        shift = rng.choice((-(1 << 63), (1 << 62)))
        for row in some:
            row["ts_ns"] = max(min(int(row["ts_ns"] or 0) + shift, (1 << 63) - 1), -(1 << 63))
    times = sorted(int(r["ts_ns"] or 0) for r in some)
    for row, ts in zip(some, times, strict=True):
        row["ts_ns"] = ts
    return table_of(some)


def sparse_table(rng: Random) -> pa.Table:
    """Legal calls by one thread that touch as much as they can of the state.

    Each may look at every page of a terabyte's chunks, so plain Python is given few.
    """
    stride = 1 << rng.choice((12, 13, 21, 22, 30, 30, 31, 40))
    sizes = [4096, 4096, stride >> 1, stride, 1 << rng.choice((21, 30, 40, 50))]
    kinds = rng.sample(("map", "map", "map", "unmap", "change", "change", "discard"), 4)
    rows: list[Row] = []
    base = rng.randrange(64) << 12
    for i in range(rng.choice((100, 400, 700) if COMPILED else (30, 60, 100))):
        at, size = base + i * stride, rng.choice(sizes)
        known = rng.random() < 0.95
        where: Row = {"iova": at, "size": size} if known else {}
        kind = rng.choice(kinds)
        if kind == "discard":
            rows.append({"event": "madvise.entered", "vaddr": at, "size": size, "flags": 4})
            rows.append({"event": "madvise.returned", "ret": 0})
            continue
        cmd = {"map": 0x3B71, "unmap": 0x3B72, "change": 0x4020AED2}[kind]
        rows.append({"event": "ioctl.entered", "fd": 5, "cmd": cmd})
        if kind == "change":
            change = {"gpa": at, "size": size, "attributes": rng.choice((0, 8)), "flags": 0}
            rows.append({"event": "kvm.vm_ioctl", "cmd": cmd, **change})
        else:
            rows.append({"event": "vfio.type1_ioctl", "cmd": cmd, "flags": 3, "vaddr": at, **where})
            pieces = rng.choice((0, 1, 1, 2))
            for j in range(pieces):
                part = {"iova": at + j * (size >> 1), "size": size >> 1 if pieces > 1 else size}
                done: Row = {"paddr": at} if kind == "map" else {"unmapped": part["size"]}
                rows.append({"event": f"iommu.{kind}", **part, **done})
        rows.append({"event": "ioctl.returned", "ret": rng.choice((0, 0, 0, 0, -12))})
    for i, row in enumerate(rows):
        row.update(ts_ns=1000 * i, tid=7, pid=7, context=0)
    return table_of(rows)


def table_of(rows: list[Row]) -> pa.Table:
    """A table without the events' numbers."""
    return pa.Table.from_pylist(rows, schema=batch_schema())


def written(path: Path, table: pa.Table, manifest: Manifest) -> bytes:
    """The table as a trace, by our writer: what it refuses to write nobody else would hold."""
    with TraceWriter(path) as writer:
        for batch in table.to_batches():
            writer.write(batch)
        writer.finish(manifest)
    return path.read_bytes()


def foreign(path: Path, table: pa.Table, metadata: bytes, **options: object) -> None:
    """The table as a Parquet file with our manifest, by somebody else: any columns, any order."""
    with pq.ParquetWriter(path, table.schema, **options) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({b"tracekit": metadata})


assert arrow_schema().names[1] == "seq"
