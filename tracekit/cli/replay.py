"""``tracekit replay``."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tracekit.cli.console import colour_wanted, progress, write_output
from tracekit.errors import UsageError
from tracekit.severity import Severity

if TYPE_CHECKING:
    from tracekit.findings import Outcome, ReplayResult

__all__ = ("exit_status", "replay")


class LingerModel(Enum):
    """What a lingering close() waits for."""

    LEGACY = "legacy"
    V1 = "v1"
    MERGED = "merged"


class Generation(Enum):
    """Which QEMU's conversions are expected."""

    V4 = "v4"
    MERGED = "merged"
    SOURCES = "11.1"
    AUTO = "auto"


class Format(Enum):
    """How the result is written."""

    TEXT = "text"
    JSON = "json"
    JUNIT = "junit"
    SARIF = "sarif"
    MARKDOWN = "markdown"


def replay(
    trace: Annotated[Path, typer.Argument(metavar="TRACE", help="A trace made by import")],
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="CHECK", help="Check code or name, repeatable; all if absent"),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="A check that could not judge is a failure")
    ] = False,
    max_undecided: Annotated[
        float,
        typer.Option(metavar="R", help="With --strict: the undecided part that is still good, 0-1"),
    ] = 0.0,
    fail_on: Annotated[
        Severity, typer.Option(help="Findings of this severity or worse exit 1")
    ] = Severity.ERROR,
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
    since: Annotated[
        Path | None,
        typer.Option(
            "--from", metavar="FILE", help="Go on from the state at the end of the trace before"
        ),
    ] = None,
    gap: Annotated[
        str,
        typer.Option(
            metavar="DURATION", help="With --from: how long the host may have done nothing between"
        ),
    ] = "1min",
    checkpoint: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Keep the state at the end of this trace here"),
    ] = None,
    recorded: Annotated[
        list[str] | None,
        typer.Option(
            metavar="EVENT", help="An event type that was recorded though none came, repeatable"
        ),
    ] = None,
    format: Annotated[Format, typer.Option(help="How to write the result")] = Format.TEXT,
    limit: Annotated[
        int | None,
        typer.Option(metavar="N", min=0, help="Text and Markdown: show the worst N findings only"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="Write here, not to stdout"),
    ] = None,
) -> None:
    """Replay a trace and report where the host broke its promises.

    Example: tracekit replay trace.parquet --only stale-iommu-mapping --grace 1ms
    """
    from tracekit.cli.judging import Judging
    from tracekit.cli.pages import all_pages, code_of
    from tracekit.store import open_trace

    if not 0 <= max_undecided <= 1:
        raise UsageError(f"--max-undecided {max_undecided:g} is not between 0 and 1")
    judging = Judging.of(
        grace=grace,
        in_place=in_place,
        linger_model=linger_model.value if linger_model else None,
        slack=slack,
        generation=generation.value,
    )
    codes = tuple(dict.fromkeys(code_of(name) for name in only or ()))
    opened = open_trace(trace)
    with progress(f"replaying {trace.name}", opened.manifest.rows) as told:
        result = judging.run(
            opened,
            only=codes,
            recorded=recorded or (),
            since=since,
            gap=gap,
            checkpoint=checkpoint,
            progress=told,
        )
    if format is Format.JSON:
        from tracekit.report.json import render_json

        text = render_json(result)
    elif format is Format.SARIF:
        from tracekit.report.sarif import render_sarif

        text = render_sarif(result, all_pages())
    elif format is Format.JUNIT:
        from tracekit.report.junit import render_junit

        unsure = {
            o.code: _UNSURE for o in result.outcomes if strict and too_unsure(o, max_undecided)
        }
        text = render_junit(result, all_pages(), fail_on=fail_on, undecided=unsure)
    elif format is Format.MARKDOWN:
        from tracekit.report.markdown import render_markdown

        text = render_markdown(result, all_pages(), limit=limit)
    else:
        from tracekit.report.terminal import render_terminal

        colour = out is None and colour_wanted()
        text = render_terminal(result, all_pages(), colour=colour, limit=limit)
    write_output(text, out)
    raise typer.Exit(
        exit_status(result, fail_on=fail_on, strict=strict, max_undecided=max_undecided)
    )


def exit_status(
    result: ReplayResult, *, fail_on: Severity, strict: bool, max_undecided: float
) -> int:
    """1 for findings of ``fail_on`` or worse; with ``strict``, for a check that could not judge."""
    if any(f.severity.rank <= fail_on.rank for f in result.findings):
        return 1
    return int(strict and any(too_unsure(o, max_undecided) for o in result.outcomes))


_UNSURE = "with --strict: too much could not be judged"


def too_unsure(outcome: Outcome, max_undecided: float) -> bool:
    """Whether a check left more undecided than that part of what it judges, or judged nothing."""
    total = outcome.judged.decided + outcome.judged.undecided
    return (outcome.judged.undecided / total if total else 1.0) > max_undecided
