"""Help answers at once, and shows how to use a command."""

from __future__ import annotations

import subprocess
import sys

import pytest

COMMANDS = (
    "demo",
    "plan",
    "doctor",
    "collect",
    "import",
    "generate",
    "info",
    "replay",
    "whatif",
    "shrink",
    "report",
    "export",
    "audit",
    "explain",
    "checks",
    "schema",
)
HEAVY = ("polars", "numba", "pyarrow", "numpy", "pandas", "dask", "distributed", "jinja2")


@pytest.mark.parametrize("arguments", [["--help"], *([c, "--help"] for c in COMMANDS)])
def test_help_imports_nothing_heavy(arguments: list[str]) -> None:
    program = (
        "import sys; from tracekit.cli import main; status = main(sys.argv[1:]);"
        f"print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr); sys.exit(status)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0
    assert done.stderr == "[]\n"
    assert "Example: tracekit" in done.stdout


def test_schema_needs_nothing_heavy_either() -> None:
    program = (
        "import sys; from tracekit.cli import main; main(['schema']);"
        f"print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.stderr == "[]\n"
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_every_command_is_listed() -> None:
    from typer.main import get_command

    from tracekit.cli import app

    assert tuple(get_command(app).commands) == COMMANDS  # type: ignore[attr-defined]
