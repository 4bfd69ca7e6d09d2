"""``tracekit import``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tracekit.cli.console import progress, write_output

__all__ = ("import_",)


def import_(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Recordings of one host")],
    out: Annotated[
        Path, typer.Option("-o", "--output", metavar="OUT", help="The trace to write (Parquet)")
    ],
    probes: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="The recording host's dynamic_events: says what probes fetched"
        ),
    ] = None,
) -> None:
    """Make a trace of a recording that trace-cmd made.

    Example: tracekit import trace.dat -o trace.parquet
    """
    from tracekit.importers import import_files
    from tracekit.report.trace_info import import_summary

    with progress(f"importing {files[0].name}") as told:
        manifest = import_files(files, out, probes=probes, progress=told)
    write_output(import_summary(out, manifest), None)
