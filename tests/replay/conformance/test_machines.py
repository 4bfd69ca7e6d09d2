"""Several VMs in one process, and several processes: each has a state of its own."""

from __future__ import annotations

from pathlib import Path

import pytest
from conforming import beside, followed, of_process, together, ways

from replay.conformance.told import violations_of
from tracekit.synth.guest import GENERATIONS


@pytest.mark.parametrize("generation", GENERATIONS)
def test_two_processes_do_not_mix(generation: str, tmp_path: Path) -> None:
    one, two = beside(generation, 100, 1), beside(generation, 200, 2)
    c = followed(together(one.events, two.events), tmp_path, generation)
    alone = [followed(g.events, tmp_path, generation).tally for g in (one, two)]
    assert ways(c) == []
    assert c.tally.conforming == sum(t.conforming for t in alone)
    assert c.tally.compared == sum(t.compared for t in alone)


@pytest.mark.parametrize("generation", GENERATIONS)
def test_two_vms_of_a_process_do_not_mix(generation: str, tmp_path: Path) -> None:
    """The same guest addresses, different states, containers of their own."""
    one = beside(generation, 101, 1)
    two = beside(generation, 202, 2, host=0x7E00_0000_0000)
    events = together(one.events, of_process(two.events, 101, 8))
    c = followed(events, tmp_path, generation)
    alone = [followed(g.events, tmp_path, generation).tally for g in (one, two)]
    assert ways(c) == []
    assert c.tally.conforming >= sum(t.conforming for t in alone) - 2  # the first of each
    assert c.tally.compared > 30
    assert c.tids.count(101) == 2


def test_a_fault_in_one_vm_is_told_of_it_alone(tmp_path: Path) -> None:
    one = beside("merged", 101, 1)
    two = beside("merged", 202, 2, host=0x7E00_0000_0000)
    unmaps = [i for i, call in enumerate(two.rendered.calls) if call.op.value == "unmap"]
    del two.rendered.calls[unmaps[0]]
    events = together(one.events, of_process(two.events, 101, 8))
    c = followed(events, tmp_path, "merged")
    assert ways(c) == ["discard-for-unmap"]
    (deviation,) = c.deviations
    assert deviation.thread == c.tids.index(202)
    (told,) = violations_of(c)
    assert told.identity.vm.pid == 101
    assert deviation.process != c.tids.index(101)
