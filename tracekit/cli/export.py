"""``tracekit export``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from tracekit.cli.console import progress
from tracekit.errors import TracekitError, UsageError

__all__ = ("export",)


class ExportFormat(Enum):
    """Whose viewer it is for."""

    PERFETTO = "perfetto"
    CSV = "csv"
    ARROW = "arrow"


_SUFFIXES = {
    ".pftrace": ExportFormat.PERFETTO,
    ".perfetto-trace": ExportFormat.PERFETTO,
    ".csv": ExportFormat.CSV,
    ".arrow": ExportFormat.ARROW,
    ".feather": ExportFormat.ARROW,
}


def export(
    trace: Annotated[Path, typer.Argument(metavar="TRACE", help="A trace made by import")],
    out: Annotated[Path, typer.Option("-o", "--output", metavar="FILE", help="The file to write")],
    format: Annotated[
        ExportFormat | None, typer.Option(help="For whom; else as the file's name ends")
    ] = None,
) -> None:
    """Write a trace for other people's viewers: Perfetto, a spreadsheet, a data frame.

    Example: tracekit export trace.parquet -o trace.pftrace
    """
    from tracekit.store import open_trace

    chosen = format or _SUFFIXES.get(out.suffix.lower())
    if chosen is None:
        raise UsageError(
            f"{out} does not say which format is meant", help="--format perfetto, csv or arrow"
        )
    opened = open_trace(trace)
    with (
        progress(f"writing {out.name}", opened.manifest.rows) as told,
        _appearing(out) as temporary,
    ):
        if chosen is ExportFormat.PERFETTO:
            from replay import run
            from tracekit.report.memory_picture import sample_memory
            from tracekit.report.perfetto import write_perfetto
            from tracekit.report.survey import survey

            scale = survey(opened)
            sampled = sample_memory(opened, scale)
            write_perfetto(opened, run(opened), scale, sampled, temporary, told)
        elif chosen is ExportFormat.CSV:
            from tracekit.report.tables import write_csv

            write_csv(opened, temporary, told)
        else:
            from tracekit.report.tables import write_arrow

            write_arrow(opened, temporary, told)
    typer.echo(f"{out}: {opened.manifest.rows:,} events, {chosen.value}")


@contextmanager
def _appearing(out: Path) -> Iterator[Path]:
    """A file beside ``out`` that takes its name when it is complete, or is gone."""
    temporary = out.with_name(f".{out.name}.{os.getpid()}.part")
    try:
        temporary.touch()  # its error says more plainly what is wrong than Arrow's
        yield temporary
        os.replace(temporary, out)
    except OSError as why:
        raise TracekitError(f"cannot write {out}: {why.strerror or why}") from None
    finally:
        temporary.unlink(missing_ok=True)
