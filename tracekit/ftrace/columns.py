"""Column arrays of a batch of rows, and the Arrow record batch made of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from tracekit.events import COLUMNS, ColumnType
from tracekit.ftrace.program import PAYLOAD_COLUMNS

__all__ = ("ARROW_SCHEMA", "Columns")

_NUMPY = {
    ColumnType.U8: np.uint8,
    ColumnType.U32: np.uint32,
    ColumnType.U64: np.uint64,
    ColumnType.I32: np.int32,
    ColumnType.I64: np.int64,
}
_ARROW = {
    ColumnType.U8: pa.uint8(),
    ColumnType.U32: pa.uint32(),
    ColumnType.U64: pa.uint64(),
    ColumnType.I32: pa.int32(),
    ColumnType.I64: pa.int64(),
    ColumnType.TEXT: pa.dictionary(pa.int32(), pa.utf8()),
}

ARROW_SCHEMA = pa.schema([pa.field(c.name, _ARROW[c.type]) for c in COLUMNS if c.name != "seq"])
"""Of the batches: every column but ``seq``, which the trace's writer gives."""

MAX_TEXTS_PER_ROW = 4


class Columns:
    """Room for ``rows`` rows, filled by :func:`tracekit.ftrace.gather.gather`.

    Payload columns are 64-bit patterns in ``values`` [column, row] with bits in ``valid``; text
    columns hold indices into ``dictionary_of(column)``.
    """

    def __init__(self, rows: int) -> None:
        count = len(PAYLOAD_COLUMNS)
        self.rows = rows
        self.ts = np.empty(rows, np.int64)
        self.cpu = np.empty(rows, np.int32)
        self.tid = np.empty(rows, np.int32)
        self.comm = np.empty(rows, np.int32)
        self.source = np.empty(rows, np.int32)
        self.event = np.empty(rows, np.int32)
        self.context = np.empty(rows, np.uint8)
        self.values = np.zeros((count, rows), np.int64)
        self.valid = np.zeros((count, (rows + 7) // 8), np.uint8)
        self.filled = np.zeros(count, np.int64)
        self.texts = np.empty((MAX_TEXTS_PER_ROW * min(rows, 16384) + 16, 5), np.int64)
        self._dictionaries: dict[int, dict[bytes, int]] = {}

    def intern(self, texts: npt.NDArray[np.int64], pages: npt.NDArray[np.uint8]) -> None:
        """Take the texts that the kernel found: rows of row, column, stream, first byte, bytes."""
        for row, column, stream, start, size in texts.tolist():
            raw = pages[stream, start : start + size].tobytes().split(b"\0", 1)[0].rstrip(b"\n")
            if raw == b"(fault)":
                continue
            known = self._dictionaries.setdefault(column, {})
            self.values[column, row] = known.setdefault(raw, len(known))
            self.valid[column, row >> 3] |= 1 << (row & 7)
            self.filled[column] += 1

    def to_batch(
        self,
        rows: int,
        comms: pa.Array,
        sources: pa.Array,
        events: pa.Array,
    ) -> pa.RecordBatch:
        """The first ``rows`` rows as a batch that owns its memory."""
        marks = self.source[:rows] < 0
        arrays: dict[str, pa.Array] = {
            "ts_ns": _plain(self.ts[:rows].copy(), pa.int64()),
            "cpu": _plain(self.cpu[:rows].copy(), pa.int32()),
            "pid": pa.nulls(rows, pa.int32()),
            "tid": _plain(self.tid[:rows].copy(), pa.int32(), marks),
            "comm": _dictionary(self.comm[:rows].copy(), comms, self.comm[:rows] < 0),
            "source": _dictionary(self.source[:rows].copy(), sources, marks),
            "event": _dictionary(self.event[:rows].copy(), events),
            "context": _plain(self.context[:rows].copy(), pa.uint8(), marks),
        }
        for index, column in enumerate(PAYLOAD_COLUMNS):
            filled = int(self.filled[index])
            if not filled:
                arrays[column.name] = pa.nulls(rows, _ARROW[column.type])
                continue
            bits = self.valid[index, : (rows + 7) // 8].tobytes() if filled < rows else None
            values = self.values[index, :rows]
            if column.type is ColumnType.TEXT:
                found = self._dictionaries[index]
                dictionary = pa.array([t.decode("utf-8", "replace") for t in found], pa.utf8())
                indices = _from_buffers(values.astype(np.int32), pa.int32(), bits, rows - filled)
                arrays[column.name] = pa.DictionaryArray.from_arrays(
                    indices, dictionary, safe=False
                )
            else:
                own = values.astype(_NUMPY[column.type])
                arrays[column.name] = _from_buffers(own, _ARROW[column.type], bits, rows - filled)
        return pa.RecordBatch.from_arrays(
            [arrays[name] for name in ARROW_SCHEMA.names], schema=ARROW_SCHEMA
        )

    def reset(self) -> None:
        """Make room again; what batches were made keep their memory."""
        self.valid.fill(0)
        self.filled.fill(0)
        self._dictionaries = {}


def dictionary(texts: Sequence[str]) -> pa.Array:
    """Texts that indices in a dictionary column refer to."""
    return pa.array(list(texts), pa.utf8())


def _from_buffers(
    values: npt.NDArray[np.generic], type: pa.DataType, bits: bytes | None, nulls: int
) -> pa.Array:
    validity = None if bits is None else pa.py_buffer(bits)
    return pa.Array.from_buffers(type, len(values), [validity, pa.py_buffer(values)], nulls)


def _plain(
    values: npt.NDArray[np.generic], type: pa.DataType, nulls: npt.NDArray[np.bool_] | None = None
) -> pa.Array:
    count = 0 if nulls is None else int(np.count_nonzero(nulls))
    if nulls is None or not count:
        return _from_buffers(values, type, None, 0)
    bits = np.packbits(~nulls, bitorder="little").tobytes()
    return _from_buffers(values, type, bits, count)


def _dictionary(
    indices: npt.NDArray[np.int32],
    texts: pa.Array,
    nulls: npt.NDArray[np.bool_] | None = None,
) -> pa.Array:
    if nulls is not None and nulls.any():
        indices[nulls] = 0
    return pa.DictionaryArray.from_arrays(_plain(indices, pa.int32(), nulls), texts, safe=False)
