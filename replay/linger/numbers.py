"""Small numbers for what a trace names by large ones: threads, sockets, descriptors, sides."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa

__all__ = ("Numbers", "distinct")

_NEVER = -(1 << 62)


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


def distinct(values: Any) -> tuple[Any, Any]:
    """An integer array's values in the order of their first appearance, and each one's place."""
    coded = pa.array(values).dictionary_encode()
    return np.asarray(coded.dictionary), np.asarray(coded.indices)
