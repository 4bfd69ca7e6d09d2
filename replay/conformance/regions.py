"""Whether regions are mapped as the memory slots say that they are.

Without a conversion and without virtio-mem nothing tells the generations of QEMU apart, for all map
a region with one call.  QEMU is known then by what it maps: each region is a memory slot as well,
of the same guest address, size and user address, which comes before the map or after it.
"""

from __future__ import annotations

from collections import Counter

__all__ = ("Regions",)

Section = tuple[int, int, int, int]
"""Process, guest address, bytes, user address."""
MOST = 1 << 16
"""Maps that wait for their slot; of more it is not known whether they have one."""


class Regions:
    """Tell it slots and maps; ``like`` maps are a slot's, ``unlike`` ones no slot's so far."""

    def __init__(self) -> None:
        self.like = 0
        self._slots: dict[tuple[int, int], Section] = {}
        self._there: Counter[Section] = Counter()
        self._waiting: Counter[Section] = Counter()
        self._many = 0

    @property
    def unlike(self) -> int:
        return self._waiting.total() + self._many

    def slot(self, number: int, section: Section) -> None:
        """A slot is there from now on; of no size: it is gone."""
        key = (section[0], number)
        before = self._slots.pop(key, None)
        if before is not None:
            self._there[before] -= 1
            if not self._there[before]:
                del self._there[before]
        if section[2] <= 0:
            return
        self._slots[key] = section
        self._there[section] += 1
        self.like += self._waiting.pop(section, 0)

    def map(self, section: Section) -> None:
        """A map of a region, whatever its result."""
        if self._there.get(section, 0) > 0:
            self.like += 1
        elif len(self._waiting) < MOST:
            self._waiting[section] += 1
        else:
            self._many += 1

    def lost(self) -> None:
        """Events were lost, slots among them: of what waited nothing is known."""
        self._slots.clear()
        self._there.clear()
        self._waiting.clear()
