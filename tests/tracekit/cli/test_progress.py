"""Progress is for people: on a terminal, and never in a pipe."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path


def stderr_on_a_terminal(arguments: list[str]) -> str:
    ours, theirs = pty.openpty()
    done = subprocess.run(
        [sys.executable, "-m", "tracekit", *arguments],
        stdout=subprocess.DEVNULL,
        stderr=theirs,
        check=False,
    )
    os.close(theirs)
    said = b""
    try:
        while chunk := os.read(ours, 65536):
            said += chunk
    except OSError:  # Linux says EIO at the end of a terminal
        pass
    os.close(ours)
    assert done.returncode == 0
    return said.decode()


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
