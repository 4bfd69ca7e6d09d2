"""A hash table from names to small numbers: the part of :mod:`replay.linger.numbers` with a loop.

The table is open: ``slots`` has a power of two places, at least half of them empty (-1), and a name
is looked for from its hash on.  ``names``: (numbers, 2), the halves of each number's name.
"""

from __future__ import annotations

from typing import Any

from tracekit.compiled.kernels import entry

__all__ = ("look_up", "place")


@entry
def look_up(
    slots: Any, names: Any, free: Any, counts: Any, hashes: Any, keys: Any, found: Any, new: Any
) -> int:
    """Each key's number in ``found``; one without gets a number that is free, or -1.

    ``counts``: how many numbers there are, and how many of them are in ``free``.  ``new`` takes the
    places of the keys that got one, and is empty where none may.  Returns how many they are.
    """
    last = slots.shape[0] - 1
    fresh = 0
    for i in range(hashes.shape[0]):
        at = hashes[i] & last
        number = slots[at]
        while number >= 0:
            if names[number, 0] == keys[i, 0] and names[number, 1] == keys[i, 1]:
                break
            at = (at + 1) & last
            number = slots[at]
        if number < 0 and new.shape[0]:
            if counts[1] > 0:
                counts[1] -= 1
                number = free[counts[1]]
            else:
                number = counts[0]
                counts[0] += 1
            names[number, 0], names[number, 1] = keys[i, 0], keys[i, 1]
            slots[at] = number
            new[fresh] = i
            fresh += 1
        found[i] = number
    return fresh


@entry
def place(slots: Any, hashes: Any, numbers: Any) -> None:
    """Enter numbers of different names, by the names' hashes."""
    last = slots.shape[0] - 1
    for i in range(hashes.shape[0]):
        at = hashes[i] & last
        while slots[at] >= 0:
            at = (at + 1) & last
        slots[at] = numbers[i]
