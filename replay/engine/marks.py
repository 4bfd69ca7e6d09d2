"""Marks of a trace, each three numbers: there may be one every few events."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, overload

import numpy as np

__all__ = ("Marks",)

Mark = tuple[int, int, int]


class Marks(Sequence[Mark]):
    """(time, other time, event number) of each, in the order in which they came."""

    def __init__(self) -> None:
        self._rows = np.zeros((0, 3), np.int64)
        self._used = 0

    def add(self, rows: Any) -> None:
        """More of them: int64 array (n, 3)."""
        end = self._used + len(rows)
        if end > len(self._rows):
            grown = np.zeros((max(2 * len(self._rows), end, 16), 3), np.int64)
            grown[: self._used] = self.rows
            self._rows = grown
        self._rows[self._used : end] = rows
        self._used = end

    @property
    def rows(self) -> Any:
        """All of them: int64 array (n, 3)."""
        return self._rows[: self._used]

    def __len__(self) -> int:
        return self._used

    def __iter__(self) -> Iterator[Mark]:
        for row in self.rows:
            time, other, seq = row.tolist()
            yield time, other, seq

    @overload
    def __getitem__(self, place: int) -> Mark: ...
    @overload
    def __getitem__(self, place: slice) -> list[Mark]: ...
    def __getitem__(self, place: int | slice) -> Mark | list[Mark]:
        if isinstance(place, int):
            time, other, seq = self.rows[place].tolist()
            return time, other, seq
        return [(time, other, seq) for time, other, seq in self.rows[place].tolist()]
