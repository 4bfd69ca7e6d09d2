"""Threads that take turns on one clock: what happens at once on several CPUs, in one order."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Generator
from dataclasses import dataclass

__all__ = ("Activity", "Simulation", "Until")


@dataclass(frozen=True)
class Until:
    """Sleep until ``condition`` holds, at the latest until ``deadline_ns``."""

    condition: Callable[[], bool]
    deadline_ns: int | None = None


Activity = Generator[int | Until, None, None]
"""A thread's doings: yields how many ns it sleeps, or what it sleeps for."""


class Simulation:
    """Runs activities in the order of time until nothing is left that could happen."""

    def __init__(self, start_ns: int) -> None:
        self.now = start_ns
        self._due: list[tuple[int, int, Activity, bool]] = []
        self._asleep: dict[int, tuple[Until, Activity]] = {}
        self._count = 0

    def start(self, activity: Activity, after_ns: int = 0) -> None:
        """A new thread, or work, begins."""
        self._later(self.now + after_ns, activity)

    def run(self) -> None:
        """Until every activity has ended or sleeps for what never comes."""
        while True:
            while self._woke_one():
                pass
            if not self._due:
                return
            at, number, activity, is_deadline = heapq.heappop(self._due)
            if is_deadline and self._asleep.pop(number, None) is None:
                continue  # what it slept for came in time
            self.now = max(self.now, at)
            self._step(activity)

    def _woke_one(self) -> bool:
        """Whoever's condition holds goes on, in the order in which they fell asleep."""
        for number, (until, activity) in self._asleep.items():
            if until.condition():
                del self._asleep[number]
                self._step(activity)
                return True
        return False

    def _step(self, activity: Activity) -> None:
        try:
            wish = next(activity)
        except StopIteration:
            return
        if isinstance(wish, int):
            self._later(self.now + wish, activity)
            return
        self._count += 1
        self._asleep[self._count] = (wish, activity)
        if wish.deadline_ns is not None:
            heapq.heappush(self._due, (wish.deadline_ns, self._count, activity, True))

    def _later(self, ts: int, activity: Activity) -> None:
        self._count += 1
        heapq.heappush(self._due, (ts, self._count, activity, False))
