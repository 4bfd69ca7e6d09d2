"""Random conversions driven through each generation and rendered: they conform to their own."""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

import pytest
from conforming import driven, followed, ways

from replay.conformance.conformance import AUTO_FROM
from replay.conformance.kernel import layout as K
from replay.conformance.predict import predicted, same_until
from tracekit.synth.guest import GENERATIONS

SEEDS = range(20)
NIGHTLY = range(1000, 1000 + int(os.environ.get("TRACEKIT_RANDOM_RUNS", "667")))


def the_generation_is_told(generation: str, seed: int, folder: Path) -> None:
    """No divergence under its own generation, and ``auto`` takes it or one that says the same."""
    guest = driven(generation, seed)
    c = followed(guest.events, folder)
    own = next(f for f in c.fits if f.generation == generation)
    assert own.tally.diverging == 0, (
        f"seed {seed}: {ways(followed(guest.events, folder, generation))}"
    )
    if own.tally.telling >= AUTO_FROM:
        assert generation in c.ties, f"seed {seed}: {c.fits}"
    undecided = sum(own.tally.reasons.values())
    assert undecided <= 0.3 * (own.tally.compared + undecided), f"seed {seed}: {own}"


@pytest.mark.parametrize("generation", GENERATIONS)
def test_conversions_conform_to_their_own_generation(generation: str, tmp_path: Path) -> None:
    for seed in SEEDS:
        the_generation_is_told(generation, seed, tmp_path)


@pytest.mark.nightly
@pytest.mark.parametrize("generation", GENERATIONS)
def test_two_thousand_runs_conform_to_their_own_generation(generation: str, tmp_path: Path) -> None:
    for seed in NIGHTLY:
        the_generation_is_told(generation, seed, tmp_path)


def test_wrong_generations_differ_where_the_models_do(tmp_path: Path) -> None:
    """The kernel's divergence is the models': they name the same first call that differs."""
    compared = 0
    for seed in SEEDS:
        for generation in GENERATIONS:
            guest = driven(generation, seed)
            for other in GENERATIONS:
                c = followed(guest.events, tmp_path, other)
                for d in c.deviations:
                    made = predicted(other, d) if d.what == K.W_DIVERGES else []
                    if not made or len(d.calls) >= 48:
                        continue
                    at = same_until(made, d.calls)
                    assert at is not None, f"seed {seed}, {generation} as {other}: {d}"
                    compared += 1
    assert compared > 100


def test_the_first_true_difference_is_named(tmp_path: Path) -> None:
    """v4 changes attributes after unmaps, block by block in a mixture, and not where it is so."""
    compared = 0
    for seed in SEEDS:
        c = followed(driven("merged", seed).events, tmp_path, "v4")
        first = next((d for d in c.deviations if d.what == K.W_DIVERGES), None)
        if first is None:
            continue
        if any(call.ret < 0 for call in first.calls):
            continue
        assert first.got is not None, seed
        one = len(first.spaces) == 1  # of several v4 tells the oldest first
        assert first.calls[first.got].kind == "attribute" or not one, seed
        compared += 1
    assert compared > 10


def test_compiled_and_plain_say_the_same(tmp_path: Path) -> None:
    for seed in list(SEEDS)[:6]:
        for generation in GENERATIONS:
            events = driven(generation, seed).events
            plain = followed(events, tmp_path)
            assert followed(events, tmp_path, compiled=True) == plain


def test_the_same_requests_of_both_generations_differ(tmp_path: Path) -> None:
    told = [
        (followed(driven("v4", seed).events, tmp_path).generation,
         followed(driven("merged", seed).events, tmp_path).generation)
        for seed in SEEDS
    ]  # fmt: skip
    assert ("v4", "merged") in told
    assert not any(pair == ("merged", "v4") for pair in told)


def test_times_rise_and_frames_nest() -> None:
    guest = driven("merged", 3)
    assert all(a.ts_ns < b.ts_ns for a, b in pairwise(guest.events))
    depth = 0
    for event in guest.events:
        if event.name_ == "ioctl.entered":
            assert depth == 0
            depth = 1
        elif event.name_ == "ioctl.returned":
            assert depth == 1
            depth = 0
    assert depth == 0
