"""Conformance of recordings of real kernels: what docs/conformance.md says of them is asserted.

``TRACEKIT_TRACES`` names the folder, QEMU's own recordings among them; else the sample in
tests/data.
"""

from __future__ import annotations

import functools
from pathlib import Path

import pytest
from recorded.recordings import FOLDER, Recording, recordings

from replay import run
from replay.conformance.calls import COLUMNS
from replay.conformance.conformance import AUTO, Conformance, Follower
from replay.conformance.told import violations_of
from tracekit.findings import Outcome, Severity, Verdict
from tracekit.store import open_trace

PAGE_ABOUT = Path(__file__).parents[1] / "docs" / "conformance.md"
ALL = [r for r in recordings() if r.expected is not None or r.group == "qemu"]
IN_QEMUS_ORDER = [r for r in ALL if "qemuorder" in r.name or r.is_long]
QEMU = [r for r in ALL if r.group == "qemu"]
OWN_ORDER = [r for r in ALL if r.name.startswith("kvm-type1-correct")]


def each(chosen: list[Recording]) -> pytest.MarkDecorator:
    """The test, for each recording; one skip with the reason if there is none."""
    reason = f"no such recordings in {FOLDER.name}: TRACEKIT_TRACES names a folder of them"
    none = [pytest.param(None, marks=pytest.mark.skip(reason=reason))]
    return pytest.mark.parametrize("recording", chosen or none, ids=lambda r: r.name if r else "-")


@functools.cache
def followed(path: Path, generation: str) -> Conformance:
    trace = open_trace(path)
    follower = Follower(trace.manifest.events, generation=generation)
    for batch in trace.batches(COLUMNS):
        follower.feed(batch)
    return follower.finish()


def tk201(recording: Recording, generation: str = AUTO, **options: bool) -> Outcome:
    trace = open_trace(recording.imported(probes=False))
    result = run(trace, only=["TK201"], generation=generation, **options)
    (outcome,) = result.outcomes
    return outcome


@each(ALL)
def test_no_recording_has_an_error_by_default(recording: Recording) -> None:
    result = run(open_trace(recording.imported(probes=False)))
    told = next(o for o in result.outcomes if o.code == "TK201")
    assert {f.severity for f in told.findings} <= {Severity.NOTE}
    if told.findings:
        assert all(f.related for f in told.findings)


@each(IN_QEMUS_ORDER)
def test_qemus_order_conforms_except_at_what_was_planted(recording: Recording) -> None:
    outcome = tk201(recording, "merged")
    places = {(o.gpa, o.size) for f in outcome.findings for o in f.occurrences}
    assert places == {(p.iova, p.size) for p in recording.planted}
    assert sum(f.count for f in outcome.findings) == len(recording.planted)
    total = outcome.judged.decided + outcome.judged.undecided
    assert outcome.judged.decided >= 0.95 * total


@each(IN_QEMUS_ORDER)
def test_auto_takes_it_for_the_merged_order(recording: Recording) -> None:
    c = followed(recording.imported(probes=False), AUTO)
    assert (c.generation, c.ties) == ("merged", ("merged", "11.1"))


@each(QEMU)
def test_qemus_listeners_and_virtio_mem_are_predicted(recording: Recording) -> None:
    for generation in (AUTO, "merged"):
        c = followed(recording.imported(probes=False), generation)
        assert c.listeners.departed == 0
        calls = c.listeners.explained + c.listeners.undecided
        assert calls
        assert c.listeners.explained >= 0.95 * calls
    if "vmem" in recording.name:
        assert (c.listeners.plugs, c.listeners.unplugs, c.listeners.resets) == (184, 136, 1)
        assert c.listeners.replays == 1  # the device that was added again
    outcome = tk201(recording)
    assert outcome.verdict is Verdict.HELD
    assert outcome.judged.decided >= 0.95 * (outcome.judged.decided + outcome.judged.undecided)


@each(QEMU)
def test_a_call_changed_is_a_departure(recording: Recording) -> None:
    """Leaving a listener's call out, or making it another size, is noticed."""
    if "vmem" not in recording.name:
        return
    import numpy as np

    from replay.conformance.calls import CallStream
    from replay.conformance.kernel import layout as K
    from replay.conformance.listeners import Listeners

    trace = open_trace(recording.imported(probes=False))
    stream = CallStream(trace.manifest.events, compiled=False)
    calls = np.concatenate([*(stream.feed(b) for b in trace.batches(COLUMNS)), stream.finish()])
    blocks = np.flatnonzero((calls[:, K.C_KIND] == K.K_UNMAP) & (calls[:, K.C_SIZE] == 2 << 20))
    for row in blocks[:5]:
        changed = calls.copy()
        changed[row, K.C_SIZE] = 1 << 20
        listeners = Listeners()
        listeners.feed(changed)
        tally = listeners.finish()
        assert tally.departed
        told = list(violations_of(Conformance(AUTO, None, (), (), listeners=tally)))
        assert {v.severity for v in told} == {Severity.ERROR}
        assert str(told[0].rule).startswith("virtio-mem:listener-")


SAID = {
    "v4": (0, 4, ["punch-for-map"]),
    "merged": (0, 5, ["punch-for-map", "unmap-for-attribute"]),
    "11.1": (0, 5, ["punch-for-map", "unmap-for-attribute"]),
}


@each(OWN_ORDER)
@pytest.mark.parametrize("generation", SAID)
def test_what_each_generation_says_of_a_vmm_that_unmaps_first(
    recording: Recording, generation: str
) -> None:
    c = followed(recording.imported(probes=False), generation)
    conforming, diverging, causes = SAID[generation]
    assert (c.tally.conforming, c.tally.diverging) == (conforming, diverging)
    outcome = tk201(recording, generation)
    told = sorted({f.cause.partition(":")[2] for f in outcome.findings})
    assert told == causes
    line = f"| {generation} | {conforming} | {diverging} | {', '.join(causes)} |"
    assert line in PAGE_ABOUT.read_text(encoding="utf-8")


@each(OWN_ORDER)
def test_in_place_it_is_right(recording: Recording) -> None:
    result = run(open_trace(recording.imported(probes=False)), only=["TK111"], in_place=True)
    (outcome,) = result.outcomes
    assert outcome.verdict is Verdict.HELD
    assert outcome.findings == ()
    assert tk201(recording).verdict is Verdict.NOT_CHECKED
    assert "no_generation" in tk201(recording).judged.reasons
