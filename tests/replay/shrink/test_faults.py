"""Every planted fault, of memory and of sockets, is shrunk to the least that shows it."""

from __future__ import annotations

from pathlib import Path

import pytest
from matrix.cases import broken
from matrix.judge import make
from shrinking import assert_minimal

from replay.shrink import Options, shrink
from tracekit.findings import Severity
from tracekit.store import open_trace
from tracekit.synth.faults import FAULTS
from tracekit.synth.vsock.faults import FAULTS as SOCKET_FAULTS
from tracekit.synth.vsock.generate import applicable, generate
from tracekit.synth.vsock.workloads import WORKLOADS as TALK
from tracekit.synth.vsock.write import write

MOST_EVENTS = 60


def all_are_minimal(path: Path, options: Options) -> None:
    """Shrink every finding."""
    trace = open_trace(path)
    found = [f for f in options.run(trace).findings if f.severity is not Severity.NOTE]
    assert found
    for finding in found:
        shrunk = shrink(trace, finding.id, options=options)
        assert_minimal(shrunk)
        # A divergence is shown by its whole conversion, however many pages that has.
        assert finding.code == "TK201" or shrunk.trace.manifest.rows <= MOST_EVENTS


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.nightly] if number % 6 else [])
        for number, name in enumerate(FAULTS)
    ],
)
def test_faults_of_memory(name: str, tmp_path: Path) -> None:
    case = next(c for c in broken(1) if c.fault == name)
    out = tmp_path / "x.parquet"
    truth = make(case, out)
    options = Options(generation=case.generation, in_place=truth.in_place)
    all_are_minimal(out, options)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.nightly] if number % 10 else [])
        for number, name in enumerate(SOCKET_FAULTS)
    ],
)
def test_faults_of_sockets(name: str, tmp_path: Path) -> None:
    fault = SOCKET_FAULTS[name]
    model, side = fault.models[0], fault.sides[0]
    cases = [(w, seed) for seed in range(4) for w in TALK if applicable(fault, w)]
    workload, seed = next(
        (w, seed) for w, seed in cases
        if generate(w, seed=seed, model=model, side=side, fault=name).planted
    )  # fmt: skip
    out = tmp_path / "x.parquet"
    write(workload, out, seed=seed, fault=name, parameters={"model": model, "side": side})
    all_are_minimal(out, Options(linger_model=model))
