"""Columns of a batch -> rows of integers, in which nulls are NULL."""

from __future__ import annotations

from typing import Any

from tracekit.compiled.kernels import entry, jit

from .layout import NULL

__all__ = ("fill", "merge", "merge_over")


@jit
def there(bits: Any, at: int) -> bool:
    """True if a column's bitmap says that it has a value there."""
    return bits[at >> 3] >> (at & 7) & 1 != 0


@entry
def fill(row: Any, values: Any, bits: Any, first: int, picked: Any) -> None:
    """``row`` becomes the values, those at ``picked`` if there are any, and NULL for nulls.

    ``bits``: Arrow's validity bitmap, in which the column begins with bit ``first``.
    """
    n = len(row)
    if len(picked):
        for i in range(n):
            at = picked[i]
            row[i] = values[at] if there(bits, first + at) else NULL
        return
    whole = n - n % 8 if first % 8 == 0 else 0
    for eight in range(whole >> 3):
        byte = bits[(first >> 3) + eight]
        for bit in range(8):
            i = eight * 8 + bit
            row[i] = values[i] if byte >> bit & 1 else NULL
    for i in range(whole, n):
        row[i] = values[i] if there(bits, first + i) else NULL


@entry
def merge(row: Any, values: Any, bits: Any, first: int, picked: Any) -> None:
    """Where ``row`` is NULL it becomes the value, if there is one."""
    for i in range(len(row)):
        at = picked[i] if len(picked) else i
        if row[i] == NULL and there(bits, first + at):
            row[i] = values[at]


@entry
def merge_over(row: Any, values: Any, bits: Any, first: int, picked: Any) -> None:
    """``row`` becomes the value wherever there is one."""
    for i in range(len(row)):
        at = picked[i] if len(picked) else i
        if there(bits, first + at):
            row[i] = values[at]
