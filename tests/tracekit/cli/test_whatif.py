"""``tracekit whatif`` as a user runs it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

Run = Callable[..., subprocess.CompletedProcess[str]]


def test_without_options_it_compares_the_usual_worlds(run: Run, demo: Path) -> None:
    done = run("whatif", demo / "trace.parquet")
    assert (done.returncode, done.stderr) == (0, "")
    for name in ("v4, 4k, type1", "merged, cut, iommufd", "merged, 4k, type1, in place"):
        assert name in done.stdout
    assert "DMA entries live, over time" in done.stdout
    assert "cut-mapping (merged, type1) takes" in done.stdout
    body = done.stdout.splitlines()[1:]  # the first line is the file's name
    assert max(map(len, body)) <= 80


def test_with_options_it_compares_one_world_with_the_usual_one(run: Run, demo: Path) -> None:
    arguments = ["--generation", "v4", "--dma-entry-limit", "3", "--format", "json"]
    done = run("whatif", demo / "trace.parquet", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    (process,) = json.loads(done.stdout)["processes"]
    usual, chosen = process["worlds"]
    assert usual["name"] == "merged, 4k, type1"
    assert chosen["name"] == "v4, 4k, type1, limit 3"
    assert chosen["entries_peak"] == 3
    assert chosen["first_failure"]["errno"] == "ENOSPC"
    assert chosen["enough_dma_entry_limit"] == chosen["entries_needed"] > 3
    series = chosen["series"]
    assert set(map(len, series.values())) == {sum(process["requests"].values())}
    assert max(series["entries"]) <= chosen["entries_peak"]
    assert series["maps"][-1] == chosen["map_calls"]
    assert series["flushes"][-1] == chosen["iotlb_flushes"]


def test_long_names_and_every_plot_stay_within_80_columns(run: Run, demo: Path) -> None:
    world = ["--generation", "v4", "--vfio-priority", "-10", "--in-place"]
    for plot, title in (
        ("entries", "DMA entries live"),
        ("maps", "map calls so far"),
        ("unmaps", "unmap calls so far"),
        ("flushes", "IOTLB flushes so far"),
        ("doubled", "MiB with two backings"),
    ):
        done = run("whatif", demo / "trace.parquet", "--plot", plot, *world)
        assert (done.returncode, done.stderr) == (0, "")
        body = done.stdout.splitlines()[1:]
        assert max(map(len, body)) <= 80
        assert any(line.startswith(title) for line in body)
        rows = [line for line in body if line.startswith("v4, 4k, type1, VFIO priority -10")]
        assert rows == ["v4, 4k, type1, VFIO priority -10, in place"] * len(rows)
        assert rows


def test_bad_questions_are_one_error(run: Run, demo: Path, tmp_path: Path) -> None:
    trace = demo / "trace.parquet"
    empty = tmp_path / "empty.parquet"
    from tracekit.store import write_events

    write_events(empty, [])
    for arguments, said in (
        ((trace, "--vfio-priority", "3"), "only the listeners of v4 have priorities"),
        ((trace, "--dma-entry-limit", "-1"), "cannot be negative"),
        ((empty,), "holds no conversions, maps or unmaps"),
        ((tmp_path / "none.parquet",), "none.parquet"),
    ):
        done = run("whatif", *arguments)
        assert done.returncode == 2
        assert done.stderr.startswith("error: ")
        assert said in done.stderr
        assert "Traceback" not in done.stderr
