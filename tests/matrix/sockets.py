"""The rows of vsock: its workloads and faults, judged as their own tests do."""

from __future__ import annotations

from made_sockets import alarms, judged, matches, unjudged
from matrix.judge import Score

from tracekit.findings import Severity
from tracekit.synth.vsock.faults import ALL_SIDES, FAULTS
from tracekit.synth.vsock.generate import applicable, generate
from tracekit.synth.vsock.kernel import LINGER_MODELS
from tracekit.synth.vsock.workloads import WORKLOADS

__all__ = ("SocketCase", "broken", "correct", "score")

SocketCase = tuple[str, int, str | None]
"""Workload, seed, fault."""
MODELS = tuple(LINGER_MODELS)


def correct(seeds: int) -> list[SocketCase]:
    """Every workload."""
    return [(workload, seed, None) for workload in WORKLOADS for seed in range(seeds)]


def broken(seeds: int) -> list[SocketCase]:
    """Every fault in every workload in which it means something."""
    return [
        (workload, seed, name)
        for name, fault in FAULTS.items()
        for workload in WORKLOADS
        if applicable(fault, workload)
        for seed in range(seeds)
    ]


def score(case: SocketCase) -> Score:
    """Make it, judge it, compare: code, socket, interval; models and sides in turn."""
    workload, seed, fault = case
    models = FAULTS[fault].models if fault else MODELS
    sides = FAULTS[fault].sides if fault else ALL_SIDES
    model, side = models[seed % len(models)], sides[seed // len(models) % len(sides)]
    made = generate(workload, seed=seed, model=model, side=side, fault=fault)
    lingering = judged(made)
    what = f"vsock-{workload} seed {seed}, {model}, {side}" + (f", {fault}" if fault else "")
    out = Score(what, len(made.events), struck=fault is None or bool(made.planted))
    found = alarms(lingering)
    for planted in made.planted:
        same = [
            b for b in found
            if b.code == planted.code and matches(b, planted) and b.severity is Severity.ERROR
        ]  # fmt: skip
        if same:
            out.found[planted.code] += 1
        else:
            out.missed.append(f"{planted.code} {planted}")
    out.false = [
        f"{b.code} {b.severity.value} {b.what}"
        for b in found
        if not any(b.code == p.code and matches(b, p) for p in made.planted)
    ]
    if fault is None:
        out.undecided = unjudged(lingering)
    return out
