"""Files that other tools made -> a trace.  The format is recognised by content, never by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from tracekit.errors import ImportFormatError, UsageError
from tracekit.ftrace.byte_source import RegularFile
from tracekit.ftrace.probes import read_definitions
from tracekit.ftrace.text_lines import is_ftrace_text
from tracekit.ftrace.trace_dat import is_trace_dat
from tracekit.importers._define import Format, Options, Source
from tracekit.importers.clocks import parse_clock_offset
from tracekit.importers.ftrace_text import FtraceTextSource
from tracekit.importers.merge import MergedSource
from tracekit.importers.perf_data import PerfDataSource
from tracekit.importers.qemu_log import QemuLogSource, is_qemu_log
from tracekit.importers.raw_pages import RawPagesSource, is_raw_pages
from tracekit.importers.simpletrace import SimpletraceSource, is_simpletrace
from tracekit.importers.trace_dat import TraceDatSource
from tracekit.perf.perf_data import is_perf_data
from tracekit.store import Manifest, TraceWriter

__all__ = ("FORMATS", "import_files", "open_source")

FORMATS = (
    Format(
        name="trace.dat",
        description="trace.dat files of trace-cmd record",
        recognises=lambda path, start: is_trace_dat(start),
        open=TraceDatSource,
    ),
    Format(
        name="raw-pages",
        description="folders with a copy of a tracefs instance's raw pages (trace_pipe_raw)",
        recognises=lambda path, start: is_raw_pages(path),
        open=RawPagesSource,
    ),
    Format(
        name="perf.data",
        description="perf.data files of perf record",
        recognises=lambda path, start: is_perf_data(start),
        open=PerfDataSource,
    ),
    Format(
        name="simpletrace",
        description="what QEMU's trace back end `simple` writes",
        recognises=is_simpletrace,
        open=SimpletraceSource,
    ),
    Format(
        name="ftrace-text",
        description="ftrace's text: tracefs's trace and trace_pipe, trace-cmd report",
        recognises=lambda path, start: is_ftrace_text(start),
        open=FtraceTextSource,
    ),
    Format(
        name="qemu-log",
        description="QEMU's log with its trace events, plain or gzip",
        recognises=is_qemu_log,
        open=QemuLogSource,
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
    clock_offset: str | None = None,
    trace_events: Path | None = None,
    progress: Callable[[int], None] | None = None,
) -> Manifest:
    """Write the recordings at ``paths`` as one trace to ``out``; its manifest.

    ``probes``: the recording host's ``dynamic_events`` file.  ``clock_offset``: a duration, added
    to the times of files that are not on the trace's clock.  ``trace_events``: what declares the
    events of a simpletrace.  ``progress`` is told how many rows were written so far.  On any error
    nothing is left at ``out``, and what was there before stays.

    :raises TracekitError: a file that cannot be read or written
    :raises ImportFormatError: a file of an unknown format, or a damaged one
    :raises UsageError: no file, one twice, files of two hosts, clocks that nothing brings together
    """
    _check_paths(paths, out)
    offset = parse_clock_offset(clock_offset) if clock_offset is not None else None
    options = Options(
        definitions=read_definitions(probes) if probes is not None else [],
        salvage=salvage,
        trace_events=trace_events,
    )
    source: Source
    if len(paths) > 1 or offset is not None:
        source = MergedSource([partial(open_source, p, options) for p in paths], offset)
    else:
        source = open_source(paths[0], options)
    try:
        with TraceWriter(out) as writer:
            for batch in source.batches():
                writer.write(batch)
                if progress is not None:
                    progress(source.rows)
            return writer.finish(source.manifest())
    except ImportFormatError as error:
        if isinstance(source, MergedSource):
            raise  # it names the file
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


def _check_paths(paths: Sequence[Path], out: Path) -> None:
    if not paths:
        raise UsageError("no file to import")
    for i, path in enumerate(paths):
        if not path.exists():
            continue  # said better when it is opened
        if out.exists() and out.samefile(path):
            raise UsageError(f"{out} is the recording itself; give the trace another name")
        if any(other.exists() and other.samefile(path) for other in paths[:i]):
            raise UsageError(f"{path} is given twice")


def _named(name: str, error: ImportFormatError) -> ImportFormatError:
    """The error with the file's name in it."""
    if name in error.message:
        return error
    return ImportFormatError(f"{name}: {error.message}", help=error.help)
