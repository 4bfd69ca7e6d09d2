"""Cut a trace.dat down to its first part: every record up to a moment, byte for byte.

What is left out: records after that moment, formats of events that do not occur, and symbols that
no probe was on.  Nothing is added or changed.  The demo recording was made so::

    python tests/data/cut_recording.py trace.dat cut.dat SECONDS
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from tracekit.ftrace.byte_source import Cursor
from tracekit.ftrace.event_format import parse_format
from tracekit.ftrace.page_stream import PageStream
from tracekit.ftrace.trace_dat import UNAME, TraceDat
from tracekit.ftrace.writer import Record, Recording
from tracekit.importers.trace_dat import command_lines, cpu_count


class WithTexts(TraceDat):
    """A recording whose formats are kept as the kernel wrote them: (system, text)."""

    texts: ClassVar[list[tuple[str, str]]] = []

    def _add_format(self, system: str, cursor: Cursor) -> None:
        text = cursor.take(cursor.number(8, "size"), "format").decode()
        self.texts.append((system, text))
        self.formats.append(parse_format(system, text))


def records(page: bytes) -> Iterator[Record]:
    """The events of one ring-buffer page."""
    stamp, commit = struct.unpack_from("<QQ", page)
    assert not commit >> 30 & 3, "a page with lost events: cut before it"
    at, end = 16, 16 + (commit & 0xFFFFF)
    while at < end:
        (word,) = struct.unpack_from("<I", page, at)
        kind, delta = word & 31, word >> 5
        at += 4
        if kind in (30, 31):
            (high,) = struct.unpack_from("<I", page, at)
            at += 4
            if kind == 30:
                stamp += high << 27 | delta
            else:
                stamp = stamp & ~((1 << 59) - 1) | high << 27 | delta
            continue
        stamp += delta
        if kind == 29:
            if not delta:
                return
            at += struct.unpack_from("<I", page, at)[0]
            continue
        size = kind * 4
        if not kind:
            size = struct.unpack_from("<I", page, at)[0] - 4
            at += 4
        yield Record(ts_ns=stamp, payload=page[at : at + size])
        at += size


def main(source: str, target: str, seconds: str) -> None:
    until = int(float(seconds) * 1e9)
    with WithTexts.open(Path(source)) as recording:
        assert isinstance(recording, WithTexts)
        cpus = []
        for cpu in recording.buffers[0].cpus:
            kept: list[Record] = []
            if cpu.size:
                stream = PageStream(recording.file, cpu, 4096, recording.compression)
                page = bytearray(4096)
                while not stream.finished and stream.fill(memoryview(page)):
                    kept += [r for r in records(bytes(page)) if r.ts_ns <= until]
            cpus.append(kept)
        # CPUs that recorded nothing are still CPUs.
        cpus += [[]] * (cpu_count(recording) - len(cpus))
        every = [r.payload for kept in cpus for r in kept]
        numbers = {struct.unpack_from("<H", payload)[0] for payload in every}
        formats = [
            (system, text)
            for system, text in recording.texts
            if int(text.split("\nID: ")[1].split()[0]) in numbers
        ]
        threads = {struct.unpack_from("<i", payload, 4)[0] for payload in every}
        words = {w for payload in every for w in struct.unpack(f"<{len(payload) // 4}I", payload)}
        symbols = [
            line
            for line in recording.kallsyms.decode().splitlines()
            if line[1:8] == "fffffff" and any(int(line[8:16], 16) + d in words for d in range(17))
        ]
        names = command_lines(recording.cmdlines)
        Recording(
            formats=formats,
            cpus=cpus,
            clock=recording.clock,
            kallsyms="\n".join(symbols) + "\n",
            command_lines={t: names[t] for t in sorted(threads) if t in names},
            uname=recording.option_text(UNAME),
        ).write(Path(target), compression="zstd")


if __name__ == "__main__":
    main(*sys.argv[1:])
