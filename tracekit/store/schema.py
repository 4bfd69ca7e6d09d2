"""The trace table's Arrow schema, derived from the declared columns."""

from __future__ import annotations

import pyarrow as pa

from tracekit.events import COLUMNS, ColumnType

__all__ = ("arrow_schema", "arrow_type", "batch_schema")

_TEXT = pa.dictionary(pa.int32(), pa.utf8())


def arrow_type(kind: ColumnType) -> pa.DataType:
    """How a column of that kind is kept in memory and on disk."""
    return _TEXT if kind is ColumnType.TEXT else pa.type_for_alias(kind.value)


def arrow_schema() -> pa.Schema:
    """Every column of a trace, in their declared order."""
    never_null = ("ts_ns", "seq", "event")
    return pa.schema(
        [pa.field(c.name, arrow_type(c.type), nullable=c.name not in never_null) for c in COLUMNS]
    )


def batch_schema() -> pa.Schema:
    """What :meth:`TraceWriter.write` takes: all columns but ``seq``, which the writer gives."""
    schema = arrow_schema()
    return schema.remove(schema.get_field_index("seq"))
