"""A TOML table of unknown origin, taken apart key by key; what is wrong is told with the key."""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable, Iterator, Sequence
from datetime import date, datetime
from enum import Enum
from typing import Any, TypeVar

from tracekit.duration import parse_duration
from tracekit.errors import TracekitError, UsageError

__all__ = ("Keys",)

_Kind = TypeVar("_Kind", bound=Enum)


class Keys:
    """One table.  Each key is taken once; :meth:`done` refuses those that nobody took."""

    def __init__(self, table: object, file: str, place: str = "") -> None:
        self._file = file
        self._place = place
        if not isinstance(table, dict):
            raise UsageError(f"{file}: {place} is not a table", help=f"write it as [{place}]")
        self._left: dict[str, Any] = dict(table)
        self._known: list[str] = []

    def wrong(self, key: str, why: str, *, help: str | None = None) -> UsageError:
        """What is wrong with a key, as the error to raise."""
        return UsageError(f"{self._file}: {self._named(key)} {why}", help=help)

    def text(self, key: str, default: str | None = None) -> str:
        value = self.text_or_none(key)
        if value is None and default is None:
            raise self.wrong(key, "is missing")
        return default or "" if value is None else value

    def text_or_none(self, key: str) -> str | None:
        value = self._take(key)
        if value is None:
            return None
        if not isinstance(value, str) or not value.strip():
            raise self.wrong(key, f"is not a text but {_shown(value)}")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        value = self._take(key)
        if value is None:
            return ()
        if not isinstance(value, list) or not all(isinstance(v, str) and v for v in value):
            raise self.wrong(key, f"is not a list of texts but {_shown(value)}")
        return tuple(value)

    def whole(self, key: str, default: int, *, least: int = 0) -> int:
        value = self._take(key)
        if value is None:
            return default
        if not isinstance(value, int) or isinstance(value, bool):
            raise self.wrong(key, f"is not a whole number but {_shown(value)}")
        if not least <= value < 1 << 53:
            raise self.wrong(key, f"is {value}, and at least {least} is needed")
        return value

    def share(self, key: str, default: float) -> float:
        value = self._take(key)
        if value is None:
            return default
        if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 1:
            raise self.wrong(key, f"is not between 0 and 1 but {_shown(value)}")
        assert math.isfinite(value)
        return float(value)

    def flag(self, key: str, default: bool = False) -> bool:
        value = self._take(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.wrong(key, f"is neither true nor false but {_shown(value)}")
        return value

    def choice(self, key: str, kind: type[_Kind], default: _Kind) -> _Kind:
        value = self.text_or_none(key)
        return default if value is None else self._one_of(key, value, kind)

    def choices(self, key: str, kind: type[_Kind], default: Sequence[_Kind]) -> tuple[_Kind, ...]:
        if key not in self._left:
            self._known.append(key)
            return tuple(default)
        return tuple(self._one_of(key, value, kind) for value in self.texts(key))

    def duration(self, key: str, default: int | None) -> int | None:
        value = self.text_or_none(key)
        if value is None:
            return default
        try:
            return parse_duration(value, key)
        except TracekitError as why:
            said = why.message.removeprefix(key).strip()
            raise self.wrong(key, said, help=why.help) from None

    def day(self, key: str) -> date:
        value = self._take(key)
        if isinstance(value, str):
            try:
                value = date.fromisoformat(value)
            except ValueError:
                raise self.wrong(key, f"is not a date: {value!r}", help="2026-12-31") from None
        if value is None:
            raise self.wrong(key, "is missing", help=f"{key} = 2026-12-31")
        if not isinstance(value, date) or isinstance(value, datetime):
            raise self.wrong(key, f"is not a date but {_shown(value)}", help="2026-12-31")
        return value

    def table(self, key: str) -> Keys:
        """The table below ``key``; an empty one if there is none."""
        value = self._take(key)
        return Keys({} if value is None else value, self._file, self._named(key))

    def tables(self, key: str) -> Iterator[Keys]:
        """Each of an array of tables."""
        value = self._take(key)
        if value is None:
            return
        if not isinstance(value, list):
            raise self.wrong(key, "is not a list of tables", help=f"write each as [[{key}]]")
        for number, one in enumerate(value):
            yield Keys(one, self._file, f"{self._named(key)}[{number}]")

    def done(self) -> None:
        """:raises UsageError: there are keys that mean nothing"""
        for key in self._left:
            close = difflib.get_close_matches(key, self._known, n=1, cutoff=0.5)
            known = f"did you mean {close[0]}?" if close else f"known: {', '.join(self._known)}"
            raise self.wrong(key, "means nothing here", help=known)

    def _one_of(self, key: str, value: str, kind: type[_Kind]) -> _Kind:
        names = [str(member.value) for member in kind]
        if value not in names:
            close = difflib.get_close_matches(value, names, n=1, cutoff=0.5)
            help = f"did you mean {close[0]}?" if close else None
            raise self.wrong(key, f"is {value!r}, which is none of {_listed(names)}", help=help)
        return kind(value)

    def _take(self, key: str) -> Any:
        self._known.append(key)
        return self._left.pop(key, None)

    def _named(self, key: str) -> str:
        return f"{self._place}.{key}" if self._place else key


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)


def _shown(value: object) -> str:
    return repr(value)[:60]
