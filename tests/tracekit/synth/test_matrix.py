"""A fixed fiftieth of the matrix (`make matrix`), and correct traces that lost events."""

from __future__ import annotations

from collections import Counter

import pytest
from matrix import cases, loss, sockets
from matrix.judge import Case, Score, score
from matrix.page import Lossy, Table, written

from tracekit.synth.faults import FAULTS
from tracekit.synth.workloads import WORKLOADS

EVERY = 50
CODES = {f"TK1{n:02}" for n in range(1, 12)} | {"TK201", "TK202"}


def sample() -> list[Case]:
    """Of the broken ones: every fiftieth, and one of each fault."""
    every = cases.broken(20)
    first = {case.fault: case for case in reversed(every)}
    return list(dict.fromkeys([*first.values(), *every[::EVERY]]))


def test_there_are_faults_of_every_code() -> None:
    assert len(FAULTS) >= 25
    assert {code for fault in FAULTS.values() for code in fault.codes} == CODES


def test_a_sample_of_correct_traces_is_quiet_and_all_of_it_is_judged() -> None:
    made = cases.correct(500)[::EVERY]
    assert {case.workload for case in made} == set(WORKLOADS)
    for case in made:
        said = score(case)
        assert (said.false, said.undecided) == ([], {}), case


def test_a_sample_of_broken_traces_is_found_as_planted() -> None:
    found: Counter[str] = Counter()
    for case in sample():
        said = score(case)
        assert (said.missed, said.false) == ([], []), case
        assert said.found, case
        found += said.found
    assert set(found) == CODES


def test_a_sample_of_made_sockets_is_judged_as_planted() -> None:
    for case in [*sockets.correct(500)[::EVERY], *sockets.broken(20)[::EVERY]]:
        said = sockets.score(case)
        assert (said.missed, said.false, said.undecided) == ([], [], {}), case


def test_loss_makes_no_error_of_correct_traces() -> None:
    marks = 0
    for case in cases.lossy(500):
        lost, wrong = loss.errors_of(case)
        marks += lost
        assert wrong == [], case
    assert marks > 500


def test_what_was_planted_is_found_although_events_were_lost() -> None:
    total = loss.Recall()
    for case in cases.recalled(1)[::9]:
        one = loss.recall(case)
        total.planted += one.planted
        total.qualified += one.qualified
        total.found += one.found
    assert 10 < total.qualified.total() < total.planted.total()
    assert total.found.total() >= 0.95 * total.qualified.total()


def test_a_miss_and_a_false_alarm_are_counted_and_told() -> None:
    table, lossy = Table(), Lossy()
    table.add("dma-ring", "late-map", Score("one", missed=["TK104 x"]))
    table.add("dma-ring", None, Score("two", false=["TK101 error y", "TK101 error z"]))
    lossy.add(Case("dma-ring", 1, "v4", "type1", lose=0.01), 3, ["TK105 w"])
    assert table.summary() == "matrix: 1 faults, 1 workloads, 2 runs, 1 misses, 2 false alarms"
    assert any("TK104 x" in line for line in table.details())
    assert lossy.summary().startswith("loss: 1 correct traces, 1 errors")
    assert "| TK101 | 0 | 0 | 0 | 0 | 2 | 0.0000 | - |" in written(table, lossy, "--seeds 1")


def test_a_warning_counts_where_a_half_told_unmap_leaves_no_certainty(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case = Case("tdx-boot", 8, "v4", "type1", "wrong-side-to-shared")
    said = score(case)
    assert [one.split()[0] for one in said.possible] == ["TK102"]
    assert said.found["TK102"] == 1
    assert (said.missed, said.false) == ([], [])
    monkeypatch.setattr("matrix.judge.UNMAP_DMA", 0x3B71)
    without = score(case)
    assert [one.split()[0] for one in without.missed] == ["TK102"]
    assert len(without.false) == 1


@pytest.mark.parametrize("change", ["size", "from_ns", "until_ns", "severity"])
def test_a_finding_elsewhere_is_a_miss_and_a_false_alarm(
    change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from matrix import judge

    def moved(case: Case, folder: object) -> object:
        truth, result = made(case, folder)  # type: ignore[arg-type]
        for one in truth.violations:
            value = {
                "size": one.size + 4096, "from_ns": (1, 2), "until_ns": (1, 2),
                "severity": "warning",
            }[change]  # fmt: skip
            object.__setattr__(one, change, value)
        return truth, result

    made = judge.judged
    monkeypatch.setattr(judge, "judged", moved)
    said = score(Case("dma-ring", 1, "merged", "type1", "missing-map"))
    assert any(one.startswith("TK104") for one in said.missed)
    assert any(one.startswith("TK104") for one in said.false)
    assert not said.found["TK104"]
