"""The pages say what the code does."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from tracekit.cli import app
from tracekit.cli.pages import all_pages
from tracekit.events import EVENT_TYPES, event_columns

ROOT = Path(__file__).parent.parent
COMMANDS = {c.name: c.callback for c in app.registered_commands}


def test_generated_pages_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, str(ROOT / "docs" / "generate.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", sorted(str(c) for c in COMMANDS))
def test_every_command_ends_its_help_with_an_example(name: str) -> None:
    callback = COMMANDS[name]
    assert callback is not None
    last = (callback.__doc__ or "").strip().splitlines()[-1].strip()
    assert last.startswith(f"Example: tracekit {name}")


def test_every_option_has_help() -> None:
    for command in typer.main.get_command(app).commands.values():  # type: ignore[attr-defined]
        for parameter in command.params:
            assert parameter.help, f"{command.name} {parameter.name}"


@pytest.mark.parametrize("path", ["README.md", "CONTRIBUTING.md"])
def test_files_that_are_named_exist(path: str) -> None:
    text = (ROOT / path).read_text(encoding="utf-8")
    named = set(re.findall(r"`((?:tracekit|replay|tests|docs|collectors)/[\w./-]*)`", text))
    named |= set(re.findall(r"\]\(((?!http)[\w./-]+)\)", text))
    assert named
    for name in named:
        assert (ROOT / name).exists(), f"{path} names {name}"


def test_every_event_type_says_its_source() -> None:
    for name, kind in EVENT_TYPES.items():
        assert "Source:" in (kind.__doc__ or ""), name
        for column, meaning, _ in event_columns(name):
            assert meaning, f"{name} {column.name}"


def test_every_check_has_a_whole_page() -> None:
    for code, page in all_pages().items():
        assert re.fullmatch(r"TK\d{3}", code)
        assert re.fullmatch(r"[a-z-]+", page.name)
        assert page.summary
