"""Commands run as a person runs them: on a terminal."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from collections.abc import Sequence

__all__ = ("stderr_on_a_terminal",)


def stderr_on_a_terminal(arguments: list[str], program: Sequence[str] = ("-m", "tracekit")) -> str:
    """What a command that succeeds says to a person."""
    ours, theirs = pty.openpty()
    done = subprocess.run(
        [sys.executable, *program, *arguments],
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
