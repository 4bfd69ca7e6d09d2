"""How a fault is declared: a function that changes the calls of one correct conversion.

    @fault("missing-unmap", "a device's mapping stays ...", codes=("TK101", "TK102"), private=True)
    def missing_unmap(plan: Plan) -> None:
        attribute = plan.find(Op.ATTRIBUTE)
        for call in plan.all(Op.UNMAP):
            plan.remove(call)
        plan.violates("TK101", since=attribute)

A workload's correct conversion comes in, from leaving the guest (``Op.LEAVE``) to entering it again
(``Op.ENTER``), and what the function leaves in ``plan.calls`` is what happens.  The pages of the
conversion are left alone afterwards.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from tracekit.errors import UnknownNameError
from tracekit.synth.calls import PAGE, Call, Op
from tracekit.synth.truth import Planted

__all__ = ("DISCARDS", "EINVAL", "ENOMEM", "FAULTS", "Fault", "Plan", "Request", "fault",
           "fault_named", "joined")  # fmt: skip

DISCARDS = (Op.FALLOCATE, Op.MADVISE)
"""Of the shared side."""
ENOMEM, EINVAL = 12, 22


class Request(Enum):
    """What a fault changes the calls of."""

    CONVERSION = "conversion"  # of a buffer that goes to and fro, by a vCPU
    UNPLUG = "unplug"  # of a device, by the main thread


@dataclass
class _Mark:
    code: str
    severity: str
    gpa: int
    size: int
    since: Call
    until: Call | None
    space: int | None


@dataclass
class Plan:
    """One conversion of ``size`` bytes at ``gpa``, and the calls that it is made of.

    Calls are told apart by identity: ``remove``, ``insert_after`` and the marks of ``violates``
    take the objects that are in ``calls``.  ``spaces``: the containers of the VM.
    ``in_place``: it is judged with ``replay --in-place``.
    """

    gpa: int
    size: int
    private: bool
    calls: list[Call]
    chance: random.Random
    generation: str
    backend: str
    spaces: tuple[int, ...]
    in_place: bool = False
    marks: list[_Mark] = field(default_factory=list)

    def all(self, *ops: Op) -> list[Call]:
        """The calls with such a purpose, in order."""
        return [c for c in self.calls if c.op in ops]

    def find(self, *ops: Op) -> Call:
        """The first of them."""
        return self.all(*ops)[0]

    def last(self, *ops: Op) -> Call:
        """The last of them."""
        return self.all(*ops)[-1]

    def remove(self, call: Call) -> None:
        """It is never made."""
        del self.calls[self._at(call)]

    def insert_after(self, call: Call, *more: Call) -> None:
        """Others follow it."""
        at = self._at(call) + 1
        self.calls[at:at] = more

    def change(self, call: Call, **what: Any) -> Call:
        """It is made differently; the call that takes its place."""
        made = self.calls[self._at(call)] = replace(call, **what)
        return made

    def violates(
        self,
        code: str,
        *,
        since: Call,
        until: Call | None = None,
        gpa: int | None = None,
        size: int | None = None,
        severity: str = "error",
        space: int | None = None,
    ) -> None:
        """What must be found: from within one call until within another, or the trace's end.

        On the whole conversion where no range is given; ``space``: in that container, because each
        has violations of its own.
        """
        self.marks.append(
            _Mark(
                code,
                severity,
                self.gpa if gpa is None else gpa,
                self.size if size is None else size,
                since,
                until,
                space,
            )
        )

    def diverges(self, gpa: int | None = None, size: int | None = None) -> None:
        """The calls, as they are now, are not those of the generation (TK201).

        Where in the conversion that is seen is not said: between its first call and its last.
        """
        self.violates("TK201", since=self.calls[0], until=self.calls[-1], gpa=gpa, size=size)

    def shared_after(self) -> bytes:
        """One byte a page, 1 where it is shared once all calls were made."""
        pages = bytearray([self.private]) * (self.size // PAGE)
        for call in self.all(Op.ATTRIBUTE):
            for gpa, size in () if call.ret else call.parts:
                first, count = (gpa - self.gpa) // PAGE, size // PAGE
                pages[first : first + count] = bytes([call.value == 0]) * count
        return bytes(pages)

    def violations(self) -> tuple[Planted, ...]:
        """The marks, with calls as positions."""
        return tuple(
            Planted(
                code=m.code,
                severity=m.severity,
                gpa=m.gpa,
                size=m.size,
                since=self._at(m.since),
                until=None if m.until is None else self._at(m.until),
                space=m.space,
            )
            for m in self.marks
        )

    def _at(self, call: Call) -> int:
        return next(i for i, c in enumerate(self.calls) if c is call)


@dataclass(frozen=True)
class Fault:
    """``codes``: that it can give; its plan's violations say which.

    ``private``: strikes conversions in this direction only.  ``generations``, ``backends``: where
    it can happen.  ``devices``: how many containers it needs.  ``pages``: of the conversion, at
    least.  ``discards``: the conversions throw the shared side away.  ``beside``: other pages are
    shared, which shows that the devices have all that is.
    """

    name: str
    summary: str
    codes: tuple[str, ...]
    change: Callable[[Plan], None]
    request: Request = Request.CONVERSION
    private: bool | None = None
    devices: int = 1
    generations: tuple[str, ...] = ("v4", "merged", "11.1")
    backends: tuple[str, ...] = ("type1", "iommufd")
    pages: int = 1
    discards: bool = False
    beside: bool = False

    def why_not(
        self,
        *,
        generation: str,
        backend: str,
        devices: int,
        requests: Iterable[Request],
        discards: bool,
    ) -> str | None:
        """Why it cannot strike a workload like this; ``None``: it can."""
        if self.request not in requests:
            return f"it makes no such request ({self.request.value})"
        if self.discards and not discards:
            return "it keeps the shared side of what becomes private"
        if devices < self.devices:
            return f"it has {devices} devices and {self.devices} are needed"
        if generation not in self.generations:
            return f"it does not happen in generation {generation}"
        if backend not in self.backends:
            return f"it does not happen with {backend}"
        return None


FAULTS: dict[str, Fault] = {}
"""Every fault by its name."""


def fault(
    name: str, summary: str, *, codes: tuple[str, ...], **limits: Any
) -> Callable[[Callable[[Plan], None]], Callable[[Plan], None]]:
    """Declare a fault; ``limits`` are fields of :class:`Fault`."""

    def declare(change: Callable[[Plan], None]) -> Callable[[Plan], None]:
        assert name not in FAULTS, name
        FAULTS[name] = Fault(name, summary, codes, change, **limits)
        return change

    return declare


def joined(parts: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Ranges (address, bytes), neighbours made one."""
    out: list[tuple[int, int]] = []
    for at, size in sorted(parts):
        if out and out[-1][0] + out[-1][1] == at:
            out[-1] = (out[-1][0], out[-1][1] + size)
        else:
            out.append((at, size))
    return out


def fault_named(name: str) -> Fault:
    """The fault called ``name``.

    :raises UnknownNameError: there is none
    """
    if name not in FAULTS:
        raise UnknownNameError("fault", name, FAULTS)
    return FAULTS[name]
