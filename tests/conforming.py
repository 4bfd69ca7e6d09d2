"""Guests driven at random through a generation, and what conformance says of the recording."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path

from replay.conformance.calls import COLUMNS
from replay.conformance.conformance import AUTO, Conformance, Follower
from tracekit.events import Event
from tracekit.store import open_trace, write_events
from tracekit.synth.calls import Call, Op
from tracekit.synth.guest import Guest

__all__ = ("driven", "followed", "hazards", "requests", "ways")


def driven(generation: str, seed: int) -> Guest:
    """Random requests, devices, refusals and full containers; the same for each generation."""
    chance = random.Random(seed)
    blocks = chance.choice((8, 32, 64))
    guest = Guest(generation, blocks=blocks, fd_backed=chance.random() < 0.5)
    for _ in range(chance.choice((0, 1, 1, 1, 2))):
        guest.plug_device(chance.choice((65535, 65535, 65535, chance.randrange(1, blocks))))
    for _ in range(chance.randrange(8, 40)):
        if chance.random() < 0.05:
            guest.fail_attribute(1, 12)
        first = chance.randrange(blocks)
        count = chance.randrange(1, blocks - first + 1)
        guest.convert(first, count, private=chance.random() < 0.5)
        if chance.random() < 0.03 and len(guest.containers) < 3:
            guest.plug_device()
    return guest


def requests(guest: Guest) -> list[tuple[Call, ...]]:
    """The calls of each request, in order: every request ends when the guest runs again."""
    out: list[tuple[Call, ...]] = []
    begun: list[Call] = []
    for call in guest.rendered.calls:
        begun.append(call)
        if call.op is Op.RUN:
            out.append(tuple(begun))
            begun = []
    return [*out, tuple(begun)] if begun else out


def followed(
    events: Iterable[Event],
    folder: Path,
    generation: str = AUTO,
    *,
    compiled: bool = False,
    without: Iterable[str] = (),
) -> Conformance:
    """What conformance says of events, written down and read again."""
    path = folder / "conforming.parquet"
    path.unlink(missing_ok=True)
    left_out = set(without)
    write_events(path, (e for e in events if e.name_ not in left_out))
    trace = open_trace(path)
    follower = Follower(trace.manifest.events, generation=generation, compiled=compiled)
    for batch in trace.batches(COLUMNS):
        follower.feed(batch)
    return follower.finish()


def ways(conformance: Conformance) -> list[str]:
    """How each divergence differs, as a cause key."""
    from replay.conformance.kernel import layout as K
    from replay.conformance.told import kind_of

    told = (K.W_DIVERGES, K.W_REPLAY)
    return [kind_of(d) for d in conformance.deviations if d.what in told]


def hazards(conformance: Conformance) -> list[str]:
    """The names of the known bugs that were seen, in order."""
    from replay.conformance.told import HAZARDS

    return [HAZARDS[d.what][0] for d in conformance.deviations if d.what in HAZARDS]
