"""Benchmarks run, check what they measure, and are told as README.md has it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.__main__ import (
    OTHERS,
    PACKAGES,
    PAGE,
    README,
    RESULTS,
    USUAL,
    row,
    run,
    stages,
    table,
    with_table,
)
from benchmarks.figures import Figure

SMALL = "tests/data/traces/kvm/trace-fmt-default-7.3.4-tracekit-lab.dat"
WORDS: dict[str, tuple[str, ...]] = {
    "import": (SMALL, "--runs", "1", "--times", "3"),
    "perf_script": ("1000", "1"),
    "replay": (SMALL, "--times", "3"),
    "checkpoint": (SMALL,),
    "conversions": ("--conversions", "60"),
    "stages": (SMALL,),
    "slot": ("16",),
    "start": ("1",),
    "conformance": ("500", "merged"),
    "linger": ("0.004",),
    "synth": ("2000", "1"),
    "models": ("--size", "1048576"),
    "bandwidth": ("1",),
}


@pytest.fixture(autouse=True)
def _plain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    monkeypatch.setenv("TRACEKIT_TRACES", os.devnull)


def said_by(name: str, *words: str) -> list[dict[str, Any]]:
    made = run(name, *words)
    assert made is not None, f"{name} failed"
    said: list[dict[str, Any]] = made["said"]
    return said


@pytest.mark.parametrize(("page", "made"), [(README, table), (PAGE, stages)])
def test_a_page_has_the_table_of_the_results(page: Path, made: Callable[[Any], str]) -> None:
    text = page.read_text()
    assert with_table(text, made(json.loads(RESULTS.read_text())), page.name) == text


def test_the_results_name_no_machine_and_no_place() -> None:
    results = json.loads(RESULTS.read_text())
    assert set(results["benchmarks"]) >= set(USUAL)
    assert set(results["machine"]) == {"cpu", "cpus", "python", *PACKAGES}
    assert str(RESULTS.parent.parent) not in json.dumps(results)
    for entry in results["benchmarks"].values():
        for said in entry["said"]:
            assert set(said) == {"skipped"} or Figure(**said).unit is not None


def test_every_usual_benchmark_is_run_here() -> None:
    assert {*USUAL, *OTHERS} <= {p.stem for p in RESULTS.parent.glob("*.py")}
    assert set(WORDS) == set(USUAL)


@pytest.mark.parametrize("name", USUAL)
def test_a_benchmark_measures_and_finds_its_results_right(name: str) -> None:
    tool = {"import": "trace-cmd", "perf_script": "perf"}.get(name)
    said = said_by(name, *WORDS[name])
    skipped = [line["skipped"] for line in said if "skipped" in line]
    figures = [Figure(**line) for line in said if "skipped" not in line]
    if tool is None or (shutil.which(tool) and not skipped):
        assert not skipped
        assert all(f.value > 0 for f in figures if "more memory" not in f.name)
    else:
        assert len(skipped) == 1
    assert figures or skipped
    assert len({(f.name, f.unit) for f in figures}) == len(figures)


@pytest.mark.parametrize("name", ["import", "replay", "checkpoint", "shrink"])
def test_what_is_not_there_is_said(name: str) -> None:
    (line,) = said_by(name)
    assert "TRACEKIT_TRACES" in line["skipped"]


def test_a_benchmark_whose_result_is_wrong_fails() -> None:
    # the page that is to be found private is mapped in a slot that has no such page
    assert run("slot", "0") is None


def test_a_target_is_reached_or_not() -> None:
    assert Figure(name="n", value=2, unit="x", least=2).holds is True
    assert Figure(name="n", value=2, unit="x", most=1.5).holds is False
    assert Figure(name="n", value=2, unit="x").holds is None
    figure = Figure(name="n", value=12345.6, unit="B", most=1, stretch=0.5, shown=True)
    assert row("b", figure) == "| b | n | 12,346 B | ≤ 1, not reached | 0.5 |"


def test_the_table_leaves_out_what_is_not_shown() -> None:
    said = [{"name": name, "value": 1.0, "unit": "x", "shown": name == "told"} for name in "ab"]
    said += [{"name": "told", "value": 1.0, "unit": "x", "shown": True}, {"skipped": "no tool"}]
    text = table({"machine": {}, "benchmarks": {"one": {"date": "", "said": said}}})
    rows = [line for line in text.splitlines() if line.startswith("| one")]
    assert rows == ["| one | told | 1 x |  |  |", "| one | skipped: no tool | | | |"]
