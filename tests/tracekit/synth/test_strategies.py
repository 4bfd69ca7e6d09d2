"""The strategies that users' own checks are tested with."""

from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings

from tracekit.events import Event
from tracekit.store import open_trace, write_events
from tracekit.synth.generate import Made
from tracekit.synth.strategies import event_lists, made_traces

QUICK = settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@QUICK
@given(event_lists())
def test_events_of_every_type_can_be_written_and_read(found: list[Event]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.parquet")
        write_events(path, found)
        assert open_trace(path).manifest.rows == len(found)


@QUICK
@given(made_traces(faults=("missing-unmap", "late-unmap"), most_events=600))
def test_made_traces_are_in_time_order_and_know_their_truth(made: Made) -> None:
    last = 0
    for batch in made.batches:
        times = batch.column("ts_ns").to_pylist()
        assert times == sorted(times)
        assert times[0] >= last
        last = times[-1]
    if made.world.struck is not None:
        assert {v.code for v in made.truth.violations} <= set(made.world.struck.codes)
    else:
        assert made.truth.violations == []
