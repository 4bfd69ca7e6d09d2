"""``tracekit checks``."""

from __future__ import annotations

import textwrap

from tracekit.cli.console import write_output

__all__ = ("checks",)


def checks() -> None:
    """List what is looked for: code, worst severity, name and what it means.

    Example: tracekit checks
    """
    from tracekit.cli.pages import all_pages

    lines = []
    for page in all_pages().values():
        lines.append(f"{page.code}  {page.severity.value:<8} {page.name}")
        summary = " ".join(page.summary.split())
        lines += textwrap.wrap(summary, 80, initial_indent=" " * 7, subsequent_indent=" " * 7)
    write_output("\n".join(lines) + "\n", None)
