"""The three generations on the same requests: the known differences, and no others."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from replay.models import merged, sources, v4
from replay.models.notification import Notification

PAGE = 4096
BLOCKS = 8

blocks = st.tuples(st.integers(0, BLOCKS - 1), st.integers(1, BLOCKS)).map(
    lambda pair: (pair[0] * PAGE, min(pair[1], BLOCKS - pair[0]) * PAGE)
)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("change"), blocks, st.booleans()),
        st.tuples(st.just("listen"), blocks, st.booleans()),
    ),
    max_size=12,
)


def play(package: Any, script: list[tuple[str, tuple[int, int], bool]]) -> list[Notification]:
    """What every listener hears, without failures and without a listener that goes."""
    name = "RamBlockAttribute" if package is v4 else "RamBlockAttributes"
    ram = getattr(package, name)(BLOCKS * PAGE)
    manager = ram.manager if package is sources else ram
    log: list[Notification] = []
    for number, (what, where, flag) in enumerate(script):
        if what == "change":
            ram.state_change(*where, flag)
        else:
            listener = package.RecordingListener(f"listener {number}", log)
            manager.register_listener(listener, ram.mr.section(*where, address=1 << 32))
    return log


def lines(log: list[Notification]) -> list[str]:
    return [str(notification) for notification in log]


@given(script=steps)
@settings(max_examples=150, deadline=None)
def test_without_failures_merged_and_several_sources_say_the_same(
    script: list[tuple[str, tuple[int, int], bool]],
) -> None:
    assert lines(play(merged, script)) == lines(play(sources, script))


@given(script=steps)
@settings(max_examples=150, deadline=None)
def test_without_failures_v4_differs_in_the_order_of_listeners_only(
    script: list[tuple[str, tuple[int, int], bool]],
) -> None:
    old, new = lines(play(v4, script)), lines(play(merged, script))
    assert sorted(old) == sorted(new)
    for name in {line.split(" populate ")[0].split(" discard ")[0] for line in old}:
        assert [x for x in old if x.startswith(f"{name} ")] == [
            x for x in new if x.startswith(f"{name} ")
        ]
