"""hypothesis strategies for a user's own checks: events of any type, and made traces.

    @given(made_traces("dma-ring"))
    def test_my_check(made: Made) -> None:
        for batch in made.batches:
            ...

Derived from the event declarations and the scenarios.  hypothesis is not installed with tracekit.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from tracekit.events import EVENT_TYPES, ColumnType, Event, event_columns, event_type
from tracekit.synth.generate import Made, batches
from tracekit.synth.workloads import WORKLOADS, workload_named

__all__ = ("event_lists", "events", "made_traces")

_LIMITS = {
    ColumnType.U8: (0, (1 << 8) - 1),
    ColumnType.U32: (0, (1 << 32) - 1),
    ColumnType.U64: (0, (1 << 64) - 1),
    ColumnType.I32: (-(1 << 31), (1 << 31) - 1),
    ColumnType.I64: (-(1 << 63), (1 << 63) - 1),
}


def events(*names: str, ts_ns: st.SearchStrategy[int] | None = None) -> st.SearchStrategy[Event]:
    """One event of one of these types, of any without names; columns hold whatever fits in them.

    Where the source may not say, ``None`` is drawn as well.

    :raises KeyError: no such event type
    """
    return st.one_of([_event(name, ts_ns) for name in names or sorted(EVENT_TYPES)])


def _event(name: str, ts_ns: st.SearchStrategy[int] | None) -> st.SearchStrategy[Event]:
    kind = event_type(name)
    times = st.integers(0, 1 << 50) if ts_ns is None else ts_ns
    drawn: dict[str, st.SearchStrategy[Any]] = {
        "ts_ns": times,
        "cpu": st.integers(0, 7),
        "tid": st.integers(1, 1 << 22),
        "comm": st.sampled_from(("qemu-system-x86", "CPU 0/KVM", "CPU 1/KVM")),
    }
    for column, _, required in event_columns(name):
        if column.type is ColumnType.TEXT:
            values: st.SearchStrategy[Any] = st.text(max_size=20)
        else:
            values = st.integers(*_LIMITS[column.type])
        drawn[column.name] = values if required else st.none() | values
    return st.builds(kind, **drawn)


def event_lists(*names: str, max_size: int = 50) -> st.SearchStrategy[list[Event]]:
    """Events in time order."""
    return st.lists(events(*names), max_size=max_size).map(
        lambda found: sorted(found, key=lambda e: e.ts_ns)
    )


@st.composite
def made_traces(
    draw: st.DrawFn,
    *scenarios: str,
    faults: Sequence[str] = (),
    most_events: int = 2_000,
) -> Made:
    """A trace of one of the scenarios, of any without names: seed, QEMU and backend are drawn.

    Correct ones; with ``faults``, one of these is planted in those that it can strike.

    :raises UnknownNameError: no such scenario or fault
    """
    from tracekit.synth.faults import fault_named

    workload = workload_named(draw(st.sampled_from(scenarios or sorted(WORKLOADS))))
    generation = draw(st.sampled_from(workload.generations))
    backend = draw(st.sampled_from(workload.backends))
    able = [f for f in faults if workload.why_not(fault_named(f), generation, backend) is None]
    return batches(
        workload.name,
        seed=draw(st.integers(0, (1 << 32) - 1)),
        events=draw(st.integers(1, most_events)),
        generation=generation,
        backend=backend,
        fault=draw(st.sampled_from(able)) if able else None,
    )
