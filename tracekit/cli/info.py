"""``tracekit info``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from tracekit.cli.console import write_output

__all__ = ("info",)


def info(
    trace: Annotated[Path, typer.Argument(metavar="TRACE", help="A trace made by import")],
    as_json: Annotated[bool, typer.Option("--json", help="The same as JSON")] = False,
) -> None:
    """Say what is in a trace, what it lost, and what each check can decide from it.

    Example: tracekit info trace.parquet
    """
    from tracekit.cli.pages import all_pages, needs_of
    from tracekit.report.trace_info import info_json, info_text
    from tracekit.store import open_trace

    opened = open_trace(trace)
    names = {code: page.name for code, page in all_pages().items()}
    render = info_json if as_json else info_text
    sockets: list[dict[str, Any]] = []
    if any(n and event.startswith("vsock.") for event, n in opened.manifest.events.items()):
        from replay.linger.statistics import linger_summary

        table, disagreements = linger_summary(opened)
        sockets = table.to_dicts()
        told = {**opened.manifest.disagreements, **disagreements}
        opened.manifest = replace(opened.manifest, disagreements=told)
    write_output(render(opened, names, needs_of(), sockets), None)
