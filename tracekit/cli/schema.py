"""``tracekit schema``."""

from __future__ import annotations

from typing import Annotated

import typer

from tracekit.cli.console import write_output

__all__ = ("schema",)


def schema(
    as_json: Annotated[bool, typer.Option("--json", help="The same as JSON")] = False,
) -> None:
    """List every event type, and every column of a trace.

    Example: tracekit schema --json
    """
    from tracekit.report.schema import schema_json, schema_text

    write_output(schema_json() if as_json else schema_text(), None)
