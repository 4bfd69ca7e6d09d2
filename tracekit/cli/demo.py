"""``tracekit demo``."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tracekit.cli.console import colour_wanted, progress, write_output
from tracekit.errors import TracekitError
from tracekit.severity import Severity

if TYPE_CHECKING:
    from tracekit.findings import ReplayResult

__all__ = ("Expected", "demo", "found_exactly")


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What the workload itself logged; its times bracket the real moments."""

    code: str
    gpa: int
    size: int
    from_ns: tuple[int, int]
    until_ns: tuple[int, int]


def demo(
    out: Annotated[
        Path, typer.Option("-o", "--output", metavar="DIR", help="Folder to write")
    ] = Path("tracekit-demo"),
) -> None:
    """Replay a small recording of a real kernel that has one stale mapping in it.

    Exits 0 if exactly that mapping was found, else 1.

    Example: tracekit demo -o /tmp/tracekit-demo
    """
    import shutil
    from importlib.resources import as_file, files

    from replay import run
    from tracekit.cli.pages import all_pages
    from tracekit.importers import import_files
    from tracekit.report.gathered import gather
    from tracekit.report.html import render_html
    from tracekit.report.terminal import render_terminal
    from tracekit.store import open_trace

    packaged = files("tracekit") / "demo"
    expected = Expected(**json.loads((packaged / "expected.json").read_text(encoding="utf-8")))
    recording, trace, report, page = (
        out / name for name in ("recording.dat", "trace.parquet", "report.txt", "report.html")
    )
    try:
        out.mkdir(parents=True, exist_ok=True)
        with as_file(packaged / "recording.dat") as source:
            shutil.copyfile(source, recording)
    except OSError as why:
        raise TracekitError(f"cannot write {why.filename or out}: {why.strerror}") from None
    with progress("importing and replaying the demo recording"):
        import_files([recording], trace)
        opened = open_trace(trace)
        result = run(opened)
        found = gather(opened, result)
    pages = all_pages()
    write_output(render_html(result, pages, found), page)
    write_output(render_terminal(result, pages), report)
    write_output(render_terminal(result, pages, colour=colour_wanted()), None)
    exactly = found_exactly(result, expected)
    verdict = (
        "exactly the stale mapping that was planted was found"
        if exactly
        else "this is NOT what was planted: one stale mapping, and no other error"
    )
    lines = [
        "",
        f"demo: {verdict}",
        f"  the recording       {recording}",
        f"  as a trace          {trace}",
        f"  this report         {report}",
        f"  with pictures       {page}",
        f"  what can it decide? tracekit info {trace}",
    ]
    write_output("\n".join(lines) + "\n", None)
    raise typer.Exit(0 if exactly else 1)


def found_exactly(result: ReplayResult, expected: Expected) -> bool:
    """Whether the only error is the expected one: its code, its pages, its time."""
    errors = [f for f in result.findings if f.severity is Severity.ERROR]
    if len(errors) != 1 or errors[0].code != expected.code or errors[0].count != 1:
        return False
    (one,) = errors[0].occurrences
    return (
        (one.gpa, one.size) == (expected.gpa, expected.size)
        and expected.from_ns[0] <= one.from_ns <= expected.from_ns[1]
        and one.until_ns is not None
        and expected.until_ns[0] <= one.until_ns <= expected.until_ns[1]
    )
