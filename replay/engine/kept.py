"""What was kept of a replay and is taken up again: arrays and plain values of unknown origin."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tracekit.errors import TraceFormatError, UsageError

__all__ = ("Kept", "State", "told_apart")

State = dict[str, Any]
"""Of one part: numpy arrays, integers, text, lists of these, and states of its own parts."""

_INT64 = 1 << 63


class Kept:
    """A state, taken apart field by field; every shape, type and bound is checked here.

    ``name``: the part's, for what is said when something of it is wrong.
    """

    def __init__(self, values: object, name: str) -> None:
        self.name = name
        if not isinstance(values, Mapping):
            raise self.wrong()
        self.values: State = dict(values)

    def wrong(self, field: str | None = None) -> TraceFormatError:
        """The error to raise for a field that is not what it must be."""
        place = self.name if field is None else f"{self.name}.{field}"
        return TraceFormatError(f"the checkpoint's {place} is missing or malformed")

    def check(self, good: object, field: str) -> None:
        """A condition that every state fulfils that this program has made."""
        if not good:
            raise self.wrong(field)

    def part(self, field: str) -> Kept:
        """A part's own state."""
        return Kept(self.values.get(field), f"{self.name}.{field}")

    def parts(self, field: str) -> list[Kept]:
        """Several parts' own states."""
        return [
            Kept(value, f"{self.name}.{field}[{i}]") for i, value in enumerate(self.items(field))
        ]

    def has(self, field: str) -> bool:
        """Whether there is one, and it is not null."""
        return self.values.get(field) is not None

    def array(self, field: str, *shape: int | None, dtype: Any = np.int64) -> Any:
        """A copy of an array; ``shape``: None where any length is good."""
        array = self.values.get(field)
        if (
            not isinstance(array, np.ndarray)
            or array.dtype != dtype
            or array.ndim != len(shape)
            or any(want not in (None, have) for want, have in zip(shape, array.shape, strict=True))
        ):
            raise self.wrong(field)
        return array.copy()

    def indices(self, field: str, array: Any, end: int, *, first: int = 0) -> None:
        """All numbers of the array are in [first, end)."""
        self.check(array.size == 0 or (array.min() >= first and array.max() < end), field)

    def integer(self, field: str, least: int = -_INT64, most: int = _INT64 - 1) -> int:
        """A number in [least, most]."""
        value = self.values.get(field)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise self.wrong(field)
        return value

    def integer_or_none(self, field: str, least: int = -_INT64) -> int | None:
        """A number, or null."""
        return self.integer(field, least) if self.has(field) else None

    def boolean(self, field: str) -> bool:
        """True or false."""
        value = self.values.get(field)
        if not isinstance(value, bool):
            raise self.wrong(field)
        return value

    def text(self, field: str) -> str:
        """A text."""
        value = self.values.get(field)
        if not isinstance(value, str):
            raise self.wrong(field)
        return value

    def text_or_none(self, field: str) -> str | None:
        """A text, or null."""
        return self.text(field) if self.has(field) else None

    def items(self, field: str) -> list[Any]:
        """A list of whatever."""
        value = self.values.get(field)
        if not isinstance(value, list):
            raise self.wrong(field)
        return value

    def texts(self, field: str) -> list[str]:
        """A list of texts."""
        values = self.items(field)
        self.check(all(isinstance(v, str) for v in values), field)
        return values

    def counts(self, field: str) -> dict[str, int]:
        """How many, by name."""
        part = self.part(field)
        return {name: part.integer(name, 0) for name in part.values}

    def table(self, field: str) -> dict[int, int]:
        """A dictionary of integers, as it was put into order."""
        rows = self.array(field, None, 2).tolist()
        out = dict(rows)
        self.check(len(out) == len(rows), field)
        return out


def told_apart(names: Sequence[str]) -> UsageError:
    """The error for a state of a trace that could not show what the next one shows.

    What was concluded from the silence of these event types was concluded from their absence.
    """
    return UsageError(
        f"the checkpoint is of a trace without {', '.join(names)}, which this trace has",
        help="if they were recorded then too and none came, make it again with --recorded NAME;"
        " if not, replay this trace without --from",
    )
