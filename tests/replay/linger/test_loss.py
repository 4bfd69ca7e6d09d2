"""Lost events, marked: never an alarm about a correct trace, and faults that they spared are told.

A planted fault qualifies where no loss falls between the making of its socket and the end of what
shows it: the return of its call, and for what is judged by a connection's end also that.
"""

from __future__ import annotations

import random
from collections import Counter

import pytest
from made_sockets import alarms, bursts, judged, matches, stream_of, told
from recorded.recordings import Stream

from tracekit.synth.vsock.faults import ALL_SIDES, FAULTS
from tracekit.synth.vsock.generate import Made, applicable, generate
from tracekit.synth.vsock.kernel import LINGER_MODELS
from tracekit.synth.vsock.truth import Planted
from tracekit.synth.vsock.workloads import WORKLOADS

MODELS = tuple(LINGER_MODELS)
SHARES = (0.0, 0.001, 0.01, 0.1)
BY_THE_END = ("TK304", "TK305")
"""Codes that are judged when the connection is over, or its 8 s."""


def damaged(made: Made, share: float, seed: int) -> Stream:
    stream = stream_of(made)
    return stream.without(bursts(stream, share, random.Random(seed)))


def correct_stays_quiet(workload: str, seed: int) -> int:
    model, side = MODELS[seed % 3], ALL_SIDES[seed // 3 % 3]
    made = generate(workload, seed=seed, model=model, side=side)
    runs = 0
    for share in SHARES:
        for nth in range(3 if share else 1):
            found = alarms(judged(made, damaged(made, share, nth)))
            assert [(b.code, b.what, b.closing.local) for b in found] == [], (
                f"{workload}, {model}, {side}, seed {seed}, {share:.1%} lost, burst {nth}"
            )
            runs += 1
    return runs


def qualifies(planted: Planted, lost: Stream, last_ns: int) -> bool:
    until = last_ns if planted.code in BY_THE_END else planted.until_ns
    return not any(t0 <= until and planted.known_ns <= t1 for t0, t1, _ in lost.lost)


def recall(fault: str, workload: str, seed: int, share: float = 0.01) -> Counter[str]:
    """Of the planted violations that loss spared: how many there were, and how many were told."""
    wanted = FAULTS[fault]
    model = wanted.models[seed % len(wanted.models)]
    side = wanted.sides[seed // len(wanted.models) % len(wanted.sides)]
    made = generate(workload, seed=seed, model=model, side=side, fault=fault)
    counts: Counter[str] = Counter()
    if not made.planted:
        return counts
    whole = told(judged(made))
    for nth in range(3):
        lost = damaged(made, share, nth)
        found = judged(made, lost)
        assert told(found) <= whole, f"{fault}, {workload}, {model}, {side}, {seed}, burst {nth}"
        for planted in made.planted:
            counts["planted"] += 1
            if qualifies(planted, lost, made.events[-1].ts_ns):
                counts["qualified"] += 1
                counts["told"] += any(matches(b, planted) for b in alarms(found))
    return counts


def test_a_correct_sample_stays_quiet_whatever_is_lost() -> None:
    assert sum(correct_stays_quiet(w, seed) for w in WORKLOADS for seed in range(2)) == 260


def test_an_exit_that_was_lost_is_no_early_return() -> None:
    """The last call seen of the thread is older than the loss: its process may exit."""
    made = generate("exits", seed=60, model="legacy", side="host")
    lost = damaged(made, 0.1, 0)
    assert alarms(judged(made, lost)) == []
    assert "loss" in judged(made, lost).judged["TK301"].reasons


def test_a_sample_of_faults_that_loss_spared_is_told() -> None:
    counts: Counter[str] = Counter()
    for nth, fault in enumerate(FAULTS):
        suited = [w for w in WORKLOADS if applicable(FAULTS[fault], w)]
        for seed in range(2):
            for workload in suited[(nth + seed) % 3 :: 3]:
                counts += recall(fault, workload, seed)
    print(f"\n{counts['told']} of {counts['qualified']} told, {counts['planted']} planted")
    assert counts["qualified"] > 50
    assert counts["told"] >= 0.95 * counts["qualified"]


@pytest.mark.nightly
def test_correct_recordings_stay_quiet_whatever_is_lost() -> None:
    runs = sum(correct_stays_quiet(w, seed) for w in WORKLOADS for seed in range(100))
    print(f"\n{runs:,} damaged recordings of correct hosts, no alarm")


@pytest.mark.nightly
def test_faults_that_loss_spared_are_told() -> None:
    counts: Counter[str] = Counter()
    for fault in FAULTS:
        for workload in WORKLOADS:
            if applicable(FAULTS[fault], workload):
                for seed in range(9):
                    counts += recall(fault, workload, seed)
    share = counts["told"] / counts["qualified"]
    print(
        f"\n1 % lost: {counts['planted']:,} planted, {counts['qualified']:,} qualified,"
        f" {counts['told']:,} told ({share:.1%})"
    )
    assert share >= 0.95
