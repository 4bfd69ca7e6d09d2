"""Random conversions driven through each generation and rendered: they conform to their own."""

from __future__ import annotations

import os
from dataclasses import dataclass
from itertools import pairwise, zip_longest
from pathlib import Path

import pytest
from conforming import driven, followed, requests, ways

from replay.conformance.conformance import AUTO_FROM, Conformance
from replay.conformance.kernel import layout as K
from replay.conformance.predict import predicted, same_until
from replay.conformance.told import fit_text
from tracekit.synth.calls import Call, Op
from tracekit.synth.guest import GENERATIONS, Guest

SEEDS = range(20)
NIGHTLY = range(1000, 1000 + int(os.environ.get("TRACEKIT_RANDOM_RUNS", "667")))
"""Of each generation: 2,001 runs."""
OTHER_WORLD = -1


@dataclass
class Told:
    """How often what was said."""

    runs: int = 0
    compared: int = 0
    told_apart: int = 0
    """Pairs of a run and a wrong generation whose first true difference was named."""
    tied: int = 0
    not_compared: int = 0
    """Pairs whose first true difference is in a conversion that was not compared."""
    other_worlds: int = 0
    generations_taken: int = 0


def refused(call: Call) -> bool:
    """An attribute call that failed because the test said so."""
    return call.op is Op.ATTRIBUTE and call.ret < 0


def first_difference(guest: Guest, other: str, seed: int) -> int | None:
    """The first request to which the other generation answers with other calls.

    Where nothing is to change v4 makes no attribute call; that a request was made is not seen then.
    ``OTHER_WORLD``: the attribute call that was to fail fails; it hides how large the request was,
    and may be another request's there.
    """
    ours, theirs = requests(guest), requests(driven(other, seed))
    for place, (a, b) in enumerate(zip_longest(ours, theirs, fillvalue=())):
        if a != b and any(refused(call) for call in (*a, *b)):
            return OTHER_WORLD
        changes = [call for call in a if call.op is Op.ATTRIBUTE]
        if a != b and len(changes) > (place == 0):  # the first is that of the slot
            return place
    return None


def moments(guest: Guest) -> list[int]:
    """When each request was over."""
    runs = [e.ts_ns for e in guest.events if e.name_ == "ioctl.entered" and e.cmd == 0xAE80]  # type: ignore[attr-defined]
    return [*runs, guest.events[-1].ts_ns + 1]


def the_generation_is_told(generation: str, seed: int, folder: Path, told: Told) -> None:
    """No divergence under its own generation, the first true one under others, ``auto`` right."""
    guest = driven(generation, seed)
    c = followed(guest.events, folder)
    own = next(f for f in c.fits if f.generation == generation)
    assert own.tally.diverging == 0, (
        f"seed {seed}: {ways(followed(guest.events, folder, generation))}"
    )
    told.runs += 1
    told.compared += own.tally.compared
    undecided = sum(own.tally.reasons.values())
    assert undecided <= 0.5 * (own.tally.compared + undecided), f"seed {seed}: {own}"
    if own.tally.telling >= AUTO_FROM:
        told.generations_taken += 1
        assert generation in c.ties, f"seed {seed}: {c.fits}"
        differ = {f.generation for f in c.fits if f.tally.diverging}
        assert not differ & set(c.ties), f"seed {seed}: {c.fits}"
        for other in set(c.ties) - {generation}:
            assert other in fit_text(c), f"seed {seed}: a tie is not told"
    ends = moments(guest)
    for other in GENERATIONS:
        if other != generation:
            wrong = followed(guest.events, folder, other)
            _the_first_difference_is_named(guest, other, seed, wrong, ends, told)


def _the_first_difference_is_named(
    guest: Guest, other: str, seed: int, wrong: Conformance, ends: list[int], told: Told
) -> None:
    where = f"seed {seed}: {guest.generation} as {other}"
    place = first_difference(guest, other, seed)
    diverging = [d for d in wrong.deviations if d.what in (K.W_DIVERGES, K.W_REPLAY)]
    if place == OTHER_WORLD:
        told.other_worlds += 1
        return
    if place is None:
        assert not diverging, where
        told.tied += 1
        return
    begin = ends[place - 1] if place else 0
    end = ends[place]
    first = min((d.calls[-1].ts_ns for d in diverging if d.calls), default=None)
    assert first is None or first > begin, f"{where}: before the models differ"
    if first is None or first > end:
        told.not_compared += 1
        assert wrong.tally.reasons or place == len(ends) - 1 or not wrong.tally.compared, where
    else:
        told.told_apart += 1


@pytest.mark.parametrize("generation", GENERATIONS)
def test_conversions_conform_to_their_own_generation(generation: str, tmp_path: Path) -> None:
    told = Told()
    for seed in SEEDS[:10]:
        the_generation_is_told(generation, seed, tmp_path, told)
    assert told.told_apart > told.not_compared


@pytest.mark.nightly
@pytest.mark.parametrize("generation", GENERATIONS)
def test_two_thousand_runs_conform_to_their_own_generation(generation: str, tmp_path: Path) -> None:
    told = Told()
    for seed in NIGHTLY:
        the_generation_is_told(generation, seed, tmp_path, told)
    print(f"{generation}: {told}")
    assert told.runs == len(NIGHTLY)
    assert told.told_apart > 10 * told.not_compared


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
