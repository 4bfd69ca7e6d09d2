"""``tracekit plan``."""

from __future__ import annotations

from typing import Annotated

import typer

from tracekit.cli.console import write_output

__all__ = ("plan", "serves")


def plan(
    purpose: Annotated[
        str, typer.Option(metavar="PURPOSE", help="What is to be judged: dma or linger")
    ] = "dma",
    kernel: Annotated[
        str | None,
        typer.Option(
            metavar="VER",
            help="The host's uname -r, to leave out what it cannot have",
        ),
    ] = None,
    format: Annotated[
        str, typer.Option(metavar="FORMAT", help="What runs it: trace-cmd, sh or bpftrace")
    ] = "trace-cmd",
) -> None:
    """Print a script that records, on a host without tracekit, what the checks need.

    It says what each part gives and costs, undoes what it did, and how to import the result.
    Nothing is written here.

    Example: tracekit plan --purpose dma --format sh > record.sh
    """
    from collectors.plans import FORMATS, PLANS, parse_kernel
    from tracekit.errors import UnknownNameError

    if purpose not in PLANS:
        raise UnknownNameError("purpose", purpose, PLANS)
    if format not in FORMATS:
        raise UnknownNameError("format", format, FORMATS)
    wanted = PLANS[purpose].for_kernel(None if kernel is None else parse_kernel(kernel))
    write_output(FORMATS[format](wanted, serves()), None)


def serves() -> dict[str, tuple[str, ...]]:
    """By event type: the checks that need it, or one of several of which it is one."""
    from tracekit.cli.pages import needs_of

    found: dict[str, list[str]] = {}
    for code, needs in needs_of().items():
        for event in sorted({e for need in needs for e in need}):
            found.setdefault(event, []).append(code)
    return {event: tuple(codes) for event, codes in found.items()}
