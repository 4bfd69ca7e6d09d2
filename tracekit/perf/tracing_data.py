"""The tracing data of a perf.data: the texts that tracefs had when it was recorded.

Laid out as the beginning of an old trace.dat, version 0.6: header texts, formats of ftrace's own
events, formats by system, and three texts that are not needed here.
"""

from __future__ import annotations

from tracekit.errors import ImportFormatError
from tracekit.ftrace.byte_source import Cursor
from tracekit.ftrace.event_format import EventFormat, parse_format

__all__ = ("parse_tracing_data",)

MAGIC = b"\x17\x08\x44tracing"
MAX_SYSTEMS = 65536


def parse_tracing_data(data: bytes, where: str) -> list[EventFormat]:
    """The events' formats.

    :raises ImportFormatError: cut off, or of a machine that is not read here
    """
    cursor = Cursor(data, f"{where}, tracing data")
    cursor.expect(MAGIC, "tracing data's magic")
    cursor.text("version")
    if cursor.number(1, "byte order") != 0:
        raise ImportFormatError(f"{where}: recorded on a big-endian machine")
    if (long_size := cursor.number(1, "size of long")) != 8:
        raise ImportFormatError(f"{where}: recorded on a machine with a {8 * long_size}-bit long")
    cursor.number(4, "page size")
    for name in (b"header_page\0", b"header_event\0"):
        cursor.expect(name, name[:-1].decode())
        cursor.take(cursor.number(8, "header's size"), "header")
    formats = []
    for _ in range(cursor.number(4, "number of ftrace events")):
        formats.append(parse_format("ftrace", _text(cursor)))
    systems = cursor.number(4, "number of systems")
    if systems > MAX_SYSTEMS:
        raise ImportFormatError(f"{where}: {systems} event systems are too many")
    for _ in range(systems):
        system = cursor.text("system's name")
        for _ in range(cursor.number(4, "number of events")):
            formats.append(parse_format(system, _text(cursor)))
    return formats


def _text(cursor: Cursor) -> str:
    return cursor.take(cursor.number(8, "format's size"), "event format").decode("utf-8", "replace")
