"""``tracekit shrink`` as a user runs it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

from terminal import stderr_on_a_terminal

import replay
from tracekit.store import open_trace

Run = Callable[..., subprocess.CompletedProcess[str]]


def the_finding(trace: Path) -> str:
    return replay.run(open_trace(trace)).findings[0].id


def test_the_small_trace_opens_in_other_commands_and_shows_the_finding(
    run: Run, demo: Path, tmp_path: Path
) -> None:
    trace, small = demo / "trace.parquet", tmp_path / "small.parquet"
    finding = the_finding(trace)
    done = run("shrink", trace, "--finding", finding, "-o", small)
    assert (done.returncode, done.stderr) == (0, "")
    assert finding in done.stdout
    assert sorted(p.name for p in tmp_path.iterdir()) == ["small.parquet", "small.parquet.md"]
    again = json.loads(run("replay", small, "--format", "json").stdout)
    assert again["findings"][0]["id"] == finding
    assert again["trace"]["events"] <= 30
    assert run("info", small).returncode == 0
    assert run("whatif", small).returncode == 0
    page = (tmp_path / "small.parquet.md").read_text(encoding="utf-8")
    assert f"error[{finding[:5]}]" in page
    assert "## What happened" in page
    twice = run("shrink", small, "--finding", finding, "-o", tmp_path / "again.parquet")
    assert twice.returncode == 0


def test_a_finding_that_is_not_there_is_one_error_and_writes_nothing(
    run: Run, demo: Path, tmp_path: Path
) -> None:
    trace = demo / "trace.parquet"
    done = run("shrink", trace, "--finding", "TK101-00000000", "-o", tmp_path / "s.parquet")
    assert done.returncode == 2
    assert done.stderr.startswith("error: there is no finding 'TK101-00000000'")
    assert the_finding(trace) in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())


def test_it_does_not_write_over_what_it_reads_nor_where_it_cannot(
    run: Run, demo: Path, tmp_path: Path
) -> None:
    trace = demo / "trace.parquet"
    before = trace.read_bytes()
    finding = the_finding(trace)
    for out in (trace, tmp_path / "no" / "folder.parquet"):
        done = run("shrink", trace, "--finding", finding, "-o", out)
        assert done.returncode == 2
        assert done.stderr.startswith("error: cannot write")
        assert "Traceback" not in done.stderr
    assert trace.read_bytes() == before
    assert not list(tmp_path.iterdir())


def test_a_terminal_shows_progress(demo: Path, tmp_path: Path) -> None:
    trace = demo / "trace.parquet"
    arguments = ["--finding", the_finding(trace), "-o", str(tmp_path / "s.parquet")]
    said = stderr_on_a_terminal(["shrink", str(trace), *arguments])
    assert "shrinking trace.parquet" in said
