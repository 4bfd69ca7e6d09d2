"""``tracekit replay``."""

from __future__ import annotations

from dataclasses import replace
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from tracekit.cli.console import colour_wanted, progress, write_output
from tracekit.errors import UsageError
from tracekit.findings import ReplayResult, Severity

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
    format: Annotated[Format, typer.Option(help="How to write the result")] = Format.TEXT,
    out: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="FILE", help="Write here, not to stdout"),
    ] = None,
) -> None:
    """Replay a trace and report where the host broke its promises.

    Example: tracekit replay trace.parquet --only stale-iommu-mapping --grace 1ms
    """
    from tracekit.cli.duration import parse_duration
    from tracekit.cli.pages import all_pages, code_of

    if not 0 <= max_undecided <= 1:
        raise UsageError(f"--max-undecided {max_undecided:g} is not between 0 and 1")
    grace_ns = parse_duration(grace, "--grace")
    slack_ns = None if slack is None else parse_duration(slack, "--slack")
    codes = tuple(dict.fromkeys(code_of(name) for name in only or ()))

    from replay import run
    from tracekit.store import open_trace

    opened = open_trace(trace)
    with progress(f"replaying {trace.name}", opened.manifest.rows) as told:
        result = run(
            opened,
            only=codes,
            grace_ns=grace_ns,
            in_place=in_place,
            linger_model=linger_model.value if linger_model else None,
            slack_ns=slack_ns,
            generation=generation.value,
            progress=told,
        )
    chosen = {
        "--grace": grace if grace_ns != 1_000_000 else None,
        "--linger-model": linger_model.value if linger_model else None,
        "--slack": slack,
        "--generation": generation.value if generation.value != "auto" else None,
    }
    words = [w for name, value in chosen.items() if value is not None for w in (name, value)]
    result = replace(result, options=(*words, *(["--in-place"] if in_place else [])))
    if format is Format.JSON:
        from tracekit.report.json import render_json

        text = render_json(result)
    else:
        from tracekit.report.terminal import render_terminal

        text = render_terminal(result, all_pages(), colour=out is None and colour_wanted())
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
    if strict:
        for outcome in result.outcomes:
            judged = outcome.judged
            total = judged.decided + judged.undecided
            undecided = judged.undecided / total if total else 1.0
            if undecided > max_undecided:
                return 1
    return 0
