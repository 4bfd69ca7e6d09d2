"""One small fleet of three nights for all tests here, made once."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from made_fleet import make_fleet, small_fleet


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder above ``host=``; not to be changed."""
    return make_fleet(tmp_path_factory.mktemp("fleet"), small_fleet())


@pytest.fixture
def copied(made: Path, tmp_path: Path) -> Callable[[], Path]:
    """Makes a copy of the fleet that may be changed."""
    return lambda: Path(shutil.copytree(made, tmp_path / "traces"))
