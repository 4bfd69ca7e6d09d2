"""What goes to the terminal besides a command's own output: errors and progress, on stderr."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tracekit.errors import TracekitError
from tracekit.report.escape import visible

__all__ = ("colour_wanted", "progress", "show_error", "write_output")


def show_error(message: str, help: str | None = None) -> None:
    """One screen that starts with ``error:``."""
    lines = [visible(line, 400) for line in message.splitlines()[:20]] or [""]
    print("error: " + "\n".join(lines), file=sys.stderr)
    if help:
        print(textwrap.indent("help: " + visible(help, 400), "  "), file=sys.stderr)


def colour_wanted() -> bool:
    """Colour only where a person reads, and did not decline it (NO_COLOR)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR")


@contextmanager
def progress(
    doing: str, total: int | None = None, unit: str = "events"
) -> Iterator[Callable[[int], None]]:
    """Show that work goes on, and how many events (of ``total``) are done; silent in a pipe."""
    if not sys.stderr.isatty():
        yield lambda done: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    from tracekit.compiled.function import told_of_builds

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=20),
        TextColumn("{task.fields[rows]}"),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(visible(doing, 40), total=total, rows="")

        def compiling(begins: bool) -> None:
            said = "compiling, once for this machine" if begins else visible(doing, 40)
            bar.update(task, description=said)

        with told_of_builds(compiling):
            yield lambda done: bar.update(task, completed=done, rows=f"{done:,} {unit}")


def write_output(text: str, to: Path | None) -> None:
    """Print, or put into a file that appears when it is complete."""
    if to is None:
        # Surrogates in a file name that is no UTF-8 must not stop a report.
        safe = text.encode(sys.stdout.encoding or "utf-8", "backslashreplace")
        sys.stdout.write(safe.decode(sys.stdout.encoding or "utf-8"))
        return
    temporary = to.with_name(f".{to.name}.{os.getpid()}.part")
    try:
        temporary.write_text(text, encoding="utf-8", errors="backslashreplace")
        os.replace(temporary, to)
    except OSError as why:
        temporary.unlink(missing_ok=True)
        raise TracekitError(f"cannot write {to}: {why.strerror}") from None
