"""What a record's bytes become: steps that a kernel runs, made by :mod:`tracekit.ftrace.recognise`.

A *recipe* says for one recorded event (or one function probed under its name) which event type a
record is and which of its bytes fill which columns.  A *program* is all recipes of a recording as
arrays.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from tracekit.events import COLUMNS, COMMON, ColumnType

__all__ = (
    "KIND",
    "PAYLOAD_COLUMNS",
    "STEP",
    "UNRECOGNISED",
    "UNRESOLVED",
    "Op",
    "Program",
    "Recipe",
    "Step",
    "column_index",
)

PAYLOAD_COLUMNS = COLUMNS[len(COMMON) :]
"""The columns that recipes fill, in the order of the schema."""
_INDEX = {c.name: i for i, c in enumerate(PAYLOAD_COLUMNS)}

UNRESOLVED = -2
"""In place of a kind: nobody has looked at this event yet."""
UNRECOGNISED = -1
"""In place of a kind: no event type covers it; it is counted."""

MAX_KINDS = 1024
"""Recipes of a recording; events first seen after so many are unrecognised."""
MAX_PROBES_PER_NAME = 64
"""Functions probed under one event's name; what comes after is unrecognised."""


class Op(IntEnum):
    """What a step does."""

    LOAD = 0
    """column = bytes [at, at + size), shifted left; null if negative or above ``limit``
    (where that is not 0), and counted as doubted, or just null where ``limit`` is negative"""
    OR = 1
    """column |= bytes, shifted left: a value that lies in two pieces"""
    SPAN = 2
    """column = bytes, column2 = the value at ``other`` less it, shifted; ``limit`` as above"""
    CONST = 3
    """column = other"""
    TEXT_LOC = 4
    """column = text that the __data_loc word at ``at`` points to"""
    TEXT_FIXED = 5
    """column = text in the ``size`` bytes at ``at``, up to a NUL; size 0: up to the record's end"""
    TEXT_REL = 6
    """as TEXT_LOC, counted from the end of the word"""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One assignment.  ``at`` and ``other`` are offsets in the record, ``shift`` is in bits."""

    op: Op
    column: str
    at: int = 0
    size: int = 8
    signed: bool = False
    shift: int = 0
    other: int = 0
    column2: str = ""
    limit: int = 0

    @property
    def end(self) -> int:
        """First byte after what the step reads."""
        if self.op is Op.CONST:
            return 0
        if self.op in (Op.TEXT_LOC, Op.TEXT_REL):
            return self.at + 4
        if self.op is Op.SPAN:
            return max(self.at, self.other) + self.size
        return self.at + self.size


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How records become events: ``steps`` always, and those of ``cases`` that ``cmd`` selects.

    ``event`` ``None``: no event type covers them.  ``probe_at`` is the offset of the probed address
    where one name may stand for several functions, else -1.
    """

    event: str | None
    function: str | None = None
    steps: tuple[Step, ...] = ()
    cases: dict[int, tuple[Step, ...]] = field(default_factory=dict)
    cmd_at: int = -1
    probe_at: int = -1


# Fields of a row of the kinds table.
KIND = {
    n: i
    for i, n in enumerate(
        (
            "event", "source", "first_step", "end_step", "first_case", "end_case", "cmd_at",
            "shortest", "probe_at", "probe", "next",
        )
    )
}  # fmt: skip
# Fields of a row of the steps table.
STEP = {
    n: i
    for i, n in enumerate(
        ("op", "column", "at", "size", "signed", "shift", "other", "column2", "limit", "needs")
    )
}


def column_index(name: str) -> int:
    """Which of :data:`PAYLOAD_COLUMNS` it is.

    :raises KeyError: none
    """
    return _INDEX[name]


class Program:
    """The recipes of one recording as arrays that the gather kernel reads.

    The arrays have more rows than are used; rows refer only to used ones.
    """

    def __init__(self) -> None:
        self.kind_of = np.full(65536, UNRESOLVED, np.int64)
        """First kind of each event number."""
        self.recipes: list[Recipe] = []
        self.ids: list[int] = []
        """The event number of each kind."""
        self.kinds = np.zeros((0, len(KIND)), np.int64)
        self.steps = np.zeros((0, len(STEP)), np.int64)
        self.cases = np.zeros((0, 3), np.int64)
        self._used_steps = 0
        self._used_cases = 0
        self._probes: dict[int, int] = {}

    def add(self, number: int, recipe: Recipe, *, event: int, source: int, probe: int) -> None:
        """Records of event ``number`` (probed at ``probe``) follow ``recipe``.

        ``event`` and ``source`` are the dictionary indices that their rows get.
        """
        first = self._used_steps
        self._add_steps(recipe.steps)
        end = self._used_steps
        first_case = self._used_cases
        for cmd, steps in sorted(recipe.cases.items()):
            begin = self._used_steps
            self._add_steps(steps)
            self.cases = _with_room(self.cases, self._used_cases + 1)
            self.cases[self._used_cases] = (cmd, begin, self._used_steps)
            self._used_cases += 1
        shortest = max(
            [8, recipe.cmd_at + 4, recipe.probe_at + 8]
            + [s.end for s in recipe.steps]
            + [s.end for steps in recipe.cases.values() for s in steps]
        )
        kind = len(self.recipes)
        self.kinds = _with_room(self.kinds, kind + 1)
        self.kinds[kind] = (
            event if recipe.event is not None else -1, source, first, end, first_case,
            self._used_cases, recipe.cmd_at, shortest, recipe.probe_at, probe,
            UNRESOLVED if recipe.probe_at >= 0 else UNRECOGNISED,
        )  # fmt: skip
        self.recipes.append(recipe)
        self.ids.append(number)
        self._probes[number] = self._probes.get(number, 0) + 1
        self._link(number, kind)

    def close(self, number: int) -> None:
        """Records of event ``number`` that no recipe covers yet are unrecognised."""
        self._link(number, UNRECOGNISED)

    def full(self, number: int) -> bool:
        """Whether event ``number`` has as many recipes as one name may have, or all have."""
        return self._probes.get(number, 0) >= MAX_PROBES_PER_NAME or len(self.recipes) >= MAX_KINDS

    def _add_steps(self, steps: tuple[Step, ...]) -> None:
        self.steps = _with_room(self.steps, self._used_steps + len(steps))
        for step in steps:
            self.steps[self._used_steps] = _step_row(step)
            self._used_steps += 1

    def _link(self, number: int, kind: int) -> None:
        last = int(self.kind_of[number])
        if last < 0:
            self.kind_of[number] = kind
            return
        while self.kinds[last, KIND["next"]] >= 0:
            last = int(self.kinds[last, KIND["next"]])
        self.kinds[last, KIND["next"]] = kind


def _with_room(table: npt.NDArray[np.int64], rows: int) -> npt.NDArray[np.int64]:
    """The table, or a copy that has at least ``rows`` rows."""
    if rows <= len(table):
        return table
    grown = np.zeros((max(rows, 2 * len(table), 16), table.shape[1]), np.int64)
    grown[: len(table)] = table
    return grown


def _step_row(step: Step) -> list[int]:
    column = _INDEX[step.column]
    second = _INDEX[step.column2] if step.column2 else -1
    assert step.size in (0, 1, 2, 3, 4, 5, 6, 7, 8) or step.op is Op.TEXT_FIXED
    assert 0 <= step.shift <= 62
    assert (step.op >= Op.TEXT_LOC) == (PAYLOAD_COLUMNS[column].type is ColumnType.TEXT), step
    return [
        int(step.op), column, step.at, step.size, int(step.signed), step.shift, step.other, second,
        step.limit, step.end,
    ]  # fmt: skip
