"""trace.dat, the file of ``trace-cmd record``: versions 6 and 7, uncompressed, zstd or zlib.

Read as trace-cmd.dat.v6(5) and .v7(5) describe it.  Everything is bounds-checked; whatever is
wrong is an :class:`ImportFormatError` with file and place.  Metadata is read at once, pages are
streamed (:mod:`tracekit.ftrace.page_stream`).

Salvaging takes a damaged file as far as its metadata goes: pages that the file no longer holds are
said to be missing, and those whose description is lost are looked for where trace-cmd puts them.
"""

from __future__ import annotations

import glob
import itertools
import re
from collections.abc import Container, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import TracebackType

from tracekit.errors import ImportFormatError
from tracekit.ftrace.byte_source import Cursor, RegularFile
from tracekit.ftrace.compression import COMPRESSIONS, decompress
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
MAX_PAGE = 1 << 20
MAX_BUFFERS = 1024

DATE, CPUSTAT, BUFFER, TRACECLOCK, UNAME, OFFSET, CPUCOUNT = 1, 2, 3, 4, 5, 7, 8
VERSION, TIME_SHIFT, TSC2NSEC = 9, 12, 14
HEADER_INFO, FTRACE_EVENTS, EVENT_FORMATS, KALLSYMS, CMDLINES, BUFFER_TEXT = 16, 17, 18, 19, 21, 22
FLYRECORD = b"flyrecord\0"
ENDS_THERE, ENDS_BEFORE = "the file ends there", "the file ends before"
KNOWN_OPTIONS = range(26)
"""Options of trace-cmd 3.4."""
NOT_NEEDED = (FTRACE_EVENTS, KALLSYMS, CMDLINES)
"""Sections without which a damaged file can still be read."""


@dataclass(frozen=True, kw_only=True)
class CpuData:
    """One CPU's pages in the file: where, and how many bytes there."""

    cpu: int
    offset: int
    size: int
    compressed: bool
    missing: str = ""
    """Why there are fewer than were recorded; only when salvaging."""
    file: RegularFile | None = None
    """The file they are in, where that is not the recording itself."""


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
    salvage: bool = False
    notes: list[str] = field(default_factory=list)
    """What of the metadata could not be read; only when salvaging."""
    others: list[RegularFile] = field(default_factory=list)
    """Files beside it that are open too."""
    _linear_cpus: int = 0
    _clock_text: str = ""

    def __enter__(self) -> TraceDat:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the files back; a second time does nothing."""
        for file in (self.file, *self.others):
            file.close()

    @classmethod
    def open(cls, path: Path, *, salvage: bool = False) -> TraceDat:
        """Read the metadata of the file at ``path``, or when salvaging what there is of it.

        :raises TracekitError: not a readable regular file
        :raises ImportFormatError: not a trace.dat of a kind that is read here
        """
        made = cls(RegularFile(path), salvage=salvage)
        try:
            made._read_start()
            if salvage:
                made._look_beside(path)
            made._check()
        except BaseException:
            made.close()
            raise
        return made

    @cached_property
    def clock(self) -> str:
        """The trace clock's name: ``mono``, ``boot``, ``local``, ...

        :raises ImportFormatError: two instances with different clocks
        """
        held = [b for b in self.buffers if any(c.size for c in b.cpus)]
        if len(held) == 1 and held[0].name and held[0].clock == "local":
            # trace-cmd 3.1 writes this of an instance whatever its clock; the option knows better
            return self._clock_option() or "local"
        names = {b.clock for b in held if b.clock}
        names = names or {b.clock for b in self.buffers[:1] if b.clock}
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

    def statistics(self) -> Iterator[tuple[str, dict[str, str]]]:
        """What the ring buffers said of themselves: an instance's name, and values by their names.

        A value that is there twice is the first one's.
        """
        name = ""
        for text in self.option_texts(CPUSTAT):
            if (said := text.strip()).startswith("Buffer: "):
                name = said.removeprefix("Buffer: ")
                continue
            values: dict[str, str] = {}
            for line in text.splitlines():
                what, _, value = line.partition(":")
                values.setdefault(what.strip(), value.strip())
            yield name, values

    def option_texts(self, number: int) -> list[str]:
        """All options of that number as text."""
        return [
            data.split(b"\0", 1)[0].decode("utf-8", "replace")
            for found, data in self.options
            if found == number
        ]

    def unknown_options(self) -> list[int]:
        """Numbers of options that were skipped because nobody here knows them."""
        return sorted({number for number, _ in self.options if number not in KNOWN_OPTIONS})

    def _clock_option(self) -> str:
        text = self.option_text(TRACECLOCK) or self._clock_text
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
        if not is_page_size(self.page_size):
            raise ImportFormatError(
                f"{self.file.name}: recorded with pages of {self.page_size} bytes;"
                f" 4096 and its multiples up to {MAX_PAGE} are read"
            )
        if self.version == 6:
            self._read_linear(head.at)
        else:
            self.compression = head.text("compression")
            head.text("compression's version")
            if self.compression not in COMPRESSIONS:
                raise ImportFormatError(
                    f"{self.file.name}: compressed with {self.compression[:20]!r};"
                    f" {', '.join(COMPRESSIONS)} are read"
                )
            options = head.number(8, "offset of the options")
            self._read_sections(options, head.at)

    def _check(self) -> None:
        """See that there is enough, and not too much."""
        if not self.header_page:
            raise ImportFormatError(f"{self.file.name}: has no header_page")
        if not self.buffers:
            raise ImportFormatError(f"{self.file.name}: has no per-CPU data (flyrecord)")
        own = (c for b in self.buffers for c in b.cpus if c.file is None)
        if sum(c.size for c in own) > self.file.size:
            raise ImportFormatError(f"{self.file.name}: its CPUs' data overlap")
        # Each CPU holds a chunk of the largest pages.
        count = sum(1 for b in self.buffers for c in b.cpus if c.size)
        largest = max(b.page_size for b in self.buffers)
        if count * largest > MAX_OPEN_PAGES:
            raise ImportFormatError(
                f"{self.file.name}: {count} CPUs with pages of {largest} bytes are too many"
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
                break
            except ImportFormatError:
                if step >= size:
                    raise
                step = min(size, step * 4)
        for number, data in self.options:
            if number == BUFFER:
                place = Cursor(data, f"{self.file.name}, a buffer")
                at, name = place.number(8, "offset"), place.text("name")
                try:
                    self.buffers.append(self._linear_buffer(at, name))
                except ImportFormatError as error:
                    if not self.salvage:
                        raise
                    self.buffers.append(self._lost_buffer(name, error))

    def _linear_buffer(self, offset: int, name: str) -> Buffer:
        """Another instance's pages: a table like that of the top one, somewhere else."""
        if len(self.buffers) >= MAX_BUFFERS:
            raise ImportFormatError(f"{self.file.name}: too many trace instances")
        raw = self.file.read(offset, 10 + 16 * self._linear_cpus, f"instance {name[:40]!r}")
        cursor = Cursor(raw, f"{self.file.name}, instance {name[:40]!r}")
        cursor.expect(FLYRECORD, "per-CPU pages")
        return self._linear_table(cursor, name)

    def _linear_table(self, cursor: Cursor, name: str) -> Buffer:
        streams = []
        for cpu in range(self._linear_cpus):
            offset = cursor.number(8, "offset of a CPU's pages")
            size = cursor.number(8, "size of a CPU's pages")
            streams.append(self._cpu_data(cpu, offset, size, compressed=False))
        return Buffer(name=name, clock="", page_size=self.page_size, cpus=tuple(streams))

    def _parse_linear(self, cursor: Cursor) -> None:
        self.formats, self.options, self.buffers = [], [], []
        self._parse_header(cursor)
        self._parse_ftrace_events(cursor)
        self._parse_event_formats(cursor)
        self.kallsyms = cursor.take(cursor.number(4, "kallsyms' size"), "kallsyms")
        cursor.take(cursor.number(4, "printk formats' size"), "printk formats")
        self.cmdlines = cursor.take(cursor.number(8, "command lines' size"), "command lines")
        self._linear_cpus = self._cpu_count(cursor.number(4, "number of CPUs"))
        tag = cursor.take(10, "section tag")
        while tag == b"options  \0":
            while number := cursor.number(2, "option"):
                data = cursor.take(cursor.number(4, "option's size"), f"option {number}")
                if number == CPUCOUNT:
                    count = int.from_bytes(data[:4], "little")
                    self._linear_cpus = self._cpu_count(count)
                self.options.append((number, data))
            tag = cursor.take(10, "section tag")
        if tag != FLYRECORD:
            raise ImportFormatError(
                f"{self.file.name}: no per-CPU pages, but a section {tag.rstrip(bytes(1))!r}"
            )
        self.buffers = [self._linear_table(cursor, "")]
        if not self._clock_option() and any(number == TRACECLOCK for number, _ in self.options):
            size = cursor.number(8, "the clock's size")
            self._clock_text = cursor.take(size, "the clock").decode("utf-8", "replace")

    def _read_sections(self, offset: int, begin: int) -> None:
        """Version 7: option sections that lead to the others, which begin at ``begin``."""
        try:
            self._read_options(offset)
        except ImportFormatError as error:
            if not self.salvage:
                raise
            self.notes.append(error.message)
            self.options.clear()
            for at, number in self._sections_in_a_row(begin):
                if number == 0:
                    with suppress(ImportFormatError):
                        self._read_options(at, alone=True)
            if not self.options:
                raise
        readers = {
            HEADER_INFO: self._parse_header,
            FTRACE_EVENTS: self._parse_ftrace_events,
            EVENT_FORMATS: self._parse_event_formats,
            KALLSYMS: self._parse_kallsyms,
            CMDLINES: self._parse_cmdlines,
        }
        # Of an option that is there twice, the later one; of instances, all.
        for number, data in dict(o for o in self.options if o[0] in readers).items():
            at = Cursor(data, f"{self.file.name}, option {number}").number(8, "offset")
            try:
                readers[number](Cursor(*self._section(at, number)))
            except ImportFormatError as error:
                if not self.salvage or number not in NOT_NEEDED:
                    raise
                self.notes.append(error.message)
        found: dict[int, Buffer] = {}
        for number, data in self.options:
            if number == BUFFER:
                at, buffer = self._parse_buffer(Cursor(data, f"{self.file.name}, a buffer"))
                found.pop(at, None)
                found[at] = buffer
                if len(found) > MAX_BUFFERS:
                    raise ImportFormatError(f"{self.file.name}: too many trace instances")
            elif number == BUFFER_TEXT:
                raise ImportFormatError(
                    f"{self.file.name}: holds latency text, not ring-buffer pages"
                )
        self.buffers = list(found.values())
        if self.salvage and self.notes:
            self._find_buffers(begin, found)

    def _read_options(self, offset: int, *, alone: bool = False) -> None:
        """An options section and those after it, or it ``alone``."""
        seen: set[int] = set()
        while offset:
            if offset in seen or len(seen) >= MAX_OPTION_SECTIONS:
                raise ImportFormatError(f"{self.file.name}: its option sections run in a circle")
            seen.add(offset)
            offset = self._parse_options(Cursor(*self._section(offset, 0)))
            if alone:
                return

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

    def _parse_buffer(self, cursor: Cursor) -> tuple[int, Buffer]:
        offset = cursor.number(8, "offset")
        name, clock = cursor.text("name"), cursor.text("clock")
        page_size = cursor.number(4, "page size")
        compressed = self.compression != "none"
        try:
            number, compressed, _ = self._section_header(offset)
            if number != BUFFER:
                raise ImportFormatError(f"{self.file.name}: no pages at byte {offset} for {name!r}")
        except ImportFormatError as error:
            if not self.salvage:
                raise
            self.notes.append(error.message)
        if not is_page_size(page_size):
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
        buffer = Buffer(name=name, clock=clock, page_size=page_size, cpus=tuple(streams))
        return offset, buffer

    # -- what is left of a damaged file ------------------------------------------------------------

    def _sections_in_a_row(self, offset: int) -> Iterator[tuple[int, int]]:
        """Where sections are, and which, as far as they follow each other."""
        for _ in range(MAX_OPTION_SECTIONS):
            try:
                number, _, size = self._section_header(offset)
            except ImportFormatError:
                return
            yield offset, number
            offset += 16 + size

    def _find_buffers(self, begin: int, known: Container[int]) -> None:
        """Take page sections whose description is lost, as trace-cmd lays them out.

        It writes the CPUs that recorded something in their order, each from a whole page on.  What
        the statistics say tells which those are.
        """
        names, cpus = self._recorded_cpus()
        found = [at for at, number in self._sections_in_a_row(begin) if number == BUFFER]
        for index, at in enumerate(found[:MAX_BUFFERS]):
            if at in known:
                continue
            name = names[index] if index < len(names) else f"instance {index}"
            _, compressed, size = self._section_header(at)
            # A section whose writing was cut off says no size.
            end = min(self.file.size, at + 16 + size) if size else self.file.size
            whole = bool(size) and at + 16 + size <= self.file.size
            places = self._packed_places if compressed else self._plain_places
            streams: list[CpuData] = []
            numbers = cpus.get(name, [])
            for start, length in itertools.islice(places(at + 16, end), MAX_CPUS):
                i = len(streams)
                cpu = numbers[i] if i < len(numbers) else max([-1, *numbers]) + 1 + i
                streams.append(CpuData(cpu=cpu, offset=start, size=length, compressed=compressed))
            # Chunks are counted, so theirs shows by itself; after pages, nobody knows.
            if streams and not whole and not (compressed and numbers):
                streams[-1] = replace(streams[-1], missing=ENDS_THERE)
            streams += [
                CpuData(cpu=cpu, offset=0, size=0, compressed=False, missing=ENDS_BEFORE)
                for cpu in numbers[len(streams) :]
            ]
            self.notes.append(f"the description of the pages at byte {at} is lost")
            self.buffers.append(self._found_buffer(name, streams))
        for name in names[len(found) :]:
            streams = [
                CpuData(cpu=cpu, offset=0, size=0, compressed=False, missing=ENDS_BEFORE)
                for cpu in cpus[name]
            ]
            self.buffers.append(self._found_buffer(name, streams))

    def _found_buffer(self, name: str, streams: list[CpuData]) -> Buffer:
        clock = self._clock_option()
        return Buffer(name=name, clock=clock, page_size=self.page_size, cpus=tuple(streams))

    def _recorded_cpus(self) -> tuple[list[str], dict[str, list[int]]]:
        """The instances' names, and the CPUs of each that recorded something."""
        names, cpus = [""], {"": list[int]()}
        for name, values in self.statistics():
            if name not in cpus:
                names.append(name)
                cpus[name] = []
            counts = [values.get(k, "") for k in ("entries", "read events")]
            number = values.get("CPU", "")
            if re.fullmatch(r"\d{1,4}", number) and any(
                re.fullmatch(r"0*[1-9]\d*", c) for c in counts
            ):
                cpus[name].append(int(number))
        return names, cpus

    def _packed_places(self, at: int, end: int) -> Iterator[tuple[int, int]]:
        while (start := self._next_page(at)) + 12 <= end:
            chunks = int.from_bytes(self.file.read(start, 4, "number of chunks"), "little")
            at = start + 4
            if not chunks:
                return
            for _ in range(chunks):
                if at + 8 > end:
                    at = end
                    break
                at += 8 + int.from_bytes(self.file.read(at, 4, "chunk's size"), "little")
            at = min(at, end)
            yield start, max(at - start - 4, 1)

    def _plain_places(self, at: int, end: int) -> Iterator[tuple[int, int]]:
        """Each CPU's pages have increasing times: where those fall, another CPU's begin."""
        start = at = self._next_page(at)
        before = 0
        while at + self.page_size <= end:
            stamp = int.from_bytes(self.file.read(at, 8, "page"), "little")
            if stamp < before:
                yield start, at - start
                start = at
            before = stamp
            at += self.page_size
        if at > start:
            yield start, at - start

    def _next_page(self, at: int) -> int:
        return (at + self.page_size - 1) // self.page_size * self.page_size

    def _lost_buffer(self, name: str, why: ImportFormatError) -> Buffer:
        """An instance none of whose pages are there."""
        self.notes.append(why.message)
        streams = tuple(
            CpuData(cpu=cpu, offset=0, size=0, compressed=False, missing=ENDS_BEFORE)
            for cpu in range(self._linear_cpus)
        )
        return Buffer(name=name, clock="", page_size=self.page_size, cpus=streams)

    def _look_beside(self, path: Path) -> None:
        """Take the pages that a killed trace-cmd left beside the file, where its own are not whole.

        They are ``FILE.cpuN``, plain, of the top instance.
        """
        tops = [b for b in self.buffers if not b.name]
        if tops and not any(c.missing for b in tops for c in b.cpus):
            return
        streams = []
        for beside in sorted(path.parent.glob(f"{glob.escape(path.name)}.cpu*"))[:MAX_CPUS]:
            number = beside.name.removeprefix(f"{path.name}.cpu")
            if not re.fullmatch(r"\d{1,4}", number):
                continue
            file = RegularFile(beside)
            self.others.append(file)
            size = file.size // self.page_size * self.page_size
            streams.append(
                CpuData(cpu=int(number), offset=0, size=size, compressed=False, file=file)
            )
        if streams:
            self.notes.append(f"the pages are those of {path.name}.cpuN beside it")
            top = Buffer(
                name="", clock=self._clock_option(), page_size=self.page_size, cpus=tuple(streams)
            )
            self.buffers = [top, *(b for b in self.buffers if b.name)]

    # -- pieces that both layouts have -----------------------------------------------------------

    def _cpu_count(self, count: int) -> int:
        if count > MAX_CPUS:
            raise ImportFormatError(f"{self.file.name}: {count} CPUs are too many")
        return count

    def _cpu_data(self, cpu: int, offset: int, size: int, compressed: bool) -> CpuData:
        missing = ""
        if size:
            try:
                self.file.check(offset, size, f"the data of CPU {cpu}")
            except ImportFormatError:
                if not self.salvage:
                    raise
                missing = ENDS_BEFORE if offset >= self.file.size else ENDS_THERE
                size = max(self.file.size - offset, 0)
        return CpuData(cpu=cpu, offset=offset, size=size, compressed=compressed, missing=missing)

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


def is_page_size(size: int) -> bool:
    """Whether ring-buffer pages can have that size."""
    return 0 < size <= MAX_PAGE and size % 4096 == 0


def is_trace_dat(start: bytes) -> bool:
    """Whether a file that begins so is a trace.dat."""
    return start.startswith(MAGIC)
