"""Which traces the matrix is made of: lists that are the same in every run."""

from __future__ import annotations

import random
from itertools import product

from matrix.judge import Case

from tracekit.synth.faults import FAULTS, Fault
from tracekit.synth.workloads import WORKLOADS, Workload

__all__ = ("SHARES", "broken", "correct", "lossy", "recalled")

SHARES = (0.001, 0.01, 0.1)
"""Of the events, lost."""
_EVENTS = {0.001: 1500, 0.01: 300, 0.1: 100}
"""So many that at least one of them is lost."""
_LONG = {"reboot", "device-hotplug", "memory-hotplug", "tdx-boot", "snp-boot"}


def _kinds(workload: Workload, fault: Fault | None = None) -> list[tuple[str, str]]:
    """Generations and backends that go together."""
    return [
        (generation, backend)
        for generation, backend in product(workload.generations, workload.backends)
        if fault is None or workload.why_not(fault, generation, backend) is None
    ]


def correct(seeds: int) -> list[Case]:
    """Every workload with so many seeds, generations and backends in turn."""
    return [
        Case(w.name, seed, *_kinds(w)[seed % len(_kinds(w))])
        for w in WORKLOADS.values()
        for seed in range(seeds)
    ]


def broken(seeds: int) -> list[Case]:
    """Every fault in every workload that can have it."""
    return [
        Case(w.name, seed, *kinds[seed % len(kinds)], fault=fault.name)
        for fault in FAULTS.values()
        for w in WORKLOADS.values()
        if (kinds := _kinds(w, fault))
        for seed in range(seeds)
    ]


def lossy(examples: int) -> list[Case]:
    """Correct traces that lost events; few are of what needs long ones."""
    every = [(w.name, g, b) for w in WORKLOADS.values() for g, b in _kinds(w)]
    weights = [1 if name in _LONG else 4 for name, _, _ in every]
    chance = random.Random(6)
    out = []
    for number in range(examples):
        (share,) = chance.choices(SHARES, (1, 12, 27))
        ((name, generation, backend),) = chance.choices(every, weights)
        out.append(Case(name, number, generation, backend, lose=share, events=_EVENTS[share]))
    return out


def recalled(seeds: int, share: float = 0.01) -> list[Case]:
    """Faults in traces that lost events."""
    return [
        Case(c.workload, c.seed, c.generation, c.backend, c.fault, share, 1000)
        for c in broken(seeds)
    ]
