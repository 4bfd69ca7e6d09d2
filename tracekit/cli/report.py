"""``tracekit report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tracekit.cli.console import progress, write_output
from tracekit.cli.replay import Generation, LingerModel

__all__ = ("report",)


def report(
    trace: Annotated[Path, typer.Argument(metavar="TRACE", help="A trace made by import")],
    out: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="The HTML file to write")
    ],
    grace: Annotated[
        str,
        typer.Option(metavar="DURATION", help="When a conversion with nothing under way is over"),
    ] = "1ms",
    in_place: Annotated[
        bool, typer.Option("--in-place", help="The host converts in place: judge that order too")
    ] = False,
    linger_model: Annotated[
        LingerModel | None,
        typer.Option(help="Judge vsock lingering by this model, not by the trace's kernel's"),
    ] = None,
    slack: Annotated[
        str | None,
        typer.Option(
            metavar="DURATION",
            help="How late lingering may be; else 50ms, 2 jiffies or 5 % of the timeout",
        ),
    ] = None,
    generation: Annotated[
        Generation, typer.Option(help="The QEMU whose calls are expected; auto: what explains most")
    ] = Generation.AUTO,
) -> None:
    """Replay a trace and write one HTML page with pictures, which needs no network.

    Exits 0 when the page is written, whatever was found.

    Example: tracekit report trace.parquet -o report.html
    """
    from tracekit.cli.judging import Judging
    from tracekit.cli.pages import all_pages
    from tracekit.report.gathered import gather
    from tracekit.report.html import render_html
    from tracekit.store import open_trace

    judging = Judging.of(
        grace=grace,
        in_place=in_place,
        linger_model=linger_model.value if linger_model else None,
        slack=slack,
        generation=generation.value,
    )
    opened = open_trace(trace)
    with progress(f"replaying {trace.name}", opened.manifest.rows) as told:
        result = judging.run(opened, progress=told)
    with progress(f"drawing {trace.name}", opened.manifest.rows) as told:
        found = gather(
            opened, result, model=judging.linger_model, slack_ns=judging.slack_ns, progress=told
        )
        text = render_html(result, all_pages(), found)
    write_output(text, out)
    typer.echo(f"{out}: {len(text.encode()) / 1e6:.1f} MB; open it in a browser")
