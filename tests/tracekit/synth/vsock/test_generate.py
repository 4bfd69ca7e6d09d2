"""Made vsock recordings: correct by construction, and broken in exactly the planted way."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from made_sockets import alarms, judged, matches, unjudged

from replay import run
from tracekit.errors import UnknownNameError, UsageError
from tracekit.findings import Severity, Verdict
from tracekit.store import Manifest, open_trace, write_events
from tracekit.synth.vsock.faults import ALL_SIDES, FAULTS
from tracekit.synth.vsock.generate import applicable, generate
from tracekit.synth.vsock.kernel import LINGER_MODELS
from tracekit.synth.vsock.workloads import WORKLOADS

MODELS = tuple(LINGER_MODELS)
SAMPLE_SEEDS = 1
NIGHTLY_SEEDS, NIGHTLY_FAULT_SEEDS = 500, 20


def correct_is_quiet(workload: str, seed: int, model: str, side: str) -> int:
    """Makes and judges one correct recording; how many events it has."""
    made = generate(workload, seed=seed, model=model, side=side)
    lingering = judged(made)
    what = f"{workload}, {model}, {side}, seed {seed}"
    assert made.planted == [], what
    assert [(b.code, b.what, b.closing.local) for b in alarms(lingering)] == [], what
    assert unjudged(lingering) == {}, what
    return len(made.events)


def fault_is_found(fault: str, workload: str, seed: int) -> bool:
    """Makes and judges one broken recording; whether any socket suited the fault."""
    wanted = FAULTS[fault]
    model = wanted.models[seed % len(wanted.models)]
    side = wanted.sides[seed // len(wanted.models) % len(wanted.sides)]
    made = generate(workload, seed=seed, model=model, side=side, fault=fault)
    found = alarms(judged(made))
    what = f"{fault}, {workload}, {model}, {side}, seed {seed}"
    planted = Counter((p.code, p.local, p.peer) for p in made.planted)
    assert {b.code for b in found} == set(wanted.codes if planted else ()), what
    assert {(b.code, b.closing.local, b.closing.peer) for b in found} == set(planted), what
    assert all(b.severity is Severity.ERROR for b in found), what
    assert all(any(matches(b, p) for p in made.planted) for b in found), what
    return bool(planted)


PAIRS = [(f, w) for f in FAULTS for w in WORKLOADS if applicable(FAULTS[f], w)]


@pytest.mark.parametrize("side", ALL_SIDES)
@pytest.mark.parametrize("workload", WORKLOADS)
def test_a_correct_sample_is_quiet_under_its_model(workload: str, side: str) -> None:
    for seed in range(SAMPLE_SEEDS):
        for model in MODELS:
            assert correct_is_quiet(workload, seed, model, side) > 30


@pytest.mark.parametrize("fault", FAULTS)
def test_a_sample_of_each_fault_is_found_as_planted(fault: str) -> None:
    struck = [fault_is_found(fault, w, seed) for seed in range(2) for f, w in PAIRS if f == fault]
    assert any(struck)


def test_there_are_faults_of_every_code_and_rule() -> None:
    assert len(FAULTS) >= 15
    assert {c for f in FAULTS.values() for c in f.codes} == {f"TK30{n}" for n in range(1, 7)}
    assert {f.rule for f in FAULTS.values()} == {f"L{n}" for n in range(1, 16)}


@pytest.mark.nightly
def test_correct_recordings_of_all_seeds_are_quiet() -> None:
    runs = events = 0
    for workload in WORKLOADS:
        for seed in range(NIGHTLY_SEEDS):
            model, side = MODELS[seed % 3], ALL_SIDES[seed // 3 % 3]
            events += correct_is_quiet(workload, seed, model, side)
            runs += 1
    print(f"\n{runs:,} correct recordings, {events:,} events: no alarm, nothing undecided")


@pytest.mark.nightly
def test_every_fault_is_found_in_every_workload_that_it_suits() -> None:
    struck: Counter[str] = Counter()
    for fault, workload in PAIRS:
        for seed in range(NIGHTLY_FAULT_SEEDS):
            struck[fault] += fault_is_found(fault, workload, seed)
    runs = len(PAIRS) * NIGHTLY_FAULT_SEEDS
    print(f"\n{runs:,} recordings, {struck.total():,} with a fault: all found, nothing else")
    assert set(struck) == set(FAULTS)
    assert min(struck.values()) >= NIGHTLY_FAULT_SEEDS // 2


def test_the_same_seed_makes_the_same_recording() -> None:
    one, same, other = (generate("signals", seed=s, side="guest") for s in (3, 3, 4))
    assert one.events == same.events
    assert one.events != other.events


def test_replay_finds_a_planted_fault_in_a_file(tmp_path: Path) -> None:
    made = generate("linger-on", seed=0, fault="early-return")
    path = tmp_path / "t.parquet"
    write_events(path, made.events, Manifest(kernel=made.kernel, hz=made.hz))
    outcomes = {o.code: o for o in run(open_trace(path)).outcomes}
    (finding,) = outcomes["TK301"].findings
    (one,) = finding.occurrences
    (planted,) = made.planted
    assert (one.local, one.peer) == (planted.local, planted.peer)
    assert planted.from_ns <= one.from_ns
    assert one.until_ns is not None
    assert one.until_ns <= planted.until_ns
    assert finding.vm is not None
    assert finding.vm.name == "client"
    assert outcomes["TK302"].verdict is Verdict.HELD


def test_a_recording_of_one_model_breaks_the_promise_of_another() -> None:
    """The expanded upstream test: legacy kernels fail it, as upstream's own does."""
    legacy = judged(generate("upstream-linger-test", seed=1, model="legacy"), model="merged")
    assert {b.code for b in alarms(legacy)} == {"TK302"}
    assert len(alarms(legacy)) >= 4
    merged = judged(generate("upstream-linger-test", seed=1, model="merged"), model="legacy")
    assert {b.code for b in alarms(merged)} == {"TK301"}


def test_parameters_change_what_is_made() -> None:
    few, many = (
        generate("bulk", seed=1, parameters={"total_bytes": size}) for size in ("70000", "900000")
    )
    assert len(few.events) < len(many.events)


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"workload": "bulky"}, UnknownNameError),
        ({"model": "v2"}, UnknownNameError),
        ({"side": "both"}, UnknownNameError),
        ({"fault": "none"}, UnknownNameError),
        ({"fault": "early-shutdown", "model": "merged"}, UsageError),
        ({"fault": "no-timer", "workload": "resets"}, UsageError),
        ({"parameters": {"size": "5"}}, UnknownNameError),
        ({"parameters": {"total_bytes": "-5"}}, UsageError),
        ({"parameters": {"total_bytes": "99999999999"}}, UsageError),
    ],
)
def test_what_cannot_be_made_is_one_clear_error(
    changed: dict[str, object], error: type[Exception]
) -> None:
    asked: dict[str, object] = {"workload": "bulk", **changed}
    name = str(asked.pop("workload"))
    with pytest.raises(error):
        generate(name, seed=1, **asked)  # type: ignore[arg-type]
