"""Hostile recordings in valid envelopes: sizes, checksums and compression are right, what is in
them is not.  Bytes flipped in a compressed file hardly ever get past the decompressor."""

from __future__ import annotations

import gzip
import io
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from unittest.mock import patch

import pyarrow as pa
from fuzz.mutations import edge, mutated, mutated_numbers, mutated_text

from tracekit.ftrace import trace_dat, writer
from tracekit.ftrace.trace_dat import TraceDat
from tracekit.ftrace.writer import PAGE_SIZE, Instance, Recording

__all__ = (
    "Parts",
    "mutated_gzip",
    "mutated_pages",
    "mutated_perf_data",
    "mutated_simpletrace",
    "parts_of",
    "rebuilt",
)

Rng = Random


# -- trace.dat ---------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What a trace.dat is made of."""

    header_page: bytes
    formats: tuple[tuple[str, bytes], ...]
    kallsyms: bytes
    cmdlines: bytes
    options: tuple[tuple[int, bytes], ...]
    page_size: int
    pages: tuple[bytes, ...]


def parts_of(path: Path) -> Parts:
    """The parts of a recording; its first instance only."""
    with TraceDat.open(path) as file:
        buffer = next((b for b in file.buffers if any(c.size for c in b.cpus)), file.buffers[0])
        held = []
        for cpu in buffer.cpus:
            raw = file.file.read(cpu.offset, cpu.size, "pages")
            if cpu.compressed and cpu.size:
                raw = file.file.read(cpu.offset, cpu.size + 4, "chunks")
                raw = b"".join(_chunks(raw, file.compression))
            held.append(raw[: 24 * buffer.page_size])
        places = (trace_dat.BUFFER, trace_dat.CPUCOUNT, 16, 17, 18, 19, 20, 21, 22)
        return Parts(
            header_page=file.header_page.encode(),
            formats=tuple((f.system, f.text.encode()) for f in file.formats),
            kallsyms=file.kallsyms[: 1 << 16],
            cmdlines=file.cmdlines,
            options=tuple((n, d) for n, d in file.options if n not in places),
            page_size=buffer.page_size,
            pages=tuple(held),
        )


def _chunks(raw: bytes, compression: str) -> Iterator[bytes]:
    (count,) = struct.unpack_from("<I", raw)
    at = 4
    for _ in range(count):
        packed, size = struct.unpack_from("<II", raw, at)
        data = raw[at + 8 : at + 8 + packed]
        at += 8 + packed
        if compression == "zlib":
            yield zlib.decompress(data)
        else:
            yield bytes(pa.Codec("zstd").decompress(data, size, asbytes=True))


@dataclass(kw_only=True)
class _Bytes(Recording):
    """A recording whose parts are bytes already."""

    parts: Parts = field(kw_only=True)

    def _header(self) -> bytes:
        out = b""
        for name, text in (
            (b"header_page", self.parts.header_page),
            (b"header_event", writer.HEADER_EVENT.encode()),
        ):
            out += name + b"\0" + struct.pack("<Q", len(text)) + text
        return out

    def _ftrace_events(self) -> bytes:
        texts = [text for system, text in self.parts.formats if system == "ftrace"]
        return struct.pack("<I", len(texts)) + b"".join(map(_sized, texts))

    def _event_formats(self) -> bytes:
        systems: dict[str, list[bytes]] = {}
        for system, text in self.parts.formats:
            if system != "ftrace":
                systems.setdefault(system, []).append(text)
        out = struct.pack("<I", len(systems))
        for system, texts in systems.items():
            out += system.encode("utf-8", "replace") + b"\0" + struct.pack("<I", len(texts))
            out += b"".join(map(_sized, texts))
        return out

    def _kallsyms(self) -> bytes:
        return struct.pack("<I", len(self.parts.kallsyms)) + self.parts.kallsyms

    def _command_lines(self) -> bytes:
        return _sized(self.parts.cmdlines)

    def _options(self) -> list[tuple[int, bytes]]:
        return list(self.parts.options)


def rebuilt(rng: Rng, parts: Parts, others: Sequence[Parts], path: Path) -> bytes:
    """The recording written anew, in any version and compression, with some parts damaged."""
    version = rng.choice((6, 7, 7, 7))
    compression = rng.choice(("none", "zstd", "zlib")) if version == 7 else "none"
    worse = _worse(rng, parts, rng.choice(others))
    size = worse.page_size
    instances = []
    if rng.random() < 0.2:
        pages = worse.pages if version == 6 else worse.pages[: rng.randint(0, 2)]
        name = rng.choice(("one", "", "x" * 300, "a/b", "\x1b[2J"))
        instances = [Instance(name=name, cpus=[()] * len(pages), page_size=size)]
    made = _Bytes(
        formats=(), cpus=[()] * len(worse.pages), parts=worse, page_size=size, instances=instances
    )
    left = [*worse.pages, *worse.pages] * 4
    # The writer lays pages out once, or twice where it must know their places first.
    at = iter(range(len(left)))
    with (
        patch.object(writer, "pages", lambda records, page_size: left[next(at) % len(left)]),
        patch.object(writer, "CHUNK_PAGES", rng.choice((1, 10))),
    ):
        made.write(path, version=version, compression=compression)
    return path.read_bytes()


def _worse(rng: Rng, parts: Parts, other: Parts) -> Parts:
    """Some of the parts damaged, most of them pages."""
    values = dict(vars(parts))
    for _ in range(rng.choice((1, 1, 2, 3))):
        kind = rng.random()
        if kind < 0.45 and parts.pages:
            pages = list(values["pages"])
            at = rng.randrange(len(pages))
            pages[at] = mutated_pages(rng, pages[at], parts.page_size, other.pages)
            values["pages"] = tuple(pages)
        elif kind < 0.65 and parts.formats:
            formats = list(values["formats"])
            at = rng.randrange(len(formats))
            system, text = formats[at]
            if rng.random() < 0.2:
                system = mutated_text(rng, system.encode()).decode("utf-8", "replace")
                system = system.replace("\0", "") or "x"
            formats[at] = system, mutated_text(rng, text, [t for _, t in other.formats])
            values["formats"] = tuple(formats)
        elif kind < 0.85:
            options = list(values["options"])
            options.insert(rng.randrange(len(options) + 1), _option(rng, options))
            values["options"] = tuple(options)
        elif kind < 0.9:
            values["kallsyms"] = mutated_text(rng, values["kallsyms"])
        elif kind < 0.95:
            values["cmdlines"] = mutated_text(rng, values["cmdlines"])
        else:
            values["header_page"] = mutated_text(rng, values["header_page"])
    return Parts(**values)


def _option(rng: Rng, known: Sequence[tuple[int, bytes]]) -> tuple[int, bytes]:
    """An option, with numbers where those that are read have numbers."""
    kind = rng.randrange(8)
    if kind == 0 and known:
        number, data = rng.choice(list(known))
        return number, mutated_text(rng, data)
    if kind == 1:
        return trace_dat.TSC2NSEC, mutated_numbers(rng, "IIQ", (4_000_000, 22, 0))
    if kind == 2:
        cpus = rng.choice((0, 1, 2, 3))
        body = mutated_numbers(rng, "QII", (1, rng.randrange(4), cpus), 0.1)
        samples = [rng.choice((0, 1, 2, 5)) for _ in range(cpus)]
        for count in samples:
            body += mutated_numbers(
                rng, "I" + "Q" * 3 * count, [count, *range(1, 3 * count + 1)], 0.2
            )
        for count in samples if rng.random() < 0.5 else ():
            body += mutated_numbers(rng, "Q" * count, [1] * count, 0.2)
        return trace_dat.TIME_SHIFT, body
    if kind == 3:
        count = rng.choice((0, 1, 2, 7))
        numbers = [1, count, *range(2 * count)]
        return trace_dat.TIME_SHIFT, mutated_numbers(rng, "QI" + "Q" * 2 * count, numbers, 0.2)
    if kind == 4:
        shown = rng.choice((f"{edge(rng)}", f"-{edge(rng)}", f"{edge(rng):#x}", "0777", "x", ""))
        return rng.choice((trace_dat.OFFSET, trace_dat.DATE)), shown.encode() + b"\0"
    if kind == 5:
        lines = ("entries", "overrun", "dropped events", "now ts", "oldest event ts")
        text = f"CPU: {edge(rng) % 9}\n" + "".join(f"{one}: {edge(rng)}\n" for one in lines)
        return trace_dat.CPUSTAT, text.encode() + b"\0"
    if kind == 6:
        return trace_dat.CPUCOUNT, edge(rng, 32).to_bytes(4, "little")
    return rng.randrange(40), rng.randbytes(rng.choice((0, 1, 4, 8, 40)))


def _sized(data: bytes) -> bytes:
    return struct.pack("<Q", len(data)) + data


def mutated_pages(rng: Rng, raw: bytes, page_size: int, others: Sequence[bytes] = ()) -> bytes:
    """Whole pages, in which words that say how the rest is read are damaged."""
    pages = [bytearray(raw[at : at + page_size]) for at in range(0, len(raw), page_size)]
    if not pages or len(pages[-1]) != page_size:
        return mutated(rng, raw, others)
    for _ in range(rng.choice((1, 1, 2, 4))):
        page = rng.choice(pages)
        kind = rng.random()
        if kind < 0.2:
            flags = rng.choice((0, 0, 1 << 31, 3 << 30, edge(rng, 64)))
            used = rng.choice((edge(rng, 32), page_size - 16, page_size - 24, 4, 0))
            page[8:16] = (flags | used).to_bytes(16, "little")[:8]
        elif kind < 0.35:
            page[0:8] = edge(rng).to_bytes(8, "little")
        elif kind < 0.8:
            _damage_event(rng, page)
        elif kind < 0.9:
            at = 16 + 4 * rng.randrange((page_size - 16) // 4)
            page[at : at + 4] = rng.randbytes(4)
        else:
            rng.shuffle(pages)
            pages.append(bytearray(page))
    return b"".join(map(bytes, pages))


def _damage_event(rng: Rng, page: bytearray) -> None:
    """Change the header, the length or the payload of one of a page's records."""
    places: list[int] = []
    at = 16
    end = min(16 + (int.from_bytes(page[8:12], "little") & 0x7FFFFFF), len(page))
    while at + 8 <= end and len(places) < 400:
        places.append(at)
        head = int.from_bytes(page[at : at + 4], "little")
        kind = head & 31
        if kind in (0, 29):
            at += max((int.from_bytes(page[at + 4 : at + 8], "little") + 7) & ~3, 8)
        else:
            at += 8 if kind >= 30 else 4 + 4 * kind
    if not places:
        return
    at = rng.choice(places)
    what = rng.randrange(5)
    if what == 0:
        kind, delta = rng.choice((0, 1, 28, 29, 30, 31, rng.randrange(32))), edge(rng, 27)
        page[at : at + 4] = (delta << 5 | kind).to_bytes(4, "little")
    elif what == 1:
        page[at + 4 : at + 8] = edge(rng, 32).to_bytes(4, "little")
    elif what == 2:  # the common header's event and thread
        page[at + 4 : at + 6] = rng.randbytes(2)
        page[at + 8 : at + 12] = edge(rng, 32).to_bytes(4, "little")
    elif what == 3:  # a field, or a word that says where text lies
        field_at = at + 12 + 4 * rng.randrange(10)
        word = edge(rng, 16) << 16 | edge(rng, 16)
        page[field_at : field_at + 4] = rng.choice((word, edge(rng, 32))).to_bytes(4, "little")
    else:
        field_at = at + 12 + 4 * rng.randrange(10)
        page[field_at : field_at + 8] = edge(rng).to_bytes(8, "little")
    del page[PAGE_SIZE * max(len(page) // PAGE_SIZE, 1) :]


# -- perf.data -----------------------------------------------------------------------------------


def mutated_perf_data(rng: Rng, raw: bytes, others: Sequence[bytes]) -> bytes:
    """Records changed, moved, left out or come twice, with every size around them right."""
    if len(raw) < 104:
        return mutated(rng, raw, others)
    pipe = raw[8:16] == struct.pack("<Q", 16)
    begin, size = (16, len(raw) - 16) if pipe else struct.unpack_from("<QQ", raw, 40)
    end = begin + size
    records = list(_perf_records(raw[begin:end]))
    if not records:
        return mutated(rng, raw, others)
    foreign = [r for o in others[:1] for r in _perf_records(o[16:])] if rng.random() < 0.2 else []
    for _ in range(rng.choice((1, 1, 2, 4))):
        at, to = rng.randrange(len(records)), rng.randrange(len(records))
        kind = rng.randrange(8)
        if kind == 0:
            records.insert(to, rng.choice(foreign or records))
        elif kind == 1 and len(records) > 1:
            del records[at]
            continue
        elif kind == 2:
            records[at], records[to] = records[to], records[at]
        elif kind == 3:
            head = int.from_bytes(records[at][:4], "little")
            new = rng.choice((edge(rng, 32), rng.randrange(1, 20), rng.randrange(64, 84), head))
            records[at] = new.to_bytes(4, "little") + rng.randbytes(2) + records[at][6:]
        elif kind == 4 and (packed := _repacked(rng, records[at])) is not None:
            records[at] = packed
        else:
            records[at] = _perf_record(rng, records[at])
    body = b"".join(records)
    if pipe:
        return raw[:begin] + body
    # What lies behind the records moves; so do the places that the table there names.
    moved = len(body) - size
    out = bytearray(raw[:begin] + body + raw[end:])
    struct.pack_into("<Q", out, 48, len(body))
    count = sum(int.from_bytes(raw[72:104], "little") >> n & 1 for n in range(256))
    for n in range(count):
        at = end + moved + 16 * n
        if at + 8 > len(out):
            break
        (place,) = struct.unpack_from("<Q", out, at)
        struct.pack_into("<Q", out, at, (place + moved) & ((1 << 64) - 1))
    if rng.random() < 0.15:
        within = (16, 104) if rng.random() < 0.5 else (104, begin)
        return mutated(rng, bytes(out), others, within=within)
    return bytes(out)


def _perf_records(raw: bytes) -> Iterator[bytes]:
    at = 0
    while at + 8 <= len(raw):
        kind, size = struct.unpack_from("<I2xH", raw, at)
        if size < 8:
            return
        behind = 0
        if kind == 66 and at + 12 <= len(raw):  # HEADER_TRACING_DATA has its data behind it
            behind = struct.unpack_from("<I", raw, at + 8)[0]
        yield raw[at : at + size + behind]
        at += size + behind


def _perf_record(rng: Rng, record: bytes) -> bytes:
    """Other bytes in it, and now and then another size, which its header then says."""
    if len(record) <= 8 or len(record) > 0xFFFF:
        return mutated(rng, record)
    if rng.random() < 0.6:
        return mutated(rng, record, within=(8, len(record)))
    body = mutated(rng, record[8:])[: 0xFFFF - 8]
    return record[:6] + struct.pack("<H", 8 + len(body)) + body


def _repacked(rng: Rng, record: bytes) -> bytes | None:
    """A compressed record whose records are damaged and packed again; none: it is another one."""
    kind = int.from_bytes(record[:4], "little")
    skip = {81: 8, 83: 16}.get(kind)
    if skip is None:
        return None
    data = record[skip:]
    if kind == 83:
        data = data[: int.from_bytes(record[8:16], "little")]
    try:
        with pa.CompressedInputStream(pa.py_buffer(data + b"\1\0\0"), "zstd") as stream:
            plain = stream.read()
    except (OSError, pa.ArrowException):
        return None
    records = list(_perf_records(plain)) or [plain]
    at = rng.randrange(len(records))
    records[at] = _perf_record(rng, records[at])
    packed = bytes(pa.Codec("zstd").compress(b"".join(records), asbytes=True))
    body = packed if kind == 81 else struct.pack("<Q", len(packed)) + packed
    body = body.ljust((len(body) + 7) // 8 * 8, b"\0") if kind == 83 else body
    if len(body) > 0xFFFF - 8:
        return None
    return record[:6] + struct.pack("<H", 8 + len(body)) + body


# -- the others ------------------------------------------------------------------------------------


def mutated_simpletrace(rng: Rng, raw: bytes, others: Sequence[bytes]) -> bytes:
    """Records changed, moved or left out, their sizes right."""
    records, at = [], 24
    while at + 8 <= len(raw):
        (kind,) = struct.unpack_from("<Q", raw, at)
        if kind == 0 and at + 20 <= len(raw):
            size = 20 + struct.unpack_from("<I", raw, at + 16)[0]
        elif kind == 1 and at + 32 <= len(raw):
            size = 8 + struct.unpack_from("<I", raw, at + 24)[0]
        else:
            break
        records.append(raw[at : at + size])
        at += size
    if not records:
        return mutated(rng, raw, others)
    for _ in range(rng.choice((1, 1, 2, 4))):
        at, to = rng.randrange(len(records)), rng.randrange(len(records))
        kind = rng.randrange(6)
        record = records[at]
        if kind == 0:
            records.insert(to, record)
        elif kind == 1:
            records[at], records[to] = records[to], record
        elif kind == 2:
            body = mutated_numbers(rng, "QQ", (rng.choice((1, (1 << 64) - 2)), edge(rng)), 0.2)
            records.insert(to, struct.pack("<Q", 1) + body + struct.pack("<IIQ", 32, 7, edge(rng)))
        elif record[0] == 0:
            name = mutated_text(rng, record[20:])
            records[at] = record[:16] + struct.pack("<I", len(name)) + name
        elif kind == 3:
            records[at] = mutated(rng, record, within=(8, len(record)))
        else:
            body = mutated(rng, record[32:])
            records[at] = record[:24] + struct.pack("<I", 24 + len(body)) + record[28:32] + body
    return raw[:24] + b"".join(records)


def mutated_gzip(rng: Rng, text: bytes, others: Sequence[bytes]) -> bytes:
    """A damaged text, compressed; now and then the packed bytes are damaged instead."""
    if rng.random() < 0.3:
        return mutated(rng, gzip.compress(text, mtime=0))
    packed = io.BytesIO()
    with gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as file:
        file.write(mutated_text(rng, text, others))
    more = gzip.compress(mutated_text(rng, text)[:1000], mtime=0) if rng.random() < 0.1 else b""
    return packed.getvalue() + more
