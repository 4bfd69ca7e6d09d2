"""Defects of a recording: what is lost is marked, and no correct trace becomes an error."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from replay import run
from tracekit.findings import Severity
from tracekit.store import open_trace
from tracekit.synth.defects import Defects
from tracekit.synth.generate import generate


def made(path: Path, defects: Defects | None, events: int = 20_000) -> pl.DataFrame:
    generate("parallel-vcpus", path, seed=2, events=events, defects=defects)
    return pl.read_parquet(path).with_columns(pl.col("event").cast(pl.Utf8))


@pytest.mark.parametrize("share", [0.001, 0.01, 0.1])
def test_lost_events_are_marked_with_what_the_other_recording_shows(
    share: float, tmp_path: Path
) -> None:
    whole = made(tmp_path / "a", None)
    lossy = made(tmp_path / "b", Defects(seed=1, lose=share))
    marks = lossy.filter(pl.col("event") == "trace.lost")
    manifest = open_trace(tmp_path / "b").manifest
    lost = int(marks["count"].sum())
    assert lost == manifest.lost_events == whole.height - (lossy.height - marks.height)
    assert marks.height == manifest.loss_marks
    assert share * 0.5 < lost / whole.height < share * 1.5
    for cpu, since, until, count in marks.select("cpu", "ts_ns", "until_ns", "count").iter_rows():
        inside = (pl.col("cpu") == cpu) & pl.col("ts_ns").is_between(since, until, closed="none")
        assert whole.filter(inside).height == count
        assert lossy.filter(inside & (pl.col("event") != "trace.lost")).height == 0


@pytest.mark.parametrize("share", [0.001, 0.01, 0.1])
def test_loss_makes_no_error_of_a_correct_trace(share: float, tmp_path: Path) -> None:
    for seed in range(3):
        out = tmp_path / "x.parquet"
        generate("tdx-boot", out, seed=seed, events=3000, defects=Defects(seed=seed, lose=share))
        result = run(open_trace(out), generation="merged", compiled=False)
        errors = [f.title for f in result.findings if f.severity is Severity.ERROR]
        assert errors == []


def test_a_late_start_and_a_cut_end_keep_what_is_between(tmp_path: Path) -> None:
    whole = made(tmp_path / "a", None)
    cut = made(tmp_path / "b", Defects(late_start_ns=20_000_000, end_ns=50_000_000))
    first = int(whole["ts_ns"][0])
    between = pl.col("ts_ns").is_between(first + 20_000_000, first + 50_000_000)
    assert cut.drop("seq").equals(whole.filter(between).drop("seq"))
    assert 0 < cut.height < whole.height


def test_an_event_type_that_was_not_recorded_is_not_there(tmp_path: Path) -> None:
    whole = made(tmp_path / "a", None)
    less = made(tmp_path / "b", Defects(without=("iommu.map", "kvm.attributes_post")))
    gone = pl.col("event").is_in(["iommu.map", "kvm.attributes_post"])
    assert less.drop("seq").equals(whole.filter(~gone).drop("seq"))


def test_skewed_clocks_move_odd_cpus_and_keep_each_threads_order(tmp_path: Path) -> None:
    whole = made(tmp_path / "a", None)
    skewed = made(tmp_path / "b", Defects(skew_ns=70_000))
    assert skewed["ts_ns"].is_sorted()
    for cpu in whole["cpu"].unique().to_list():
        ahead = 70_000 * (cpu % 2)
        before, after = (t.filter(pl.col("cpu") == cpu) for t in (whole, skewed))
        assert (before["ts_ns"] + ahead).equals(after["ts_ns"])
        assert before["event"].equals(after["event"])
