"""Progress is for people: on a terminal, and never in a pipe."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from terminal import stderr_on_a_terminal


def test_a_terminal_shows_progress(trace: Path) -> None:
    assert "replaying t.parquet" in stderr_on_a_terminal(["replay", str(trace)])


def test_a_pipe_shows_none(trace: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tracekit", "replay", str(trace)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    assert "\x1b" not in done.stdout
