"""Calls are followed in the order of the trace, however many events are read at once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from conforming import beside, events_of, followed, hotplugged, of_process, together, ways

from replay.conformance import matcher, order
from replay.conformance.calls import COLUMNS
from replay.conformance.conformance import Conformance, Follower
from replay.conformance.kernel import layout as K
from replay.conformance.order import InOrder
from tracekit.events import Event
from tracekit.store import Trace, open_trace, write_events
from tracekit.synth.calls import Op
from tracekit.synth.defects import Defects
from tracekit.synth.generate import generate
from tracekit.synth.guest import PAGE, Guest
from tracekit.synth.vmm import Region, Vmm

SMALL = {"memory": "256KiB", "device": "16MiB", "requests": "8"}
MADE = {
    "memory-hotplug": SMALL,
    "device-hotplug": {"memory": "512KiB", "buffer": "16KiB", "rounds": "2"},
    "parallel-vcpus": {"memory": "1MiB", "buffer": "16KiB", "vcpus": "3"},
    "hugetlb": {"memory": "2MiB", "buffer": "16KiB"},
}


def read_by(trace: Trace, rows: int, generation: str) -> Conformance:
    """What is said of a trace whose reader gives so many rows at once."""
    follower = Follower(trace.manifest.events, generation=generation, compiled=False)
    table = pa.Table.from_batches(trace.batches(COLUMNS))
    (whole,) = table.unify_dictionaries().combine_chunks().to_batches()
    for at in range(0, len(whole), rows):
        follower.feed(whole.slice(at, rows))
    return follower.finish()


def same_by_any(trace: Trace, generation: str) -> Conformance:
    """The answer, which is the same in batches of 1, 7 and 64 Ki rows."""
    one, seven, all_of_it = (read_by(trace, rows, generation) for rows in (1, 7, 1 << 16))
    assert sorted(one.tids) == sorted(seven.tids) == sorted(all_of_it.tids)
    assert replace(one, tids=()) == replace(seven, tids=()) == replace(all_of_it, tids=())
    return one


@pytest.mark.parametrize("workload", MADE)
@pytest.mark.parametrize("lose", [0.0, 0.02])
def test_how_many_rows_come_at_once_makes_no_difference(
    workload: str, lose: float, tmp_path: Path
) -> None:
    out = tmp_path / "made.parquet"
    generate(
        workload, out, seed=3, events=300, generation="merged", backend="iommufd",
        parameters=MADE[workload], defects=Defects(seed=3, lose=lose),
    )  # fmt: skip
    c = same_by_any(open_trace(out), "merged")
    assert c.tally.compared > 3 or lose
    assert (ways(c), c.listeners.departed) == ([], 0)


def test_nor_does_it_where_much_happens_in_a_conversion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Calls wait for conversions that are open, but not longer than a period."""
    for module in (order, matcher):
        monkeypatch.setattr(module, "PERIOD", 16)
    out = tmp_path / "made.parquet"
    generate(
        "memory-hotplug", out, seed=5, events=300, generation="11.1", backend="type1",
        parameters=SMALL,
    )  # fmt: skip
    c = same_by_any(open_trace(out), "11.1")
    assert c.listeners.plugs + c.listeners.unplugs > 5
    assert (ways(c), c.listeners.departed) == ([], 0)


def test_nor_does_it_where_a_process_has_two_vms(tmp_path: Path) -> None:
    one, two = beside("merged", 101, 1), beside("merged", 202, 2, host=0x7E00_0000_0000)
    path = tmp_path / "two.parquet"
    write_events(path, together(one.events, of_process(two.events, 101, 8)))
    assert ways(same_by_any(open_trace(path), "merged")) == []


def test_slots_are_remembered_until_a_second_vm_comes(tmp_path: Path) -> None:
    """Whose a container is that begins after both VMs is told by the slots of both."""
    one, two = Guest("merged"), beside("merged", 100, 2, host=0x7E00_0000_0000)
    one.convert(40, 4, private=False)
    boot = len(events_of(one))
    one.plug_device(space=7)  # by the thread whose last call was of the second VM
    for first in range(0, 16, 2):
        one.convert(first, 2, private=False)
        one.convert(first, 2, private=True)
    first = [replace(e, pid=101) for e in events_of(one)]
    late = [replace(e, ts_ns=e.ts_ns + (1 << 30)) for e in first[boot:]]
    second = [replace(e, ts_ns=e.ts_ns + (1 << 29)) for e in of_process(events_of(two), 101, 8)]
    path = tmp_path / "two.parquet"
    write_events(path, [*first[:boot], *second, *late])
    c = same_by_any(open_trace(path), "merged")
    assert ways(c) == []
    assert c.tally.reasons == {"unknown_container": 1}
    assert c.tally.conforming > 16


def test_a_container_of_before_is_the_first_vms(tmp_path: Path) -> None:
    """v4 unmaps before it names the VM, and the thread's last call was of the second one."""
    one, two = Guest("v4"), Guest("v4", vmm=Vmm(regions=(Region(size=64 * PAGE, host=1 << 44),)))
    one.plug_device(space=7)
    for first in range(0, 8, 2):
        one.convert(first, 2, private=False)
    begun = len(events_of(one))
    for first in range(0, 8, 2):
        one.convert(first, 2, private=True)
    every = [replace(e, pid=101) for e in events_of(one)]
    second = of_process(events_of(two), 101, 8)
    path = tmp_path / "two.parquet"
    moved = [replace(e, ts_ns=e.ts_ns + (1 << 29)) for e in second]
    late = [replace(e, ts_ns=e.ts_ns + (1 << 30)) for e in every[begun:]]
    write_events(path, [*every[:begun], *moved, *late])
    c = same_by_any(open_trace(path), "v4")
    assert ways(c) == []
    assert c.tally.conforming == 8


def test_virtio_mems_discards_are_heard_before_their_unmaps(tmp_path: Path) -> None:
    """More of them than a thread's last ones that are remembered, in one batch."""
    out = tmp_path / "made.parquet"
    generate(
        "memory-hotplug", out, seed=1, events=300, generation="merged", backend="type1",
        parameters={**SMALL, "requests": "32", "device": "32MiB"},
    )  # fmt: skip
    c = read_by(open_trace(out), 1 << 16, "merged")
    assert c.listeners.unplugs > 8
    assert c.listeners.departed == 0


def of_another_thread(events: Iterable[Event], first: int, tid: int) -> list[Event]:
    """Events from the first on, as if another thread of the process had caused them."""
    return [
        replace(e, tid=tid, pid=100) if i >= first else replace(e, pid=100)
        for i, e in enumerate(events)
    ]


@pytest.mark.parametrize("generation", ["merged", "11.1"])
def test_a_threads_last_maps_are_known_when_another_thread_converts(
    generation: str, tmp_path: Path
) -> None:
    """The registration is complete, though its thread makes no further call."""
    guest = hotplugged(generation)
    calls = guest.rendered.calls
    begin = next(i for i, c in enumerate(calls) if c.op is Op.ATTACH and c.space == 1)
    end = next(i for i in range(begin, len(calls)) if calls[i].op is Op.RUN)
    for last, told in ((end, []), (end - 1, ["registration-map"])):
        first = len(events_of(guest, calls[:last]))
        events = events_of(guest, [*calls[:last], *calls[end + 1 :]])
        c = followed(of_another_thread(events, first, 101), tmp_path, generation)
        assert ways(c) == told
    assert c.tally.replayed == 11
    assert c.tally.conforming == 5


def test_calls_are_handed_on_in_the_order_of_their_places() -> None:
    def rows(*places: int) -> np.ndarray:
        out = np.zeros((len(places), K.C_COLS), np.int64)
        out[:, K.C_ADDR] = places
        return out

    def places(*of: int) -> np.ndarray:
        return np.array(of, np.int64)

    held = InOrder()
    held.add(rows(1, 4, 5), places(1, 4, 5))
    assert held.ready(places(2, 3), 6)[:, K.C_ADDR].tolist() == [1]
    held.add(rows(2), places(2))
    assert held.ready(places(3), 7)[:, K.C_ADDR].tolist() == [2]
    held.add(rows(3), places(3))
    assert held.ready(places(), 7)[:, K.C_ADDR].tolist() == [3, 4, 5]
    held.add(rows(9), places(9))
    late = 2 * order.PERIOD
    assert held.ready(places(8), late)[:, K.C_ADDR].tolist() == [9]
    held.add(rows(8), places(8))
    assert held.ready(places(), late)[:, K.C_ADDR].tolist() == []
