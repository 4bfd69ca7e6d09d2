"""Arrow columns -> rows of the kernels' arrays: int64, nulls as NULL."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa

from replay.engine.kernel import layout as L
from tracekit.compiled.kernels import CompiledModule, kernel_module

__all__ = ("Columns", "integers", "nulls", "numbers")

_ALL = np.empty(0, np.int64)


class Columns:
    """Takes columns of integers; compiled, or by numpy, which needs four times as long.

    ``picked``: places of the rows that are wanted, at least one; all if None.
    """

    def __init__(self, *, compiled: bool) -> None:
        kernel = kernel_module("replay.engine.kernel", "columns", compiled=compiled)
        self._kernel = kernel if isinstance(kernel, CompiledModule) else None

    def fill(self, row: Any, array: pa.Array, picked: Any = None) -> None:
        """Write an Arrow integer array into an int64 row."""
        if array.null_count == len(array):
            row[:] = L.NULL
        elif not array.null_count:
            row[:] = integers(array) if picked is None else integers(array)[picked]
        elif self._kernel is not None:
            self._kernel.fill(row, *_parts(array, picked))
        else:
            row[:] = integers(array) if picked is None else integers(array)[picked]
            row[nulls(array) if picked is None else nulls(array)[picked]] = L.NULL

    def merge(self, row: Any, array: pa.Array, picked: Any = None, *, over: bool = False) -> None:
        """Write an array's values where the row is NULL; with ``over`` wherever there is one."""
        if array.null_count == len(array):
            return
        if self._kernel is not None and array.null_count:
            merge = self._kernel.merge_over if over else self._kernel.merge
            merge(row, *_parts(array, picked))
            return
        have = ~nulls(array) if array.null_count else np.ones(len(array), bool)
        values = integers(array).astype(np.int64, copy=False)
        if picked is not None:
            have, values = have[picked], values[picked]
        if not over:
            have &= row == L.NULL
        np.copyto(row, values, where=have)


def integers(array: pa.Array) -> Any:
    """An Arrow integer array's values, unsigned ones with their bits; under nulls they mean
    nothing."""
    dtype = np.dtype(array.type.to_pandas_dtype())
    values = np.frombuffer(array.buffers()[1], dtype, len(array), array.offset * dtype.itemsize)
    return values.view(np.int64) if dtype == np.uint64 else values


def nulls(array: pa.Array) -> Any:
    """Where an Arrow array is null."""
    bitmap = np.frombuffer(array.buffers()[0], np.uint8)
    bits = np.unpackbits(bitmap, count=array.offset + len(array), bitorder="little")
    return bits[array.offset :] == 0


def numbers(array: pa.Array, null: int = 0) -> Any:
    """An Arrow integer array as int64, nulls as ``null``.

    ``fill_null`` does the same, and first imports all that Arrow computes with.
    """
    if array.null_count == len(array):
        return np.full(len(array), null, np.int64)
    values = integers(array).astype(np.int64)
    if array.null_count:
        values[nulls(array)] = null
    return values


def _parts(array: pa.Array, picked: Any) -> tuple[Any, Any, int, Any]:
    bitmap = np.frombuffer(array.buffers()[0], np.uint8)
    return integers(array), bitmap, array.offset, _ALL if picked is None else picked
