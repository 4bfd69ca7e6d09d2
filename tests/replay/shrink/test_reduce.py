"""Delta debugging by itself."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from replay.shrink.reduce import reduced


@given(st.integers(1, 200), st.lists(st.frozensets(st.integers(0, 199), min_size=1), min_size=1))
def test_what_is_left_holds_and_not_without_any_one_thing(
    count: int, needs: list[frozenset[int]]
) -> None:
    things = range(count)
    needs = [need & set(things) or frozenset({0}) for need in needs]

    def holds(some: Sequence[int]) -> bool:
        return any(need <= set(some) for need in needs)

    left = reduced(things, holds)
    assert holds(left)
    assert left == sorted(left)
    assert not any(holds([x for x in left if x != one]) for one in left)
    assert left == reduced(things, holds)


def test_few_of_many_are_found_with_few_tries() -> None:
    tries = 0

    def holds(some: Sequence[int]) -> bool:
        nonlocal tries
        tries += 1
        return {17, 5000, 9999} <= set(some)

    assert reduced(range(10_000), holds) == [17, 5000, 9999]
    assert tries < 200
