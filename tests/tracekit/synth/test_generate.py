"""Made traces: seeds repeat, the truth is beside them, what makes no sense is refused.

That correct ones are correct and each fault is found is test_matrix.py's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tracekit.cli import main
from tracekit.errors import UnknownNameError, UsageError
from tracekit.store import open_trace
from tracekit.synth.defects import Defects
from tracekit.synth.faults import FAULTS
from tracekit.synth.generate import generate
from tracekit.synth.truth import truth_path
from tracekit.synth.workloads import WORKLOADS


def test_the_same_seed_makes_the_same_bytes_and_another_one_others(tmp_path: Path) -> None:
    paths = [tmp_path / name for name in ("a", "b", "c")]
    for path, seed in zip(paths, (5, 5, 6), strict=True):
        generate("parallel-vcpus", path, seed=seed, events=2000)
    one, two, other = (p.read_bytes() for p in paths)
    assert one == two
    assert one != other


def test_events_asked_for_are_made_within_a_request(tmp_path: Path) -> None:
    out = tmp_path / "x.parquet"
    truth = generate("dma-ring", out, events=50_000)
    assert 45_000 < truth.events < 55_000
    assert open_trace(out).manifest.rows == truth.events


def test_the_truth_beside_a_trace_names_what_was_planted(tmp_path: Path) -> None:
    out = tmp_path / "x.parquet"
    generate("tdx-boot", out, seed=7, events=3000, fault="missing-unmap")
    said = json.loads(truth_path(out).read_text(encoding="utf-8"))
    assert (said["scenario"], said["fault"], said["seed"]) == ("tdx-boot", "missing-unmap", 7)
    stale = next(v for v in said["violations"] if v["code"] == "TK101")
    assert stale["until_ns"] is None
    assert stale["from_ns"][0] < stale["from_ns"][1]


def test_the_command_makes_a_trace_whose_replay_finds_the_fault(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = str(tmp_path / "x.parquet")
    arguments = ["generate", "tdx-boot", "--fault", "missing-unmap", "--seed", "7"]
    assert main([*arguments, "--events", "3000", "-o", out]) == 0
    assert "planted: TK101, TK102, TK201" in capsys.readouterr().out
    assert main(["replay", out, "--only", "TK101"]) == 1


def test_help_lists_every_scenario_and_fault(capsys: pytest.CaptureFixture[str]) -> None:
    main(["generate", "--help"])
    said = capsys.readouterr().out
    for name in (*WORKLOADS, *FAULTS):
        assert f"  {name} " in said


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nightly"], "scenario"),
        (["dma-ring", "--fault", "mising-unmap"], "missing-unmap"),
        (["balloon", "--fault", "missing-unmap"], "cannot have the fault"),
        (["dma-ring", "--set", "ring=5KiB"], "whole pages"),
        (["dma-ring", "--set", "ring=many"], "is no bytes"),
        (["dma-ring", "--set", "rings=4MiB"], "ring"),
        (["dma-ring", "--set", "ring"], "NAME=VALUE"),
        (["dma-ring", "--lose", "half"], "percentage"),
        (["in-place", "--generation", "merged"], "no generation merged"),
        (["dma-ring", "--without", "iommu.mapp"], "iommu.map"),
    ],
)
def test_what_makes_no_sense_is_one_error_and_no_file(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "x.parquet"
    assert main(["generate", *arguments, "-o", str(out)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert message in said
    assert "Traceback" not in said
    assert list(tmp_path.iterdir()) == []


def test_names_and_values_are_checked_in_the_library_as_well(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError):
        generate("dma-rings", tmp_path / "x")
    with pytest.raises(UsageError):
        generate("dma-ring", tmp_path / "x", events=0)
    with pytest.raises(UsageError):
        Defects(lose=1.5)
