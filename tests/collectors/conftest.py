"""A host of plain files."""

from __future__ import annotations

from pathlib import Path

import pytest
from fake_host import FakeTracefs


@pytest.fixture
def tracefs(tmp_path: Path) -> FakeTracefs:
    """A tracefs without anything of ours in it."""
    root = tmp_path / "tracing"
    root.mkdir()
    return FakeTracefs(root)
