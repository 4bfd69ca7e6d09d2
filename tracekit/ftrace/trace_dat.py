"""trace.dat, the file of ``trace-cmd record``: versions 6 and 7, uncompressed or zstd.

Read as trace-cmd.dat.v6(5) and .v7(5) describe it.  Everything is bounds-checked; whatever is
wrong is an :class:`ImportFormatError` with file and place.  Metadata is read at once, pages are
streamed (:mod:`tracekit.ftrace.page_stream`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import TracebackType

from tracekit.errors import ImportFormatError
from tracekit.ftrace.byte_source import Cursor, RegularFile
from tracekit.ftrace.compression import decompress
from tracekit.ftrace.event_format import EventFormat, parse_format

__all__ = ("MAGIC", "Buffer", "CpuData", "TraceDat", "is_trace_dat")

MAGIC = b"\x17\x08\x44tracing"
MAX_SECTION = 64 << 20
"""No metadata section is larger; kallsyms, the largest, has some 10 MiB."""
MAX_OPTION_SECTIONS = 1024
MAX_CPUS = 8192
MAX_OPEN_PAGES = 32 << 20
"""One page of every CPU is held at a time."""
MAX_SYSTEMS = 65536

DATE, CPUSTAT, BUFFER, TRACECLOCK, UNAME, OFFSET, CPUCOUNT = 1, 2, 3, 4, 5, 7, 8
VERSION, TIME_SHIFT, TSC2NSEC = 9, 12, 14
HEADER_INFO, FTRACE_EVENTS, EVENT_FORMATS, KALLSYMS, CMDLINES, BUFFER_TEXT = 16, 17, 18, 19, 21, 22
FLYRECORD = b"flyrecord\0"


@dataclass(frozen=True, kw_only=True)
class CpuData:
    """One CPU's pages in the file: where, and how many bytes there."""

    cpu: int
    offset: int
    size: int
    compressed: bool


@dataclass(frozen=True, kw_only=True)
class Buffer:
    """One trace instance: its name ("" is the top one), clock, bytes of a page, and CPUs."""

    name: str
    clock: str
    page_size: int
    cpus: tuple[CpuData, ...]


@dataclass
class TraceDat:
    """An open trace.dat.  Use it as a context manager."""

    file: RegularFile
    version: int = 0
    page_size: int = 4096
    compression: str = "none"
    options: list[tuple[int, bytes]] = field(default_factory=list)
    header_page: str = ""
    formats: list[EventFormat] = field(default_factory=list)
    kallsyms: bytes = b""
    cmdlines: bytes = b""
    buffers: list[Buffer] = field(default_factory=list)

    def __enter__(self) -> TraceDat:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.file.close()

    @classmethod
    def open(cls, path: Path) -> TraceDat:
        """Read the metadata of the file at ``path``.

        :raises TracekitError: not a readable regular file
        :raises ImportFormatError: not a trace.dat of a kind that is read here
        """
        made = cls(RegularFile(path))
        try:
            made._read_start()
        except BaseException:
            made.file.close()
            raise
        return made

    @cached_property
    def clock(self) -> str:
        """The trace clock's name: ``mono``, ``boot``, ``local``, ...

        :raises ImportFormatError: two instances with different clocks
        """
        names = {b.clock for b in self.buffers if b.clock}
        if len(names) > 1:
            shown = ", ".join(repr(n[:40]) for n in sorted(names)[:8])
            raise ImportFormatError(f"{self.file.name}: instances with different clocks: {shown}")
        return names.pop() if names else (self._clock_option() or "local")

    @property
    def uname(self) -> tuple[str | None, str | None, str | None]:
        """Host, kernel release, machine; ``None`` where the file does not say."""
        words = self.option_text(UNAME).split()
        # struct utsname in order: system, host, release, machine (trace-cmd leaves out "version")
        if len(words) < 4:
            return None, None, None
        return words[1], words[2], words[-1]

    def option_text(self, number: int) -> str:
        """The first option of that number as text; empty if there is none."""
        for found, data in self.options:
            if found == number:
                return data.split(b"\0", 1)[0].decode("utf-8", "replace").strip()
        return ""

    def option_texts(self, number: int) -> list[str]:
        """All options of that number as text."""
        return [
            data.split(b"\0", 1)[0].decode("utf-8", "replace")
            for found, data in self.options
            if found == number
        ]

    def _clock_option(self) -> str:
        text = self.option_text(TRACECLOCK)
        for word in text.split():
            if word.startswith("[") and word.endswith("]"):
                return word[1:-1]
        return text if " " not in text else ""

    # -- the start, and the two layouts ----------------------------------------------------------

    def _read_start(self) -> None:
        head = Cursor(self.file.read(0, min(self.file.size, 4096), "header"), self.file.name)
        if self.file.size < len(MAGIC) or not is_trace_dat(head.take(len(MAGIC), "magic")):
            raise ImportFormatError(f"{self.file.name} is not a trace.dat: its magic is missing")
        version = head.text("version")
        if version not in ("6", "7"):
            raise ImportFormatError(
                f"{self.file.name}: trace.dat version {version[:20]!r}; 6 and 7 are read"
            )
        self.version = int(version)
        if head.number(1, "byte order") != 0:
            raise ImportFormatError(f"{self.file.name}: recorded on a big-endian machine")
        if (long_size := head.number(1, "size of long")) != 8:
            raise ImportFormatError(f"{self.file.name}: recorded with a {8 * long_size}-bit long")
        self.page_size = head.number(4, "page size")
        if self.page_size != 4096:
            raise ImportFormatError(
                f"{self.file.name}: recorded with pages of {self.page_size} bytes; 4096 are read"
            )
        if self.version == 6:
            self._read_linear(head.at)
        else:
            self.compression = head.text("compression")
            head.text("compression's version")
            if self.compression not in ("none", "zstd"):
                raise ImportFormatError(
                    f"{self.file.name}: compressed with {self.compression[:20]!r};"
                    " zstd and none are read"
                )
            self._read_sections(head.number(8, "offset of the options"))
        if not self.header_page:
            raise ImportFormatError(f"{self.file.name}: has no header_page")
        if not self.buffers:
            raise ImportFormatError(f"{self.file.name}: has no per-CPU data (flyrecord)")
        if sum(c.size for b in self.buffers for c in b.cpus) > self.file.size:
            raise ImportFormatError(f"{self.file.name}: its CPUs' data overlap")
        for buffer in self.buffers:
            if len(buffer.cpus) * buffer.page_size > MAX_OPEN_PAGES:
                raise ImportFormatError(
                    f"{self.file.name}: {len(buffer.cpus)} CPUs with pages of"
                    f" {buffer.page_size} bytes are too many"
                )

    def _cursor_from(self, offset: int) -> Cursor:
        size = min(self.file.size - offset, MAX_SECTION)
        return Cursor(self.file.read(offset, size, "metadata"), f"{self.file.name}, metadata")

    def _read_linear(self, offset: int) -> None:
        """Version 6: one thing after the other."""
        size = min(self.file.size - offset, MAX_SECTION)
        # The pages come last; what is before them is small, so it is read in steps that grow.
        step = min(size, 16 << 20)
        while True:
            cursor = Cursor(
                self.file.read(offset, step, "metadata"), f"{self.file.name}, from byte {offset}"
            )
            try:
                self._parse_linear(cursor)
                return
            except ImportFormatError:
                if step >= size:
                    raise
                step = min(size, step * 4)

    def _parse_linear(self, cursor: Cursor) -> None:
        self.formats, self.options, self.buffers = [], [], []
        self._parse_header(cursor)
        self._parse_ftrace_events(cursor)
        self._parse_event_formats(cursor)
        self.kallsyms = cursor.take(cursor.number(4, "kallsyms' size"), "kallsyms")
        cursor.take(cursor.number(4, "printk formats' size"), "printk formats")
        self.cmdlines = cursor.take(cursor.number(8, "command lines' size"), "command lines")
        cpus = self._cpu_count(cursor.number(4, "number of CPUs"))
        tag = cursor.take(10, "section tag")
        while tag == b"options  \0":
            while number := cursor.number(2, "option"):
                data = cursor.take(cursor.number(4, "option's size"), f"option {number}")
                if number == BUFFER:
                    raise ImportFormatError(
                        f"{self.file.name}: a version 6 file with trace instances; only its top"
                        " buffer could be read. Convert it: trace-cmd convert -i FILE -o OUT"
                    )
                self.options.append((number, data))
            tag = cursor.take(10, "section tag")
        if tag != FLYRECORD:
            raise ImportFormatError(
                f"{self.file.name}: no per-CPU pages, but a section {tag.rstrip(bytes(1))!r}"
            )
        streams = []
        for cpu in range(cpus):
            offset = cursor.number(8, "offset of a CPU's pages")
            size = cursor.number(8, "size of a CPU's pages")
            streams.append(self._cpu_data(cpu, offset, size, compressed=False))
        self.buffers = [Buffer(name="", clock="", page_size=self.page_size, cpus=tuple(streams))]

    def _read_sections(self, offset: int) -> None:
        """Version 7: option sections that lead to the others."""
        seen: set[int] = set()
        while offset:
            if offset in seen or len(seen) >= MAX_OPTION_SECTIONS:
                raise ImportFormatError(f"{self.file.name}: its option sections run in a circle")
            seen.add(offset)
            offset = self._parse_options(Cursor(*self._section(offset, 0)))
        readers = {
            HEADER_INFO: self._parse_header,
            FTRACE_EVENTS: self._parse_ftrace_events,
            EVENT_FORMATS: self._parse_event_formats,
            KALLSYMS: self._parse_kallsyms,
            CMDLINES: self._parse_cmdlines,
        }
        for number, data in self.options:
            if number in readers:
                at = Cursor(data, f"{self.file.name}, option {number}").number(8, "offset")
                readers[number](Cursor(*self._section(at, number)))
            elif number == BUFFER:
                self.buffers.append(self._parse_buffer(Cursor(data, f"{self.file.name}, a buffer")))
            elif number == BUFFER_TEXT:
                raise ImportFormatError(
                    f"{self.file.name}: holds latency text, not ring-buffer pages"
                )

    def _section_header(self, offset: int) -> tuple[int, bool, int]:
        cursor = Cursor(self.file.read(offset, 16, "section header"), self.file.name)
        number, flags = cursor.number(2, "section"), cursor.number(2, "flags")
        cursor.number(4, "description")
        return number, bool(flags & 1), cursor.number(8, "size")

    def _section(self, offset: int, wanted: int) -> tuple[bytes, str]:
        """The body of the section at ``offset``, decompressed, and its name for messages."""
        number, compressed, size = self._section_header(offset)
        where = f"{self.file.name}, section {wanted} at byte {offset}"
        if number != wanted:
            raise ImportFormatError(f"{where}: section {number} is there")
        self.file.check(offset + 16, size, f"section {wanted}")
        if size > MAX_SECTION:
            raise ImportFormatError(f"{where}: {size} bytes are too many")
        body = self.file.read(offset + 16, size, f"section {wanted}")
        if not compressed:
            return body, where
        cursor = Cursor(body, where)
        packed, raw = cursor.number(4, "compressed size"), cursor.number(4, "raw size")
        return decompress(
            self.compression, cursor.take(packed, "data"), raw, limit=MAX_SECTION, where=where
        ), where

    def _parse_options(self, cursor: Cursor) -> int:
        while True:
            number, size = cursor.number(2, "option"), cursor.number(4, "option's size")
            data = cursor.take(size, f"option {number}")
            if number == 0:
                return Cursor(data, f"{self.file.name}, last option").number(8, "next offset")
            self.options.append((number, data))

    def _parse_buffer(self, cursor: Cursor) -> Buffer:
        offset = cursor.number(8, "offset")
        name, clock = cursor.text("name"), cursor.text("clock")
        page_size = cursor.number(4, "page size")
        number, compressed, _ = self._section_header(offset)
        if number != BUFFER:
            raise ImportFormatError(f"{self.file.name}: no pages at byte {offset} for {name!r}")
        if page_size % 4096 or not 0 < page_size <= 1 << 20:
            raise ImportFormatError(
                f"{self.file.name}: ring-buffer pages of {page_size} bytes in instance {name!r}"
            )
        streams = []
        for _ in range(self._cpu_count(cursor.number(4, "number of CPUs"))):
            cpu = cursor.number(4, "CPU")
            if cpu >= MAX_CPUS:
                raise ImportFormatError(f"{self.file.name}: a CPU with the number {cpu}")
            start, size = cursor.number(8, "offset"), cursor.number(8, "size")
            streams.append(self._cpu_data(cpu, start, size, compressed))
        return Buffer(name=name, clock=clock, page_size=page_size, cpus=tuple(streams))

    # -- pieces that both layouts have -----------------------------------------------------------

    def _cpu_count(self, count: int) -> int:
        if count > MAX_CPUS:
            raise ImportFormatError(f"{self.file.name}: {count} CPUs are too many")
        return count

    def _cpu_data(self, cpu: int, offset: int, size: int, compressed: bool) -> CpuData:
        if size:
            self.file.check(offset, size, f"the data of CPU {cpu}")
        return CpuData(cpu=cpu, offset=offset, size=size, compressed=compressed)

    def _parse_header(self, cursor: Cursor) -> None:
        cursor.expect(b"header_page\0", "header_page")
        size = cursor.number(8, "header_page's size")
        self.header_page = cursor.take(size, "header_page").decode("utf-8", "replace")
        cursor.expect(b"header_event\0", "header_event")
        cursor.take(cursor.number(8, "header_event's size"), "header_event")

    def _parse_ftrace_events(self, cursor: Cursor) -> None:
        for _ in range(cursor.number(4, "number of ftrace events")):
            self._add_format("ftrace", cursor)

    def _parse_event_formats(self, cursor: Cursor) -> None:
        systems = cursor.number(4, "number of systems")
        if systems > MAX_SYSTEMS:
            raise ImportFormatError(f"{self.file.name}: {systems} event systems are too many")
        for _ in range(systems):
            name = cursor.text("a system's name")
            for _ in range(cursor.number(4, "number of events")):
                self._add_format(name, cursor)

    def _add_format(self, system: str, cursor: Cursor) -> None:
        size = cursor.number(8, f"size of a format of {system[:40]!r}")
        text = cursor.take(size, f"a format of {system[:40]!r}").decode("utf-8", "replace")
        try:
            self.formats.append(parse_format(system, text))
        except ImportFormatError as error:
            raise ImportFormatError(f"{self.file.name}: {error.message}") from None

    def _parse_kallsyms(self, cursor: Cursor) -> None:
        self.kallsyms = cursor.take(cursor.number(4, "kallsyms' size"), "kallsyms")

    def _parse_cmdlines(self, cursor: Cursor) -> None:
        self.cmdlines = cursor.take(cursor.number(8, "command lines' size"), "command lines")


def is_trace_dat(start: bytes) -> bool:
    """Whether a file that begins so is a trace.dat."""
    return start.startswith(MAGIC)
