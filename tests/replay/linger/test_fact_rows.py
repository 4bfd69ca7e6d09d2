"""Each row of the facts' table of invariants (C.9), in the column of each of the three models.

A recording that a model made has exactly one deviation, the row's; where the column says that it
is what the model promises, the deviation is none and nothing is said.
"""

from __future__ import annotations

import pytest
from made_sockets import alarms, judged, matches

from replay.linger.closing import Kind
from replay.linger.judge import Breach
from tracekit.findings import Severity
from tracekit.synth.vsock.faults import FAULTS
from tracekit.synth.vsock.generate import Made, applicable, generate
from tracekit.synth.vsock.workloads import WORKLOADS

MODELS = ("legacy", "v1", "merged")
VIOLATION = {
    "L1": MODELS,
    "L2": MODELS,
    "L3": ("v1", "merged"),
    "L4": MODELS,
    "L5": MODELS,
    "L6": ("legacy", "merged"),
    "L7": ("v1",),
    "L8": MODELS,
    "L9": MODELS,
    "L10": MODELS,
    "L11": ("v1", "merged"),
    "L12": MODELS,
    "L13": MODELS,
    "L14": MODELS,
    "L15": MODELS,
}
"""Where a row is broken by what breaks it; elsewhere it is expected, or worth a note."""
CODES = {
    "L1": "TK301", "L7": "TK301", "L2": "TK302", "L3": "TK302", "L4": "TK302", "L5": "TK303",
    "L6": "TK303", "L11": "TK304", "L8": "TK305", "L9": "TK305", "L10": "TK305", "L14": "TK305",
    "L15": "TK305", "L12": "TK306", "L13": "TK306",
}  # fmt: skip
CELLS = [
    (fault.rule, model, name)
    for name, fault in FAULTS.items()
    for model in VIOLATION[fault.rule]
]  # fmt: skip


def broken(fault: str, model: str) -> Made:
    """The first recording in which a socket suits the fault."""
    for seed in range(4):
        for workload in WORKLOADS:
            if applicable(FAULTS[fault], workload):
                made = generate(workload, seed=seed, model=model, fault=fault)
                if made.planted:
                    return made
    raise AssertionError(f"no socket suits {fault} in {model}")


def test_every_row_has_a_fault_in_every_column_that_it_can_break() -> None:
    assert {(rule, model) for rule, model, _ in CELLS} == {
        (rule, model) for rule, models in VIOLATION.items() for model in models
    }
    assert all(model in FAULTS[name].models for _, model, name in CELLS)


@pytest.mark.parametrize(("rule", "model", "fault"), CELLS)
def test_the_row_is_broken_in_the_models_column(rule: str, model: str, fault: str) -> None:
    made = broken(fault, model)
    found = [b for b in alarms(judged(made)) if b.code == CODES[rule]]
    assert found
    assert all(any(matches(b, p) for p in made.planted) for b in found)
    # The socket of a fault may break the row by what it waits for: L2 and L3 differ by the bytes
    # that were unsent, and a stay beyond the timeout is L4 whatever it was for.
    same = {"L2": {"L2", "L3", "L4"}, "L3": {"L3"}}.get(rule, {rule})
    assert {b.rule for b in found} <= same
    assert all(b.severity is Severity.ERROR for b in found)
    assert all(f"rule {b.rule} under the {model} model" in b.notes for b in found)


def waits(made: Made, kind: Kind) -> list[int]:
    """How long calls of sockets that may linger took, in ms."""
    seen = []
    judged(made, each=lambda c: seen.append(c))
    return [c.waited_ns // 1_000_000 for c in seen if c.kind is kind and c.may_linger]


def test_legacy_waits_for_the_reader_and_that_is_expected() -> None:
    """Row L3, legacy; the others return at once."""
    made = generate("slow-reader", seed=3, model="legacy")
    assert max(waits(made, Kind.CLOSE)) > 300
    assert alarms(judged(made)) == []
    for model in ("v1", "merged"):
        assert max(waits(generate("slow-reader", seed=3, model=model), Kind.CLOSE)) < 50


def starved_shutdown(model: str) -> Made:
    """A recording in which a lingering socket has bytes unsent when it is shut down."""
    return next(
        made
        for made in (generate("shutdowns", seed=s, model=model) for s in range(20))
        if any(b.rule == "L7" for b in alarms(judged(made, model="v1"))) or waits_long(made)
    )


def waits_long(made: Made) -> bool:
    return max(waits(made, Kind.SHUTDOWN), default=0) > 100


def test_v1_waits_in_shutdown_and_that_is_expected() -> None:
    """Row L6, v1: the others' models call the same recording broken."""
    made = starved_shutdown("v1")
    assert waits_long(made)
    assert alarms(judged(made)) == []
    for model in ("legacy", "merged"):
        assert "L6" in {b.rule for b in alarms(judged(made, model=model))}


@pytest.mark.parametrize("model", ["legacy", "merged"])
def test_shutdown_returns_with_bytes_unsent_and_that_is_expected(model: str) -> None:
    """Row L7, legacy and merged: for v1 it is broken."""
    made = starved_shutdown(model)
    assert alarms(judged(made)) == []
    assert "L7" in {b.rule for b in alarms(judged(made, model="v1"))}


def test_bytes_that_a_legacy_kernel_drops_are_worth_a_note() -> None:
    """Row L11, legacy: advisory.  Its close() waits for the peer, so only a reset drops bytes."""

    def notes(made: Made) -> list[Breach]:
        lingering = judged(made)
        assert alarms(lingering) == []
        return [b for b in lingering.breaches if b.code == "TK304"]

    found = [b for s in range(6) for b in notes(generate("resets", seed=s, model="legacy"))]
    assert found
    assert {(b.rule, b.severity) for b in found} == {("L11", Severity.NOTE)}
    assert all(b.unsent for b in found)
