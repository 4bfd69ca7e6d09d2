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
    salvage: Annotated[
        bool,
        typer.Option(help="Keep what is intact of a damaged recording; the rest is marked as lost"),
    ] = False,
    clock_offset: Annotated[
        str | None,
        typer.Option(
            metavar="D",
            help="Added to the times of files on another clock: -1.5s, with its error -1.5s+-2ms",
        ),
    ] = None,
    trace_events: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="trace-events-all of the QEMU that wrote a simpletrace"),
    ] = None,
) -> None:
    """Make a trace of recordings of one host: of trace-cmd, and of QEMU's own trace events.

    Example: tracekit import trace.dat qemu.log -o trace.parquet
    """
    from tracekit.importers import import_files
    from tracekit.report.trace_info import import_summary

    with progress(f"importing {files[0].name}") as told:
        manifest = import_files(
            files,
            out,
            probes=probes,
            salvage=salvage,
            clock_offset=clock_offset,
            trace_events=trace_events,
            progress=told,
        )
    write_output(import_summary(out, manifest), None)
