"""Recordings of real kernels, and trace-cmd, where they are at hand."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

SAMPLE = Path(__file__).parents[2] / "data" / "traces"


@pytest.fixture(scope="session")
def traces() -> Path:
    """The folder with recorded traces: ``$TRACEKIT_TRACES``, else the sample."""
    return Path(os.environ.get("TRACEKIT_TRACES") or SAMPLE)


@pytest.fixture(scope="session")
def trace_cmd_report() -> Callable[[Path], str]:
    """``trace-cmd report -R``: every record's fields as they are."""
    if shutil.which("trace-cmd") is None:
        pytest.skip("trace-cmd is not installed")

    def report(path: Path) -> str:
        run = subprocess.run(
            ["trace-cmd", "report", "-R", str(path)], capture_output=True, check=True
        )
        return run.stdout.decode("utf-8", "replace")

    return report
