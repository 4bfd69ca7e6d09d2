"""``tracekit shrink``."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from tracekit.cli.console import progress, write_output
from tracekit.cli.replay import Generation, LingerModel
from tracekit.errors import TracekitError

__all__ = ("shrink",)


def shrink(
    trace: Annotated[Path, typer.Argument(metavar="TRACE", help="A trace with a finding in it")],
    finding: Annotated[str, typer.Option(metavar="ID", help="The finding, as the report names it")],
    out: Annotated[
        Path,
        typer.Option("-o", "--output", metavar="OUT", help="The small trace; OUT.md explains it"),
    ],
    grace: Annotated[
        str, typer.Option(metavar="DURATION", help="As the replay that showed the finding")
    ] = "1ms",
    in_place: Annotated[
        bool, typer.Option("--in-place", help="As the replay that showed the finding")
    ] = False,
    linger_model: Annotated[
        LingerModel | None, typer.Option(help="As the replay that showed the finding")
    ] = None,
    slack: Annotated[
        str | None, typer.Option(metavar="DURATION", help="As the replay that showed the finding")
    ] = None,
    generation: Annotated[
        Generation, typer.Option(help="As the replay that showed the finding")
    ] = Generation.AUTO,
) -> None:
    """Cut a trace down to the fewest calls that still show a finding, and explain them.

    Exits 0 when the small trace, read back, shows the same finding.

    Example: tracekit shrink trace.parquet --finding TK101-5b770558 -o small.parquet
    """
    from tracekit.cli.duration import parse_duration
    from tracekit.cli.pages import all_pages

    grace_ns = parse_duration(grace, "--grace")
    slack_ns = None if slack is None else parse_duration(slack, "--slack")

    from replay.shrink import Options
    from replay.shrink import shrink as shrunk_of
    from replay.shrink.explanation import explanation, option_words
    from tracekit.report.escape import visible
    from tracekit.report.terminal import render_terminal
    from tracekit.store import open_trace

    options = Options(
        grace_ns=grace_ns,
        in_place=in_place,
        linger_model=linger_model.value if linger_model else None,
        slack_ns=slack_ns,
        generation=generation.value,
    )
    opened = open_trace(trace)
    if out.exists() and out.resolve() == trace.resolve():
        raise TracekitError(f"cannot write {out}: it is the trace that is shrunk")
    with progress(f"shrinking {trace.name}", opened.manifest.rows) as told:
        shrunk = shrunk_of(opened, finding, options=options, progress=told)
    shrunk.trace.write(out)
    again = shrunk.options.run(open_trace(out), (shrunk.finding.code,))
    assert any(f.id == shrunk.finding.id for f in again.findings), "it was written as it was tried"
    outcomes = [
        replace(o, findings=tuple(f for f in o.findings if f.id == shrunk.finding.id))
        for o in again.outcomes
    ]
    again = replace(
        again, outcomes=tuple(outcomes), options=tuple(option_words(shrunk.options))
    )  # fmt: skip
    page = out.with_name(out.name + ".md")
    write_output(explanation(shrunk, render_terminal(again, all_pages()), out), page)
    frames = len(set(shrunk.frames))
    lines = [
        f"{shrunk.finding.id}  {shrunk.finding.severity.value}: {shrunk.finding.title}",
        f"  {shrunk.of_events:,} events in {shrunk.of_frames:,} frames became"
        f" {shrunk.trace.manifest.rows:,} in {frames:,}; {shrunk.tried:,} replays",
        f"  the small trace     {out}",
        f"  explained           {page}",
        "  again               "
        + " ".join(["tracekit replay", str(out), *option_words(shrunk.options)]),
    ]
    write_output("\n".join(map(visible, lines)) + "\n", None)
