# SPDX-License-Identifier: Apache-2.0
"""What a recording listener writes down."""

from collections.abc import Mapping
from enum import Enum
from typing import NamedTuple

from replay.models.errors import ListenerError
from replay.models.memory_region_section import MemoryRegionSection

__all__ = ("Notification", "NotificationKind", "Refusals")


class NotificationKind(Enum):
    """The two directions, in the merged words."""

    POPULATE = "populate"
    DISCARD = "discard"


class Notification(NamedTuple):
    """One call of a listener, and the errno it answered with (0: it agreed)."""

    listener: str
    kind: NotificationKind
    section: MemoryRegionSection
    errno: int = 0

    def __str__(self) -> str:
        _, offset, size, address = self.section
        answer = f" -> {self.errno}" if self.errno else ""
        return (
            f"{self.listener} {self.kind.value} [{offset:#x}, +{size:#x}) at {address:#x}{answer}"
        )


class Refusals:
    """Which calls to refuse: number of the call, from 1, to errno."""

    def __init__(self, plan: Mapping[int, int] | None) -> None:
        self.plan = dict(plan or {})
        if any(number < 1 or errno < 1 for number, errno in self.plan.items()):
            raise ValueError(f"calls count from 1 and errno is positive: {self.plan}")
        self.calls = 0

    def next(self) -> int:
        """The errno for the call that comes now, or 0."""
        self.calls += 1
        return self.plan.get(self.calls, 0) if self.plan else 0

    def answer(self, errno: int) -> None:
        """Raise it, unless it is 0."""
        if errno:
            raise ListenerError("refused as planned", errno)
