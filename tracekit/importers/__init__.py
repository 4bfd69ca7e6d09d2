"""Files that other tools made -> a trace.  The format is recognised by content, never by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from tracekit.errors import ImportFormatError, UsageError
from tracekit.ftrace.byte_source import RegularFile
from tracekit.ftrace.probes import read_definitions
from tracekit.ftrace.trace_dat import is_trace_dat
from tracekit.importers._define import Format, Options, Source
from tracekit.importers.trace_dat import TraceDatSource
from tracekit.store import Manifest, TraceWriter

__all__ = ("FORMATS", "import_files", "open_source")

FORMATS = (
    Format(
        name="trace.dat",
        description="trace.dat files of trace-cmd record",
        recognises=lambda path, start: is_trace_dat(start),
        open=TraceDatSource,
    ),
)
"""What is read, in the order of recognition."""

START = 1 << 16


def import_files(
    paths: Sequence[Path],
    out: Path,
    *,
    probes: Path | None = None,
    salvage: bool = False,
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
    definitions = read_definitions(probes) if probes is not None else []
    source = open_source(path, Options(definitions=definitions, salvage=salvage))
    try:
        with TraceWriter(out) as writer:
            for batch in source.batches():
                writer.write(batch)
                if progress is not None:
                    progress(source.rows)
            return writer.finish(source.manifest())
    except ImportFormatError as error:
        raise _named(source.name, error) from None
    finally:
        source.close()


def open_source(path: Path, options: Options) -> Source:
    """The recording at ``path``, opened by the format that recognises it.

    :raises TracekitError: it cannot be read
    :raises ImportFormatError: none does, or it is damaged
    """
    start = b""
    if not path.is_dir():
        with RegularFile(path) as file:
            if not file.size:
                raise ImportFormatError(f"{file.name} is empty")
            start = file.read(0, min(file.size, START), "start")
    for format in FORMATS:
        if format.recognises(path, start):
            try:
                return format.open(path, options)
            except ImportFormatError as error:
                raise _named(path.name, error) from None
    with RegularFile(path):  # a folder is refused in its words
        pass
    raise ImportFormatError(
        f"{path.name} is no recording that is read here: it begins with {start[:8].hex(' ')}",
        help="read are " + "; ".join(f.description for f in FORMATS),
    )


def _named(name: str, error: ImportFormatError) -> ImportFormatError:
    """The error with the file's name in it."""
    if name in error.message:
        return error
    return ImportFormatError(f"{name}: {error.message}", help=error.help)
