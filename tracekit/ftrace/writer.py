"""Writes trace.dat, versions 6 and 7, uncompressed or packed: for tests and made traces.

The counterpart of :mod:`tracekit.ftrace.trace_dat`; ``trace-cmd report`` reads the result.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tracekit.ftrace import trace_dat
from tracekit.ftrace.compression import COMPRESSIONS, compress

__all__ = (
    "PAGE_SIZE",
    "Instance",
    "Lost",
    "Record",
    "Recording",
    "event_format",
    "pages",
    "record",
)

PAGE_SIZE = 4096
DATA_AT = 16
CHUNK_PAGES = 10
"""Pages in a compressed chunk, as trace-cmd makes them."""

HEADER_PAGE = (
    "\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;\n"
    "\tfield: local_t commit;\toffset:8;\tsize:8;\tsigned:1;\n"
    "\tfield: char overwrite;\toffset:8;\tsize:1;\tsigned:0;\n"
    "\tfield: char data;\toffset:16;\tsize:4080;\tsigned:0;\n"
)
HEADER_EVENT = (
    "# compressed entry header\n"
    "\ttype_len    :    5 bits\n"
    "\ttime_delta  :   27 bits\n"
    "\tarray       :   32 bits\n"
    "\n"
    "\tpadding     : type == 29\n"
    "\ttime_extend : type == 30\n"
    "\ttime_stamp : type == 31\n"
    "\tdata max type_len  == 28\n"
)
COMMON_FIELDS = (
    "\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n"
    "\tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;\n"
    "\tfield:unsigned char common_preempt_count;\toffset:3;\tsize:1;\tsigned:0;\n"
    "\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n"
)
CLOCKS = ("local", "global", "counter", "uptime", "perf", "mono", "mono_raw", "boot", "tai")


@dataclass(frozen=True)
class Record:
    """An event as the ring buffer holds it: its time, and its bytes from the common header on."""

    ts_ns: int
    payload: bytes


@dataclass(frozen=True)
class Lost:
    """Events are missing here; ``count`` ``None``: nobody counted them."""

    count: int | None = None


@dataclass(frozen=True, kw_only=True)
class Instance:
    """Another trace instance; ``clock`` ``None``: the top one's.  Version 6 has one page size."""

    name: str
    cpus: Sequence[Sequence[Record | Lost]]
    clock: str | None = None
    page_size: int = PAGE_SIZE


@dataclass(kw_only=True)
class Recording:
    """A recording to be written.

    ``formats``: (system, format text).  ``cpus``: each CPU's records and holes in order.
    ``command_lines``: thread id -> name.  ``statistics``: texts of ``per_cpu/cpuN/stats``.
    ``extra_options``: numbers and bytes of more options.
    """

    formats: Sequence[tuple[str, str]]
    cpus: Sequence[Sequence[Record | Lost]]
    clock: str = "mono"
    kallsyms: str = ""
    command_lines: Mapping[int, str] = field(default_factory=dict)
    uname: str = "Linux host 7.3.4 x86_64"
    statistics: Sequence[str] = ()
    instances: Sequence[Instance] = ()
    extra_options: Sequence[tuple[int, bytes]] = ()
    page_size: int = PAGE_SIZE

    def write(self, path: Path, *, version: int = 7, compression: str = "none") -> None:
        """Write it as trace.dat version 6, or 7 with compression ``none``, ``zstd`` or ``zlib``."""
        assert version in (6, 7)
        assert compression in COMPRESSIONS
        assert version == 7 or compression == "none"
        start = trace_dat.MAGIC + b"%d\0" % version + struct.pack("<BBI", 0, 8, self.page_size)
        body = self._linear(start) if version == 6 else self._sections(start, compression)
        path.write_bytes(body)

    # -- pieces ------------------------------------------------------------------------------------

    def _header(self) -> bytes:
        out = b""
        for name, text in (("header_page", HEADER_PAGE), ("header_event", HEADER_EVENT)):
            out += name.encode() + b"\0" + struct.pack("<Q", len(text)) + text.encode()
        return out

    def _ftrace_events(self) -> bytes:
        texts = [text.encode() for system, text in self.formats if system == "ftrace"]
        return struct.pack("<I", len(texts)) + b"".join(_sized(t) for t in texts)

    def _event_formats(self) -> bytes:
        systems: dict[str, list[bytes]] = {}
        for system, text in self.formats:
            if system != "ftrace":
                systems.setdefault(system, []).append(text.encode())
        out = struct.pack("<I", len(systems))
        for system, texts in systems.items():
            out += system.encode() + b"\0" + struct.pack("<I", len(texts))
            out += b"".join(_sized(t) for t in texts)
        return out

    def _kallsyms(self) -> bytes:
        text = self.kallsyms.encode()
        return struct.pack("<I", len(text)) + text

    def _command_lines(self) -> bytes:
        return _sized("".join(f"{t} {n}\n" for t, n in self.command_lines.items()).encode())

    def _options(self) -> list[tuple[int, bytes]]:
        clocks = " ".join(f"[{c}]" if c == self.clock else c for c in CLOCKS)
        return [
            (trace_dat.TRACECLOCK, clocks.encode() + b"\n\0"),
            (trace_dat.UNAME, self.uname.encode() + b"\0"),
            (trace_dat.VERSION, b"tracekit\0"),
            *((trace_dat.CPUSTAT, text.encode() + b"\0") for text in self.statistics),
            *self.extra_options,
        ]

    def _buffers(self) -> list[Instance]:
        """The top one and the others."""
        top = Instance(name="", cpus=self.cpus, page_size=self.page_size)
        return [top, *self.instances]

    # -- version 6 ---------------------------------------------------------------------------------

    def _linear(self, start: bytes) -> bytes:
        out = start + self._header() + self._ftrace_events() + self._event_formats()
        out += self._kallsyms() + struct.pack("<I", 0) + self._command_lines()
        out += struct.pack("<I", len(self.cpus)) + b"options  \0"
        for number, data in self._options():
            out += struct.pack("<HI", number, len(data)) + data
        named = [struct.pack("<Q", 0) + i.name.encode() + b"\0" for i in self.instances]
        # Every instance's table lists the same CPUs.
        table = len(trace_dat.FLYRECORD) + 16 * len(self.cpus)
        at = len(out) + sum(6 + len(n) for n in named) + 2
        places = [at]
        body = bytearray()
        first = at = _aligned(at + table)
        for number, buffer in enumerate(self._buffers()):
            if number:
                at = first + len(body)
                places.append(at)
                body += bytes(_aligned(at + table) - at)
            entries = trace_dat.FLYRECORD
            for records in buffer.cpus:
                raw = pages(records, self.page_size)
                entries += struct.pack("<QQ", first + len(body), len(raw))
                body += raw
            if number:
                body[at - first : at - first + len(entries)] = entries
            else:
                top = entries
        for place, name in zip(places[1:], named, strict=True):
            data = struct.pack("<Q", place) + name[8:]
            out += struct.pack("<HI", trace_dat.BUFFER, len(data)) + data
        out += struct.pack("<H", 0) + top
        return out.ljust(first, b"\0") + bytes(body)

    # -- version 7 ---------------------------------------------------------------------------------

    def _sections(self, start: bytes, compression: str) -> bytes:
        packed = "" if compression == "none" else compression
        versions = {"none": b"", "zstd": b"1.5.0", "zlib": b"1.2.13"}
        out = bytearray(start + compression.encode() + b"\0" + versions[compression] + b"\0")
        first_options_at = len(out)
        out += bytes(8)
        options = []
        for number, body in (
            (trace_dat.HEADER_INFO, self._header()),
            (trace_dat.FTRACE_EVENTS, self._ftrace_events()),
            (trace_dat.EVENT_FORMATS, self._event_formats()),
            (trace_dat.KALLSYMS, self._kallsyms()),
            (trace_dat.CMDLINES, self._command_lines()),
        ):
            options.append((number, struct.pack("<Q", len(out))))
            out += _section(number, body, packed)
        options += self._options()
        options.append((trace_dat.CPUCOUNT, struct.pack("<I", len(self.cpus))))
        # The options come before the pages, whose places must be known: a first round with zeros.
        size = len(_section(0, self._option_bytes(options, []), ""))
        parts: list[tuple[int, list[tuple[int, int]]]] = []
        bodies = b""
        for buffer in self._buffers():
            at = len(out) + size + len(bodies)
            places, data = _cpu_data(buffer, at + 16, packed)
            parts.append((at, places))
            flags = 1 if packed else 0
            bodies += struct.pack("<HHIQ", trace_dat.BUFFER, flags, 0, len(data)) + data
        struct.pack_into("<Q", out, first_options_at, len(out))
        return bytes(out) + _section(0, self._option_bytes(options, parts), "") + bodies

    def _option_bytes(
        self,
        options: list[tuple[int, bytes]],
        parts: list[tuple[int, list[tuple[int, int]]]],
    ) -> bytes:
        every = list(options)
        for number, buffer in enumerate(self._buffers()):
            at, places = parts[number] if parts else (0, [(0, 0)] * len(buffer.cpus))
            data = struct.pack("<Q", at) + buffer.name.encode() + b"\0"
            data += (buffer.clock or self.clock).encode() + b"\0"
            data += struct.pack("<II", buffer.page_size, len(buffer.cpus))
            for cpu, (start, length) in enumerate(places):
                data += struct.pack("<IQQ", cpu, start, length)
            every.append((trace_dat.BUFFER, data))
        out = b""
        for number, data in [*every, (0, bytes(8))]:
            out += struct.pack("<HI", number, len(data)) + data
        return out


def _cpu_data(buffer: Instance, at: int, packed: str) -> tuple[list[tuple[int, int]], bytes]:
    """Each CPU's (offset in the file, size), and the bytes that follow ``at``."""
    places = []
    out = bytearray()
    for records in buffer.cpus:
        body = pages(records, buffer.page_size)
        out += bytes(_aligned(at + len(out)) - at - len(out))
        begin = at + len(out)
        if packed and body:
            step = CHUNK_PAGES * buffer.page_size
            raws = [body[i : i + step] for i in range(0, len(body), step)]
            out += struct.pack("<I", len(raws))
            for raw in raws:
                chunk = compress(raw, packed)
                out += struct.pack("<II", len(chunk), len(raw)) + chunk
            # trace-cmd leaves the number of chunks out of the size.
            places.append((begin, at + len(out) - begin - 4))
        else:
            out += body
            places.append((begin, len(body)))
    return places, bytes(out)


def event_format(name: str, number: int, fields: Sequence[tuple[str, int, bool]]) -> str:
    """Format text of an event whose fields follow the common header: (declaration, bytes, signed).

    Each lies at the next multiple of its size, as a C compiler puts it.
    """
    at = 8
    lines, shown, values = [], [], []
    for declaration, size, signed in fields:
        align = 4 if declaration.startswith("__data_loc") else max(size, 1)
        at = (at + align - 1) // align * align
        lines.append(f"\tfield:{declaration};\toffset:{at};\tsize:{size};\tsigned:{int(signed)};\n")
        plain = declaration.replace("[]", "").split()[-1]
        text = declaration.startswith("__data_loc")
        shown.append(f"{plain}=%s" if text else f"{plain}=0x%llx")
        values.append(f"__get_str({plain})" if text else f"REC->{plain}")
        at += size
    printed = ", ".join([f'"{" ".join(shown)}"', *values])
    return (
        f"name: {name}\nID: {number}\nformat:\n{COMMON_FIELDS}\n{''.join(lines)}\n"
        f"print fmt: {printed}\n"
    )


def record(number: int, tid: int, body: bytes, *, flags: int = 0) -> bytes:
    """A record's bytes: the common header and ``body``, filled up to four bytes."""
    raw = struct.pack("<HBBi", number, flags, 0, tid) + body
    return raw.ljust((len(raw) + 3) // 4 * 4, b"\0")


def pages(records: Sequence[Record | Lost], page_size: int = PAGE_SIZE) -> bytes:
    """Ring-buffer pages with these records, as the kernel would lay them out.

    A hole begins a new page, marked as the kernel marks it.  Time may run back: an absolute stamp.
    """
    capacity = page_size - DATA_AT
    done: list[bytes] = []
    data = bytearray()
    stamp = clock = 0
    hole: Lost | None = None

    def close() -> None:
        nonlocal hole
        commit = len(data)
        tail = b""
        if hole is not None:
            commit |= 1 << 31
            if hole.count is not None and len(data) + 8 <= capacity:
                commit |= 1 << 30
                tail = struct.pack("<Q", hole.count)
        hole = None
        done.append((struct.pack("<QQ", stamp, commit) + data + tail).ljust(page_size, b"\0"))
        data.clear()

    for item in records:
        if isinstance(item, Lost):
            if data or hole is not None:
                close()
                stamp = clock
            hole = item
            continue
        words = _event_words(item, clock if data else item.ts_ns)
        # A page with a counted hole keeps room for the count, as the kernel's reader needs it.
        room = capacity - (8 if hole is not None and hole.count is not None else 0)
        if data and len(data) + len(words) > room:
            close()
            words = _event_words(item, item.ts_ns)
        assert len(words) <= capacity, "a record larger than a page"
        if not data:
            stamp = item.ts_ns
        data += words
        clock = item.ts_ns
    if data or hole is not None:
        close()
    return b"".join(done)


def _event_words(item: Record, clock: int) -> bytes:
    """A record as the ring buffer writes it when the time before it was ``clock``."""
    size = len(item.payload)
    assert size % 4 == 0, "records are whole words"
    delta = item.ts_ns - clock
    before = b""
    if delta < 0:
        low = item.ts_ns & ((1 << 59) - 1)
        before = struct.pack("<II", (low & 0x7FFFFFF) << 5 | 31, low >> 27)
        delta = 0
    elif delta >= 1 << 27:
        before = struct.pack("<II", (delta & 0x7FFFFFF) << 5 | 30, delta >> 27)
        delta = 0
    if 0 < size <= 112:
        return before + struct.pack("<I", delta << 5 | size // 4) + item.payload
    return before + struct.pack("<II", delta << 5, size + 4) + item.payload


def _section(number: int, body: bytes, packed: str) -> bytes:
    if packed:
        data = compress(body, packed)
        body = struct.pack("<II", len(data), len(body)) + data
    return struct.pack("<HHIQ", number, int(bool(packed)), 0, len(body)) + body


def _sized(data: bytes) -> bytes:
    return struct.pack("<Q", len(data)) + data


def _aligned(at: int) -> int:
    return (at + PAGE_SIZE - 1) // PAGE_SIZE * PAGE_SIZE
