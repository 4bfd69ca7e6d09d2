"""Runs a command as a user does, in a process of its own; and small traces to run it on."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tracekit.events.iommu import IommuMap, IommuUnmap
from tracekit.store import write_events

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """``run("replay", "t.parquet")`` in an empty folder."""

    def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "tracekit", *map(str, arguments)],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            check=False,
            timeout=300,
        )

    return command


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    """A trace in which little happens."""
    path = tmp_path / "t.parquet"
    events = [
        IommuMap(ts_ns=1000, tid=7, comm="vmm", source="iommu:map", iova=0x1000, size=4096),
        IommuUnmap(
            ts_ns=2000,
            tid=7,
            comm="vmm",
            source="iommu:unmap",
            iova=0x1000,
            size=4096,
            unmapped=4096,
        ),
    ]
    write_events(path, events)
    return path


@pytest.fixture(scope="session")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo's folder, written once."""
    folder = tmp_path_factory.mktemp("demo") / "out"
    done = subprocess.run(
        [sys.executable, "-m", "tracekit", "demo", "-o", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (folder / "stdout").write_text(done.stdout)
    return folder
