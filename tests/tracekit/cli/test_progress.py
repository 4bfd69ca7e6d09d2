"""Progress is for people: on a terminal, and never in a pipe."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from terminal import stderr_on_a_terminal


def test_a_terminal_shows_progress(trace: Path) -> None:
    assert "replaying t.parquet" in stderr_on_a_terminal(["replay", str(trace)])


def test_a_terminal_is_told_that_something_is_compiled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "small.py").write_text("def twice(a):\n    return 2 * a\n")
    program = (
        "from small import twice; from tracekit.compiled.kernels import kernel\n"
        "from tracekit.cli.console import progress\n"
        "with progress('working'): assert kernel(twice, compile=True)(21) == 42\n"
    )
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), *sys.path]))
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    monkeypatch.delenv("NUMBA_DISABLE_JIT", raising=False)
    first, again = (stderr_on_a_terminal([], ["-c", program]) for _ in range(2))
    assert "compiling, once for this machine" in first
    assert "working" in again
    assert "compiling" not in again


def test_a_pipe_shows_none(trace: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tracekit", "replay", str(trace)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    assert "\x1b" not in done.stdout
