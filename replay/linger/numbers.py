"""Small numbers for what a trace names by large ones: threads, sockets, descriptors, sides."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa

from replay.engine.kept import Kept, State

__all__ = ("Numbers", "distinct")

_NEVER = -(1 << 62)
_HALF = (1 << 64) - 1


class Numbers:
    """Numbers given out when a thing is first seen, and again to another once it is forgotten.

    ``names[n]`` is what ``n`` stands for; ``fresh`` those given out and not yet taken notice of.
    ``limit``: how many things are known before it is worth looking for some to forget.
    """

    def __init__(self, limit: int) -> None:
        self.of: dict[int, int] = {}
        self.names: list[int | None] = []
        self.fresh: list[int] = []
        self.limit = self.least = limit
        self._free: list[int] = []
        self._seen = np.full(64, _NEVER, np.int64)

    def number(self, name: int) -> int:
        """The number of one thing."""
        found = self.of.get(name)
        if found is None:
            if self._free:
                found = self._free.pop()
                self.names[found] = name
            else:
                found = len(self.names)
                self.names.append(name)
            self.of[name] = found
            self.fresh.append(found)
        return found

    def numbers(self, names: Iterable[int], ts: int) -> Any:
        """The numbers of different things, seen at ``ts``."""
        found = np.array([self.number(name) for name in names] or [0], np.int64)
        if len(self.names) > len(self._seen):
            more = np.full(len(self.names), _NEVER, np.int64)
            self._seen = np.concatenate([self._seen, more])
        self._seen[found] = ts
        return found

    def taken(self) -> list[int]:
        """Those given out since the last time."""
        fresh, self.fresh = self.fresh, []
        return fresh

    def not_since(self, ts: int) -> Any:
        """The numbers of what was last seen before ``ts``, those longest unseen first."""
        used = np.fromiter(self.of.values(), np.int64, len(self.of))
        seen = self._seen[used]
        return used[np.argsort(seen, kind="stable")][: int((seen < ts).sum())]

    def forget(self, numbers: Any) -> None:
        """These things are gone; their numbers may be given to others."""
        for number in numbers.tolist():
            del self.of[self.names[number]]
            self.names[number] = None
            self._free.append(number)
        self.limit = max(self.least, 2 * len(self.of))

    def full(self) -> bool:
        """More are known than the limit allows."""
        return len(self.of) > self.limit

    def __len__(self) -> int:
        return len(self.of)

    def kept_state(self) -> State:
        """What the numbers stand for; all were taken notice of."""
        assert not self.fresh
        return {
            "low": np.array([name & _HALF for name in self.of], np.uint64),
            "high": np.array([name >> 64 for name in self.of], np.int64),
            "numbers": np.fromiter(self.of.values(), np.int64, len(self.of)),
            "free": np.array(self._free, np.int64),
            "seen": self._seen[: len(self.names)].copy(),
            "limit": self.limit,
        }

    def restore(self, kept: Kept) -> None:
        """Give the same numbers to the same things.

        :raises TraceFormatError: no state of numbers
        """
        numbers, free = kept.array("numbers", None), kept.array("free", None)
        count, total = len(numbers), len(numbers) + len(free)
        every = np.concatenate([numbers, free])
        kept.indices("numbers", every, total)
        kept.check(len(np.unique(every)) == total, "numbers")
        low, high = kept.array("low", count, dtype=np.uint64), kept.array("high", count)
        names = [n | h << 64 for n, h in zip(low.tolist(), high.tolist(), strict=True)]
        self.of = dict(zip(names, numbers.tolist(), strict=True))
        kept.check(len(self.of) == count, "low")
        self.names = [None] * total
        for name, number in self.of.items():
            self.names[number] = name
        self._free = free.tolist()
        self._seen = np.full(max(64, total), _NEVER, np.int64)
        self._seen[:total] = kept.array("seen", total)
        self.limit = kept.integer("limit", self.least)


def distinct(values: Any) -> tuple[Any, Any]:
    """An integer array's values in the order of their first appearance, and each one's place."""
    coded = pa.array(values).dictionary_encode()
    return np.asarray(coded.dictionary), np.asarray(coded.indices)
