"""``tracekit generate vsock-...``: the file, the truth beside it, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tracekit.cli import main
from tracekit.store import open_trace


def generated(folder: Path, *options: str, name: str = "t.parquet") -> Path:
    path = folder / name
    assert main(["generate", "vsock-linger-on", "-o", str(path), "--seed", "3", *options]) == 0
    return path


def test_replay_finds_what_the_truth_says(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = generated(tmp_path, "--fault", "early-return", "--set", "side=guest")
    truth = json.loads(Path(f"{path}.truth.json").read_text("utf-8"))
    capsys.readouterr()
    assert main(["replay", str(path), "--format", "json"]) == 1
    (finding,) = json.loads(capsys.readouterr().out)["findings"]
    (one,), (planted,) = finding["occurrences"], truth["violations"]
    assert finding["code"] == planted["code"] == "TK301"
    assert (one["local"], one["peer"]) == (planted["local"], planted["peer"])
    assert truth["side"] == "guest"


@pytest.mark.parametrize("model", ["legacy", "merged"])
def test_a_correct_recording_is_quiet_by_its_own_kernel(model: str, tmp_path: Path) -> None:
    assert main(["replay", str(generated(tmp_path, "--set", f"model={model}"))]) == 0


def test_a_v1_recording_needs_to_be_told_its_model(tmp_path: Path) -> None:
    path = generated(tmp_path, "--set", "model=v1")
    assert main(["replay", str(path), "--linger-model", "v1"]) == 0


def test_the_same_seed_gives_the_same_bytes_and_defects_others(tmp_path: Path) -> None:
    one, same = generated(tmp_path, name="a"), generated(tmp_path, name="b")
    assert one.read_bytes() == same.read_bytes()
    lossy = generated(tmp_path, "--lose", "10%", name="c")
    assert open_trace(lossy).manifest.loss_marks > 0
    assert main(["replay", str(lossy)]) == 0


@pytest.mark.parametrize(
    "options",
    [
        ["vsock-bulky"],
        ["vsock-bulk", "--fault", "missing-unmap"],
        ["vsock-bulk", "--fault", "waits-on-vmci"],
        ["vsock-bulk", "--set", "model=v2"],
        ["vsock-bulk", "--set", "size=5"],
        ["vsock-bulk", "--backend", "type1"],
        ["vsock-bulk", "--format", "trace.dat"],
    ],
)
def test_what_cannot_be_made_is_one_line_and_no_file(
    options: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "t.parquet"
    assert main(["generate", *options, "-o", str(path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert "Traceback" not in error
    assert list(tmp_path.iterdir()) == []
