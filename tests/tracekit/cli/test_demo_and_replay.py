"""The main job on a real kernel's recording: import, replay, exit status."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tracekit.cli.replay import exit_status
from tracekit.findings import Judged, Outcome, ReplayResult, Severity, TraceSummary

Run = Callable[..., subprocess.CompletedProcess[str]]


def test_the_demo_finds_exactly_its_stale_mapping(demo: Path) -> None:
    said = (demo / "stdout").read_text()
    assert said.count("error[") == 1
    assert "error[TK101]: 4 KiB of private guest memory" in said
    assert "exactly the stale mapping that was planted was found" in said
    assert said.startswith((demo / "report.txt").read_text())


def test_a_demo_recording_that_changed_is_not_the_demo() -> None:
    from tracekit.cli.demo import Expected, found_exactly

    expected = Expected(code="TK101", gpa=1, size=2, from_ns=(0, 9), until_ns=(0, 9))
    assert not found_exactly(result(), expected)


def test_replay_exits_1_on_an_error_and_shows_the_same_in_json(
    run: Run, demo: Path, tmp_path: Path
) -> None:
    done = run("replay", demo / "trace.parquet", "--format", "json", "-o", "r.json")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")
    document = json.loads((tmp_path / "r.json").read_text())
    errors = [f for f in document["findings"] if f["severity"] == "error"]
    assert [f["code"] for f in errors] == ["TK101"]
    (occurrence,) = errors[0]["occurrences"]
    assert occurrence["gpa_hex"] == "0xc02000"


def test_replay_of_one_check_says_nothing_of_the_others(run: Run, demo: Path) -> None:
    done = run("replay", demo / "trace.parquet", "--only", "premature-map", "--only", "tk103")
    assert done.returncode == 0
    assert done.stdout.startswith("nothing found, ")
    assert "TK101" not in done.stdout


def test_fail_on_sets_the_bar(run: Run, demo: Path) -> None:
    only = ("replay", demo / "trace.parquet", "--only", "TK106")
    assert run(*only).returncode == 0
    assert run(*only, "--fail-on", "warning").returncode == 1


def test_a_quiet_trace_exits_0_and_with_strict_1(run: Run, trace: Path) -> None:
    assert run("replay", trace).returncode == 0
    assert run("replay", trace, "--strict").returncode == 1


def test_import_says_what_it_wrote(run: Run, demo: Path, tmp_path: Path) -> None:
    shutil.copy(demo / "recording.dat", tmp_path / "x.dat")
    done = run("import", "x.dat", "-o", "x.parquet")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("x.parquet: 434 events, ")
    assert done.stderr == ""
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.dat", "x.parquet"]


def test_info_says_what_the_trace_can_decide(run: Run, demo: Path) -> None:
    done = run("info", demo / "trace.parquet")
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines()[1:])) <= 80
    assert "TK101  stale-iommu-mapping    yes" in done.stdout
    assert "vfio_lab" in done.stdout
    document = json.loads(run("info", demo / "trace.parquet", "--json").stdout)
    assert document["manifest"]["rows"] == 434
    can = {c["code"]: c["can_decide"] for c in document["checks"]}
    assert can["TK101"]


def test_info_names_the_event_that_is_missing(run: Run, trace: Path) -> None:
    document = json.loads(run("info", trace, "--json").stdout)
    (stale,) = [c for c in document["checks"] if c["code"] == "TK101"]
    assert not stale["can_decide"]
    assert any("kvm.attributes" in need for need in stale["missing"])


@pytest.mark.parametrize("given", ["TK101", "tk101", "stale-iommu-mapping"])
def test_explain_shows_the_page(run: Run, given: str) -> None:
    done = run("explain", given)
    assert done.returncode == 0
    assert done.stdout.startswith("TK101 stale-iommu-mapping (error)")
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_checks_lists_every_code(run: Run) -> None:
    from replay.checks import CHECKS

    done = run("checks")
    assert [line.split()[0] for line in done.stdout.splitlines() if line[:2] == "TK"] == [*CHECKS]


def result(*outcomes: Outcome) -> ReplayResult:
    trace = TraceSummary(path="x", events=1, span_ns=(0, 1), lost_events=0, kernel=None, vms=0)
    return ReplayResult(trace=trace, outcomes=outcomes, grace_ns=1)


def outcome(decided: int, undecided: int, **reasons: int) -> Outcome:
    judged = Judged(decided=decided, undecided=undecided, reasons=reasons)
    return Outcome(code="TK101", name="x", judged=judged)


@pytest.mark.parametrize(
    ("made", "allowed", "status"),
    [
        (outcome(10, 0), 0.0, 0),
        (outcome(9, 1, loss=1), 0.0, 1),
        (outcome(9, 1, loss=1), 0.1, 0),
        (outcome(9, 1, loss=1), 0.09, 1),
        (outcome(0, 0, no_event=1), 0.0, 1),
        (outcome(0, 0, no_event=1), 1.0, 0),
        (outcome(0, 0), 0.0, 1),
    ],
)
def test_strict_counts_what_could_not_be_judged(made: Outcome, allowed: float, status: int) -> None:
    every = {"fail_on": Severity.ERROR, "max_undecided": allowed}
    assert exit_status(result(made), strict=True, **every) == status  # type: ignore[arg-type]
    assert exit_status(result(made), strict=False, **every) == 0  # type: ignore[arg-type]
