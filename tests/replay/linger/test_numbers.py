"""Numbers for things: the same for the same name, and another's once it is forgotten."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from replay.engine.kept import Kept
from replay.linger.numbers import Numbers
from replay.linger.stream import load_kernel
from tracekit.errors import TraceFormatError

KERNEL = load_kernel(compiled=False)
HALF = st.integers(-(1 << 63), (1 << 63) - 1) | st.integers(-2, 2)
NAMES = st.lists(st.tuples(HALF, HALF), max_size=80)


def numbered(
    numbers: Numbers, names: list[tuple[int, int]], ts: int
) -> tuple[list[int], list[int]]:
    """Their numbers, and the places of those that are new."""
    halves = np.array(names, np.int64).reshape(-1, 2)
    found, new = numbers.numbers(halves[:, 0], ts, halves[:, 1])
    return found.tolist(), new.tolist()


@given(st.lists(st.tuples(NAMES, st.booleans()), max_size=8))
def test_a_name_keeps_its_number_until_it_is_forgotten(
    steps: list[tuple[list[tuple[int, int]], bool]],
) -> None:
    numbers, known = Numbers(1, KERNEL), dict[tuple[int, int], int]()
    for ts, (names, forgets) in enumerate(steps):
        found, new = numbered(numbers, names, ts)
        first = [i for i, name in enumerate(names) if name not in known and name not in names[:i]]
        assert new == first
        given_out = set(known.values())
        for name, number in zip(names, found, strict=True):
            assert known.setdefault(name, number) == number
        assert len(set(known.values())) == len(known) == len(numbers)
        assert given_out.isdisjoint(found[i] for i in new)
        assert all(tuple(numbers.names[n].tolist()) == name for name, n in known.items())
        if forgets:
            old = numbers.not_since(ts)
            assert set(old.tolist()) == {n for m, n in known.items() if m not in names}
            numbers.forget(old)
            known = {name: n for name, n in known.items() if name in names}
        restored = Numbers(1, KERNEL)
        restored.restore(Kept(numbers.kept_state(), "numbers"))
        assert numbered(restored, [*known], ts) == ([*known.values()], [])
    assert numbers.given <= sum(len(names) for names, _ in steps)


def test_a_name_without_a_higher_half_is_an_integer() -> None:
    numbers = Numbers(1, KERNEL)
    found, new = numbers.numbers(np.array([7, -7, 7]), 0)
    assert (found.tolist(), new.tolist()) == ([0, 1, 0], [0, 1])
    assert numbered(numbers, [(7, 0), (-7, -1)], 1) == ([0, 1], [])
    assert numbers.known(np.array([-7, 8])).tolist() == [1, -1]
    assert numbers.given == 2


def test_two_things_of_one_name_are_no_state() -> None:
    numbers = Numbers(1, KERNEL)
    numbers.numbers(np.array([7, 8]), 0)
    state = numbers.kept_state()
    state["low"] = np.array([7, 7], np.uint64)
    with pytest.raises(TraceFormatError, match="low is missing or malformed"):
        Numbers(1, KERNEL).restore(Kept(state, "numbers"))
