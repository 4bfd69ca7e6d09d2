"""``tracekit audit``."""

from __future__ import annotations

import re
from datetime import date
from pathlib import Path
from typing import Annotated

import typer

from tracekit.cli.console import progress
from tracekit.errors import UsageError

__all__ = ("audit",)


def audit(
    config: Annotated[
        Path, typer.Argument(metavar="CONFIG.toml", help="What to audit, and how; docs/fleet.md")
    ],
    night: Annotated[
        str | None,
        typer.Option(metavar="YYYY-MM-DD", help="The night to judge; the newest if absent"),
    ] = None,
) -> None:
    """Judge a night's traces of a fleet, compare with the nights before, write the pages.

    What is judged already is not judged again.  Exits 1 for findings or shares beyond the
    configuration's thresholds, for bad traces, and for streams that are missing.

    Example: tracekit audit audit.toml --night 2026-11-22
    """
    if night is not None and not _is_day(night):
        raise UsageError(f"--night {night!r} is not a date", help="for example 2026-11-22")
    from replay.checks import CHECKS
    from tracekit.audit.config import load_config
    from tracekit.audit.formats import render_text
    from tracekit.audit.outputs import front_page, write_outputs
    from tracekit.audit.run import audit as audited

    loaded = load_config(config, checks={code: check.name for code, check in CHECKS.items()})
    with progress("judging traces", unit="traces") as told:
        made = audited(loaded, night, progress=lambda done, total: told(done))
    write_outputs(made)
    typer.echo(render_text(made), nl=False)
    typer.echo(f"{front_page(made)}")
    raise typer.Exit(int(bool(made.reasons)))


def _is_day(text: str) -> bool:
    try:
        return bool(re.fullmatch(r"\d{4}-\d\d-\d\d", text)) and bool(date.fromisoformat(text))
    except ValueError:
        return False
