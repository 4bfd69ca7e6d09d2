"""What is in the wheel, and what is not."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    for needed in ("build", "hatchling"):
        if importlib.util.find_spec(needed) is None:
            pytest.skip(f"{needed} is not installed: pip install -e '.[dev]'")
    out = tmp_path_factory.mktemp("wheel")
    # Without isolation: the network is not ours to use in a test.
    done = subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", str(out), str(ROOT)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = out.glob("*.whl")
    return zipfile.ZipFile(wheel).namelist()


def test_the_wheel_has_exactly_the_three_packages(names: list[str]) -> None:
    top = {name.split("/")[0] for name in names}
    assert {t for t in top if not t.endswith(".dist-info")} == {"tracekit", "replay", "collectors"}


def test_the_wheel_has_its_data(names: list[str]) -> None:
    for name in ("tracekit/py.typed", "tracekit/demo/recording.dat", "tracekit/demo/expected.json"):
        assert name in names
    for path in (ROOT / "tracekit" / "report" / "assets").rglob("*"):
        assert path.is_dir() or path.relative_to(ROOT).as_posix() in names


def test_the_wheel_has_every_module(names: list[str]) -> None:
    for package in ("tracekit", "replay", "collectors"):
        for path in (ROOT / package).rglob("*.py"):
            assert path.relative_to(ROOT).as_posix() in names


def test_the_wheel_has_no_compiled_leftovers(names: list[str]) -> None:
    assert not [n for n in names if "__pycache__" in n or n.endswith((".pyc", ".nbi", ".nbc"))]


def test_the_wheel_has_the_licence(names: list[str]) -> None:
    assert [n for n in names if n.endswith(".dist-info/licenses/LICENSE")]
