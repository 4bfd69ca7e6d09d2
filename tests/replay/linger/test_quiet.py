"""Closes that are judged many at once are judged as they would be one by one."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from made_sockets import bursts, judged, stream_of

from replay.linger import run as following
from replay.linger.judge import Lingering
from tracekit.synth.vsock.faults import ALL_SIDES, FAULTS
from tracekit.synth.vsock.generate import applicable, generate
from tracekit.synth.vsock.kernel import LINGER_MODELS
from tracekit.synth.vsock.workloads import WORKLOADS


def same(a: Lingering, b: Lingering) -> bool:
    """All that is said of sockets."""
    said = [
        [(x.code, x.rule, x.closing.local, x.closing.begun, x.severity) for x in one.breaches]
        for one in (a, b)
    ]
    return said[0] == said[1] and a.judged == b.judged and a.disagreements == b.disagreements


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """``quiet``: how many closes were judged at once; ``off`` not 0: none is."""
    counts = {"quiet": 0, "off": 0}
    at_once = following.quiet

    def counted(records: Any, *rest: Any) -> Any:
        off, sent = at_once(records, *rest)
        if counts["off"]:
            return np.zeros_like(off), np.zeros_like(sent)
        counts["quiet"] += int(np.count_nonzero(off | sent))
        return off, sent

    monkeypatch.setattr(following, "quiet", counted)
    return counts


@pytest.mark.parametrize("model", LINGER_MODELS)
def test_of_made_sockets_with_and_without_faults_and_losses(
    model: str, found: dict[str, int]
) -> None:
    chance = random.Random(model)
    for workload in WORKLOADS:
        for side in ALL_SIDES:
            faults = [n for n, f in FAULTS.items() if applicable(f, workload)
                      and model in f.models and side in f.sides]  # fmt: skip
            for fault in (None, chance.choice(faults) if faults else None):
                made = generate(workload, seed=3, model=model, side=side, fault=fault)
                for share in (0.0, 0.05):
                    stream = stream_of(made)
                    if share:
                        stream = stream.without(bursts(stream, share, chance))
                    under = chance.choice(tuple(LINGER_MODELS))
                    said = []
                    for found["off"] in (0, 1):
                        said.append(judged(made, stream, model=under))
                    assert same(*said), (workload, side, fault, share, under)
    assert found["quiet"] > 100


def test_most_of_short_connections_are(found: dict[str, int]) -> None:
    made = generate("request-response", seed=1, parameters={"connections": "20"})
    judged(made)
    assert found["quiet"] >= 36
