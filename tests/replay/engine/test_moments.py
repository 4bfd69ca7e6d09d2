"""An error is what is broken for every choice of moments, and nothing else.

Each effect of a call lies somewhere between two times that the trace shows (architecture, section
4).  Here two threads' calls are laid over each other at random, every choice of the moments is
tried in a model of a few lines, and the engine, as its oracle, must say *error* exactly where all
choices are broken, and *possible* where some are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import product
from typing import NamedTuple

import pytest
from hunting import hunted
from hypothesis import given
from hypothesis import strategies as st
from moments import ERRORS_AND_DOUBTS, Call, lay_out

Times = dict[str, list[int]]
Choice = dict[str, int]


class Scene(NamedTuple):
    """Calls of two threads, and which codes a choice of their moments breaks."""

    first: tuple[str, ...]
    second: tuple[str, ...]
    before: str
    broken: Callable[[Choice], set[str]]


def stale(t: Choice) -> set[str]:
    """The unmap comes after the guest was entered, or after the shared side was thrown away."""
    return {"TK101"} if t["unmap"] > t["over"] else set()


def outlived(t: Choice) -> set[str]:
    """The unmap comes after the thread that discarded entered the guest."""
    return {"TK102"} if t["unmap"] > t["over"] else set()


def premature(t: Choice) -> set[str]:
    """The map comes before the pages are shared."""
    return {"TK103"} if t["map"] < t["shared"] else set()


def missing(t: Choice) -> set[str]:
    """The map comes when the guest uses the pages already; or too early."""
    return premature(t) | ({"TK104"} if t["map"] > t["over"] else set())


MAPPED = "map 0x0+64K"
SCENES = {
    "an unmap and the guest": Scene(("private", "run"), ("unmap",), MAPPED, stale),
    "an unmap and the discard": Scene(("private", "punch"), ("unmap",), MAPPED, stale),
    "a map and the attribute": Scene(("shared",), ("map",), "private 0x0+64K", premature),
    "a map and the guest": Scene(("shared", "run"), ("map",), "cover 0x0+64K", missing),
    "a discard and the guest": Scene(("punch", "run"), ("unmap",), MAPPED, outlived),
}


def choices(times: Times) -> Iterator[Choice]:
    """Every choice of one moment in each interval."""
    names = list(times)
    for moments in product(*times.values()):
        yield dict(zip(names, moments, strict=True))


@pytest.mark.parametrize("judge", list(ERRORS_AND_DOUBTS))
@pytest.mark.parametrize("name", list(SCENES))
@given(data=st.data())
@hunted(60)
def test_an_error_is_what_every_choice_breaks(name: str, judge: str, data: st.DataObject) -> None:
    scene = SCENES[name]
    calls: list[Call] = []
    for thread, verbs in (("vmm", scene.first), ("vmm2", scene.second)):
        count = 2 * len(verbs)
        drawn = data.draw(st.lists(st.integers(0, 40), min_size=count, max_size=count, unique=True))
        # The threads' times are never equal: equal ones are unordered, which is another law.
        times = sorted(8 * t + (4 if thread == "vmm2" else 0) for t in drawn)
        calls += [Call(thread, verb, *times[2 * i : 2 * i + 2]) for i, verb in enumerate(verbs)]
    rows, times_of = lay_out(scene.before, calls)
    every = [scene.broken(choice) for choice in choices(times_of)]
    some = set().union(*every)
    certain = set.intersection(*every)
    errors, doubts = ERRORS_AND_DOUBTS[judge](rows)
    assert errors == certain, "an error is what every choice breaks"
    assert doubts == some - certain, "a doubt is what some choice breaks"
