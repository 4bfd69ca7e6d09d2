"""Small numbers for what a trace names by large ones: threads, sockets, descriptors, sides."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pyarrow as pa

from replay.engine.kept import Kept, State

__all__ = ("Numbers", "distinct")

_NEVER = -(1 << 62)
_SALT = np.frombuffer(os.urandom(16), np.uint64)
"""So that nobody can make a trace whose names all have one hash."""
_MIX = np.array([0xFF51AFD7ED558CCD, 0xC4CEB9FE1A85EC53], np.uint64)


class Numbers:
    """Numbers given out when a thing is first seen, and again to another once it is forgotten.

    A name is an integer of 128 bits.  ``names``: (at least ``given``, 2), the lower and the higher
    half of the name that each number stands for.  ``given``: how many numbers there are, those of
    forgotten things among them.  ``limit``: how many things are known before it is worth looking
    for some to forget.  ``kernel``: with the functions of ``replay.linger.kernel.numbering``.
    """

    def __init__(self, limit: int, kernel: Any) -> None:
        self.limit = self.least = limit
        self._kernel = kernel
        self.names = np.zeros((64, 2), np.int64)
        self._slots = np.full(256, -1, np.int64)
        self._free = np.zeros(64, np.int64)
        self._counts = np.zeros(2, np.int64)
        self._seen = np.full(64, _NEVER, np.int64)

    @property
    def given(self) -> int:
        """How many numbers there are."""
        return int(self._counts[0])

    def numbers(self, low: Any, ts: int, high: Any = None) -> tuple[Any, Any]:
        """The numbers of things that are seen at ``ts``, and the places of those that are new.

        ``low``, ``high``: the halves of their names; without the higher, ``low`` is the name.
        """
        keys = _keys(low, high)
        self._make_room(len(keys))
        found, new = np.empty(len(keys), np.int64), np.empty(len(keys), np.int64)
        fresh = self._look_up(keys, found, new)
        self._seen[found] = ts
        return found, new[:fresh]

    def known(self, low: Any) -> Any:
        """The numbers of things that may be known, else -1."""
        keys = _keys(low, None)
        found = np.empty(len(keys), np.int64)
        self._look_up(keys, found, np.empty(0, np.int64))
        return found

    def _look_up(self, keys: Any, found: Any, new: Any) -> int:
        return int(
            self._kernel.look_up(
                self._slots, self.names, self._free, self._counts, _hashes(keys), keys, found, new
            )
        )

    def _make_room(self, more: int) -> None:
        """For so many things that may all be new."""
        size = self.given + more
        if size > len(self._seen):
            size = max(size, 2 * len(self._seen))
            self.names = _longer(self.names, size, 0)
            self._free = _longer(self._free, size, 0)
            self._seen = _longer(self._seen, size, _NEVER)
        if 2 * (len(self) + more) > len(self._slots):
            self._enter(4 * (len(self) + more))

    def _enter(self, places: int) -> None:
        """Make the table anew, with at least so many places."""
        self._slots = np.full(1 << (places - 1).bit_length(), -1, np.int64)
        used = self._used()
        self._kernel.place(self._slots, _hashes(self.names[used]), used)

    def _used(self) -> Any:
        """The numbers that stand for something."""
        is_used = np.ones(self.given, bool)
        is_used[self._free[: self._counts[1]]] = False
        return np.flatnonzero(is_used)

    def not_since(self, ts: int) -> Any:
        """The numbers of what was last seen before ``ts``, those longest unseen first."""
        used = self._used()
        seen = self._seen[used]
        return used[np.argsort(seen, kind="stable")][: int((seen < ts).sum())]

    def forget(self, numbers: Any) -> None:
        """These things are gone; their numbers may be given to others."""
        count = int(self._counts[1])
        self._free[count : count + len(numbers)] = numbers
        self._counts[1] += len(numbers)
        self._enter(max(256, 4 * len(self)))
        self.limit = max(self.least, 2 * len(self))

    def full(self) -> bool:
        """More are known than the limit allows."""
        return len(self) > self.limit

    def __len__(self) -> int:
        return int(self._counts[0] - self._counts[1])

    def kept_state(self) -> State:
        """What the numbers stand for."""
        used = self._used()
        return {
            "low": self.names[used, 0].view(np.uint64),
            "high": self.names[used, 1],
            "numbers": used,
            "free": self._free[: self._counts[1]].copy(),
            "seen": self._seen[: self.given].copy(),
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
        keys = _keys(low.view(np.int64), high)
        kept.check(len(np.unique(keys, axis=0)) == count, "low")
        size = max(64, total)
        self.names, self._free = np.zeros((size, 2), np.int64), np.zeros(size, np.int64)
        self.names[numbers], self._free[: len(free)] = keys, free
        self._counts[:] = total, len(free)
        self._seen = np.full(size, _NEVER, np.int64)
        self._seen[:total] = kept.array("seen", total)
        self._enter(max(256, 4 * count))
        self.limit = kept.integer("limit", self.least)


def _keys(low: Any, high: Any) -> Any:
    keys = np.empty((len(low), 2), np.int64)
    keys[:, 0], keys[:, 1] = low, low >> 63 if high is None else high
    return keys


def _hashes(keys: Any) -> Any:
    """Of each name, from 0 on."""
    halves = keys.view(np.uint64)
    mixed = (halves[:, 0] ^ _SALT[0]) * _MIX[0]
    mixed ^= mixed >> np.uint64(32)
    mixed = (mixed ^ halves[:, 1] ^ _SALT[1]) * _MIX[1]
    mixed ^= mixed >> np.uint64(29)
    return (mixed >> np.uint64(1)).view(np.int64)


def _longer(array: Any, rows: int, value: Any) -> Any:
    longer = np.full((rows, *array.shape[1:]), value, array.dtype)
    longer[: len(array)] = array
    return longer


def distinct(values: Any) -> tuple[Any, Any]:
    """An integer array's values in the order of their first appearance, and each one's place."""
    coded = pa.array(values).dictionary_encode()
    return np.asarray(coded.dictionary), np.asarray(coded.indices)
