"""A copy of a tracefs instance's files -> a trace.

Pages are read from ``per_cpu/cpuN/trace_pipe_raw``, or from the ``NAME.cpuN`` that a killed
trace-cmd left; what they mean from ``events/header_page`` and ``events/SYSTEM/NAME/format``.  The
rest may be missing: ``trace_clock``, ``buffer_subbuf_size_kb``, ``saved_cmdlines``, ``kallsyms``,
``uname``, ``dynamic_events``, ``per_cpu/cpuN/stats``, and what ``tracekit collect --spool`` adds:
``losses`` (when what the pages do not show was lost) and ``collected.json`` (the host).  It is read
as a trace.dat of the same content would be.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from tracekit.errors import ImportFormatError
from tracekit.ftrace.byte_source import RegularFile
from tracekit.ftrace.collected import FILE, MAX_BYTES, collected_hz, collected_sources
from tracekit.ftrace.event_format import parse_format
from tracekit.ftrace.loss_rows import Loss, between, loss_rows, parse_losses
from tracekit.ftrace.probes import read_definitions
from tracekit.ftrace.trace_dat import (
    CPUSTAT,
    MAX_CPUS,
    MAX_PAGE,
    TRACECLOCK,
    UNAME,
    Buffer,
    CpuData,
    TraceDat,
    is_page_size,
)
from tracekit.importers._define import Options
from tracekit.importers.trace_dat import TraceDatSource
from tracekit.store import Manifest

__all__ = ("RawPagesSource", "is_raw_pages", "read_folder")

HEADER_PAGE = "events/header_page"
LOSSES = "losses"
MAX_TEXT = 1 << 20
MAX_SYMBOLS = 64 << 20
MAX_FORMATS = 65536
MAX_FORMAT_BYTES = 64 << 20
MAX_ENTRIES = 1 << 17
"""More files in one folder are no tracefs."""


class RawPagesSource(TraceDatSource):
    """A folder of raw pages as a source of rows."""

    format = "raw ring-buffer pages"

    def __init__(self, path: Path, options: Options) -> None:
        """Open the folder at ``path``; its ``dynamic_events`` if the options define none.

        :raises TracekitError: a file in it cannot be read
        :raises ImportFormatError: it lacks what pages need, or is damaged
        """
        if not options.definitions and (path / "dynamic_events").exists():
            found = read_definitions(path / "dynamic_events")
            options = Options(definitions=found, salvage=options.salvage)
        self._losses = _losses(path)
        self._about = _optional(path / FILE, MAX_BYTES)
        super().__init__(path, options)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The recording's rows in time order.

        :raises ImportFormatError: damaged pages or records
        """
        yield from between(loss_rows(self._losses), super().batches())

    def manifest(self) -> Manifest:
        """What the recording says; once its batches were taken."""
        made = super().manifest()
        losses = self._losses
        if self._about:
            # The collector's instance was new: the kernel's count is that of this recording, also
            # where a page had no room for it.
            counts = [v.get("overrun", "") for _, v in self._recording.statistics()]
            overrun = sum(int(c) for c in counts if re.fullmatch(r"\d{1,15}", c))
            made = replace(made, lost_events=overrun, lost_unknown=False)
        return replace(
            made,
            lost_events=made.lost_events + sum(max(loss.count, 0) for loss in losses),
            loss_marks=made.loss_marks + len(losses),
            lost_unknown=made.lost_unknown or any(loss.count < 0 for loss in losses),
            sources=(*made.sources, *collected_sources(self._about)),
            hz=collected_hz(self._about),
        )

    def open_recording(self, path: Path) -> TraceDat:
        """The folder's files as a recording.

        :raises TracekitError: one cannot be read
        :raises ImportFormatError: one that is needed is missing, or damaged
        """
        return read_folder(path, salvage=self._salvage)


def is_raw_pages(path: Path) -> bool:
    """Whether a folder holds ring-buffer pages and what describes them."""
    if not path.is_dir():
        return False
    return (path / HEADER_PAGE).exists() or any(True for _ in _page_files(path))


def read_folder(path: Path, *, salvage: bool = False) -> TraceDat:
    """The folder's files as an open recording, which the caller closes.

    :raises TracekitError: one cannot be read
    :raises ImportFormatError: one that is needed is missing, or damaged
    """
    name = path.resolve().name
    if not (path / HEADER_PAGE).exists():
        raise ImportFormatError(
            f"{name} holds ring-buffer pages, but no {HEADER_PAGE}",
            help="copy events/header_page and the events' format files from the host's tracefs",
        )
    recording = TraceDat(RegularFile(path / HEADER_PAGE), salvage=salvage)
    try:
        recording.file.name = name
        header = recording.file.read(0, min(recording.file.size, MAX_TEXT), HEADER_PAGE)
        recording.header_page = header.decode("utf-8", "replace")
        _read_formats(path, recording)
        recording.kallsyms = _optional(path / "kallsyms", MAX_SYMBOLS)
        recording.cmdlines = _optional(path / "saved_cmdlines", MAX_TEXT)
        recording.page_size = _page_size(path, recording)
        recording.options.append((TRACECLOCK, _optional(path / "trace_clock", 4096)))
        recording.options.append((UNAME, _uname(path)))
        recording.buffers.append(_buffer(path, recording))
    except BaseException:
        recording.close()
        raise
    return recording


def _page_files(path: Path) -> Iterator[tuple[int, Path]]:
    """CPU numbers and the files of their pages."""
    for entry in _entries(path / "per_cpu"):
        number = re.fullmatch(r"cpu(\d{1,4})", entry)
        pages = path / "per_cpu" / entry / "trace_pipe_raw"
        if number is not None and pages.exists():
            yield int(number[1]), pages
    for entry in _entries(path):
        number = re.fullmatch(r".+\.cpu(\d{1,4})", entry)
        if number is not None and (path / entry).is_file():
            yield int(number[1]), path / entry


def _entries(folder: Path) -> list[str]:
    """Names in a folder, in order; none if there is no such folder."""
    try:
        with os.scandir(folder) as found:
            names = [entry.name for entry, _ in zip(found, range(MAX_ENTRIES), strict=False)]
    except OSError:
        return []
    return sorted(names)


def _optional(path: Path, most: int) -> bytes:
    if not path.exists():
        return b""
    with RegularFile(path) as file:
        if file.size > most:
            raise ImportFormatError(f"{file.name}: {file.size} bytes are too many")
        return file.read(0, file.size, file.name)


def _losses(path: Path) -> list[Loss]:
    text = _optional(path / LOSSES, MAX_SYMBOLS).decode("ascii", "replace")
    return parse_losses(text, LOSSES)


def _read_formats(path: Path, recording: TraceDat) -> None:
    left = MAX_FORMAT_BYTES
    for system in _entries(path / "events"):
        for event in _entries(path / "events" / system):
            format = path / "events" / system / event / "format"
            if not format.exists():
                continue
            text = _optional(format, MAX_TEXT)
            left -= len(text)
            if left < 0 or len(recording.formats) >= MAX_FORMATS:
                raise ImportFormatError(f"{recording.file.name}: too many event formats")
            try:
                recording.formats.append(parse_format(system, text.decode("utf-8", "replace")))
            except ImportFormatError as error:
                where = f"{recording.file.name}, events/{system}/{event}/format"
                raise ImportFormatError(f"{where}: {error.message}") from None
    if not recording.formats:
        raise ImportFormatError(
            f"{recording.file.name} holds no events/SYSTEM/NAME/format",
            help="copy the events' format files from the host's tracefs",
        )


def _page_size(path: Path, recording: TraceDat) -> int:
    """Bytes of a page: what ``buffer_subbuf_size_kb`` says, else header_page."""
    text = _optional(path / "buffer_subbuf_size_kb", 4096).decode("ascii", "replace").strip()
    if text:
        size = int(text) * 1024 if re.fullmatch(r"\d{1,6}", text) else 0
    else:
        found = re.search(r"\bdata;\s*offset:(\d{1,6});\s*size:(\d{1,8});", recording.header_page)
        size = int(found[1]) + int(found[2]) if found is not None else 0
    if not is_page_size(size):
        raise ImportFormatError(
            f"{recording.file.name}: ring-buffer pages of {size} bytes; 4096 and its multiples up"
            f" to {MAX_PAGE} are read"
        )
    return size


def _uname(path: Path) -> bytes:
    """``uname -a`` as a trace.dat holds it: system, host, release, machine."""
    words = _optional(path / "uname", 4096).decode("utf-8", "replace").split()
    if len(words) < 4:
        return b""
    machine = words[-2] if words[-1] == "GNU/Linux" else words[-1]
    return " ".join([*words[:3], machine]).encode()


def _buffer(path: Path, recording: TraceDat) -> Buffer:
    size = recording.page_size
    streams: dict[int, CpuData] = {}
    for cpu, pages in _page_files(path):
        if cpu in streams or cpu >= MAX_CPUS:
            raise ImportFormatError(f"{recording.file.name}: CPU {cpu} is there twice, or too high")
        file = RegularFile(pages)
        recording.others.append(file)
        rest = file.size % size
        if rest and not recording.salvage:
            raise ImportFormatError(
                f"{recording.file.name}: {pages.relative_to(path)} has {file.size} bytes, no whole"
                f" number of {size}-byte pages; is it cut off?"
            )
        streams[cpu] = CpuData(
            cpu=cpu,
            offset=0,
            size=file.size - rest,
            compressed=False,
            missing="the file ends within one" if rest else "",
            file=file,
        )
        stats = _optional(path / "per_cpu" / f"cpu{cpu}" / "stats", 1 << 16)
        if (path / LOSSES).exists():
            stats = re.sub(rb"(?m)^dropped events: .*\n?", b"", stats)  # it says also when
        if stats:
            recording.options.append((CPUSTAT, b"CPU: %d\n" % cpu + stats))
    if not streams:
        raise ImportFormatError(f"{recording.file.name} holds no per_cpu/cpuN/trace_pipe_raw")
    return Buffer(
        name="", clock="", page_size=size, cpus=tuple(streams[cpu] for cpu in sorted(streams))
    )
