"""Files that other tools made -> a trace.  The format is recognised by content, never by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from tracekit.errors import ImportFormatError, UsageError
from tracekit.ftrace.byte_source import RegularFile
from tracekit.ftrace.probes import Definition, read_definitions
from tracekit.ftrace.trace_dat import is_trace_dat
from tracekit.importers import trace_dat
from tracekit.store import Manifest

__all__ = ("import_files",)


def import_files(
    paths: Sequence[Path],
    out: Path,
    *,
    probes: Path | None = None,
    progress: Callable[[int], None] | None = None,
) -> Manifest:
    """Write the recordings at ``paths`` as one trace to ``out``; its manifest.

    ``probes``: the recording host's ``dynamic_events`` file.  ``progress`` is told how many rows
    were written so far.  On any error nothing is left at ``out``, and what was there before stays.

    :raises TracekitError: a file that cannot be read or written
    :raises ImportFormatError: a file of an unknown format, or a damaged one
    :raises UsageError: no file, or more than one
    """
    if not paths:
        raise UsageError("no file to import")
    if len(paths) > 1:
        raise UsageError("one file at a time: recordings are not merged yet")
    path = paths[0]
    if out.exists() and path.exists() and out.samefile(path):
        raise UsageError(f"{out} is the recording itself; give the trace another name")
    with RegularFile(path) as file:
        if not file.size:
            raise ImportFormatError(f"{file.name} is empty")
        start = file.read(0, min(file.size, 64), "start")
    definitions: list[Definition] = read_definitions(probes) if probes is not None else []
    if is_trace_dat(start):
        return trace_dat.import_file(path, out, definitions, progress)
    raise ImportFormatError(
        f"{path.name} is no recording that is read here: it begins with {start[:8].hex(' ')}",
        help="trace.dat files of trace-cmd record are read",
    )
