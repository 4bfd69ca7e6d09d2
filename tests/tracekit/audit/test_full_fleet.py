"""Sixty traces, three nights, every executor: right verdicts, and the same result byte for byte."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from made_fleet import NIGHTS, full_fleet, make_fleet, write_config

from replay.checks import CHECKS
from tracekit.audit.config import load_config
from tracekit.audit.executors import Executor, InProcess, Processes
from tracekit.audit.fleet import Dask
from tracekit.audit.outputs import write_outputs
from tracekit.audit.run import Audited, audit

FLEET = full_fleet()


def three_nights(folder: Path, traces: Path, executor: Executor) -> list[Audited]:
    folder.mkdir()
    outputs = {"folder": "out", "trace_reports": "none"}
    path = write_config(folder / "audit.toml", str(traces), outputs=outputs)
    config = load_config(path, checks={code: check.name for code, check in CHECKS.items()})
    out = []
    for night in NIGHTS:
        out.append(audit(config, night, executor=executor))
        write_outputs(out[-1])
    return out


def written(folder: Path) -> dict[str, bytes]:
    """All that is in the audit's folder: outputs, history, results, states."""
    paths = [p for p in (folder / "out").rglob("*") if p.is_file()]
    return {str(p.relative_to(folder)): p.read_bytes() for p in paths}


def check_night(made: Audited, night: int) -> Counter[str]:
    """Every stream has the verdict that was planted; the counts."""
    wrong = {(r.host, r.stream) for r in made.failing}
    bad = {(r.host, r.stream) for r in made.bad}
    kinds: Counter[str] = Counter()
    for member in FLEET:
        of = (member.host, member.stream)
        kind = member.kind(night)
        assert (of in bad) == (kind == "bad"), (member, night)
        assert (of in wrong) == (kind == "violated"), (member, night)
        kinds["lossy" if member.lossy and kind == "held" else kind] += 1
    lost = {(r.host, r.stream) for r in made.results if r.lost_events}
    assert lost == {(m.host, m.stream) for m in FLEET if m.lossy}
    return kinds


@pytest.mark.nightly
def test_sixty_traces_on_three_nights(tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed", reason="dask.distributed is not installed")
    traces = make_fleet(tmp_path / "traces", FLEET)
    nights = three_nights(tmp_path / "here", traces, InProcess())
    counts = [check_night(made, night) for night, made in enumerate(nights)]
    assert counts[2] == {"violated": 12, "lossy": 6, "bad": 2, "held": 40}
    assert [sum(c.values()) for c in counts] == [60, 60, 60]
    states = Counter(
        (row.state.value, row.finding.code)
        for row in nights[2].findings
        if row.finding.severity.value == "error"
    )
    by_state: dict[str, set[str]] = {}
    for row in nights[2].findings:
        if row.finding.severity.value == "error":
            by_state.setdefault(row.state.value, set()).add(row.stream)
    # Made so in full_fleet().
    assert {state: len(streams) for state, streams in by_state.items()} == {
        "still": 8,
        "new": 2,
        "flapping": 2,
        "gone": 2,
    }
    trend = json.loads((tmp_path / "here/out/audit.json").read_text())["trend"]
    assert [row["bad"] for row in trend] == [1, 1, 2]
    right = written(tmp_path / "here")
    three_nights(tmp_path / "processes", traces, Processes(2))
    assert written(tmp_path / "processes") == right
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None,
        worker_dashboard_address=None, host="127.0.0.1",
    ) as cluster:  # fmt: skip
        three_nights(tmp_path / "dask", traces, Dask(cluster.scheduler_address))
    assert written(tmp_path / "dask") == right
    print(f"180 traces, {len(right)} files the same from each of three executors")
    print(f"the third night: {dict(counts[2])}; errors {dict(sorted(states.items()))}")
