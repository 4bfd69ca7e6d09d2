"""A command imports nothing for the sake of asking about it; who calls the library still may."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

SMALL = Path(__file__).parents[2] / "data/traces/kvm/trace-fmt-default-7.3.4-tracekit-lab.dat"
PROGRAM = (
    "import sys; from tracekit.cli import main\n"
    "status = main({arguments})\n"
    "print(sorted({{'pandas', 'cffi'}} & set(sys.modules)), status, file=sys.stderr)\n"
    "import pandas"
)


def told(arguments: str, *words: str | Path) -> list[str]:
    """The last line of stderr before and after pandas is imported."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(arguments=arguments), *map(str, words)],
        env={k: v for k, v in os.environ.items() if k != "NUMBA_DISABLE_JIT"},
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stderr.strip().splitlines()


def test_a_commands_own_process_imports_neither_pandas_nor_cffi(tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    out = tmp_path / "t.parquet"
    lines = told("None", "import", SMALL, "-o", out)
    assert lines[0] == "[] 0"
    assert "pandas is left out of tracekit's commands" in lines[-1]
    assert out.exists()


def test_a_program_that_calls_the_command_keeps_them(tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    lines = told(f"['import', {str(SMALL)!r}, '-o', {str(tmp_path / 't.parquet')!r}]")
    assert lines[-1].endswith(" 0"), "pandas could be imported afterwards"
