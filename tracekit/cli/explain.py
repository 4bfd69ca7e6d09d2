"""``tracekit explain``."""

from __future__ import annotations

from typing import Annotated

import typer

from tracekit.cli.console import write_output

__all__ = ("explain",)


def explain(
    check: Annotated[str, typer.Argument(metavar="CODE", help="A check's code or name")],
) -> None:
    """Show a check's page: what it finds, why it matters, an example, where to look.

    Example: tracekit explain TK101
    """
    from tracekit.cli.pages import all_pages, code_of
    from tracekit.report.page import plain

    write_output(plain(all_pages()[code_of(check)]), None)
