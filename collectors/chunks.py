"""One chunk of pages, decoded: what the kernel's formats make of them, going on from the last."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from collectors.recorder import Chunk
from tracekit.errors import ImportFormatError
from tracekit.ftrace import writer
from tracekit.ftrace.byte_source import RegularFile
from tracekit.ftrace.collected import FILE as COLLECTED
from tracekit.ftrace.collected import CollectedSource, collected_hz, collected_sources
from tracekit.ftrace.decoder import SMALL, Decoder, Stream
from tracekit.ftrace.event_format import EventFormat, parse_format
from tracekit.ftrace.kallsyms import Kallsyms
from tracekit.ftrace.loss_rows import Loss
from tracekit.ftrace.page_stream import PageRecords, PageStream
from tracekit.ftrace.probes import Definition, parse_definitions
from tracekit.ftrace.ring_buffer import PageLayout, Records, page_layout
from tracekit.ftrace.trace_dat import CpuData
from tracekit.store import Manifest, RecordedName

__all__ = ("About", "Decoding", "decode_chunk", "load_kernels")

PAGE = 4096
MAX_COMMS = 1 << 16


@dataclass
class About:
    """What the pages of a recording mean, and what was decoded of each CPU so far."""

    formats: list[EventFormat]
    definitions: list[Definition]
    layout: PageLayout
    kallsyms: Kallsyms
    clock: str
    uname: list[str]
    sources: tuple[CollectedSource, ...]
    hz: int | None
    comms: dict[int, str] = field(default_factory=lambda: {0: "<idle>"})
    states: dict[int, npt.NDArray[np.int64]] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> About:
        """The files that the recorder wrote.

        :raises ImportFormatError: one is not what the kernel writes
        """
        size = _text(folder / "buffer_subbuf_size_kb").strip()
        formats = [
            parse_format(path.parent.parent.name, _text(path))
            for path in sorted((folder / "events").glob("*/*/format"))
        ]
        clock = re.search(r"\[(\w[\w-]*)\]", _text(folder / "trace_clock"))
        about = (folder / COLLECTED).read_bytes()
        return cls(
            formats=formats,
            definitions=parse_definitions(
                _text(folder / "dynamic_events").splitlines(), "dynamic_events"
            ),
            layout=page_layout(
                _text(folder / "events" / "header_page"),
                int(size) * 1024 if size.isdigit() else PAGE,
            ),
            kallsyms=Kallsyms((folder / "kallsyms").read_bytes()),
            clock=clock[1] if clock is not None else "unknown",
            uname=_text(folder / "uname").split(),
            sources=collected_sources(about),
            hz=collected_hz(about),
        )


class Continued:
    """A CPU's records that go on where its last chunk ended: a loss begins at the last one."""

    def __init__(self, pages: PageRecords, cpu: int, about: About) -> None:
        self._pages = pages
        self._cpu = cpu
        self._about = about
        self._begun = False

    @property
    def unit(self) -> int:
        """One page."""
        return self._pages.unit

    @property
    def finished(self) -> bool:
        """No more pages in this chunk."""
        return self._pages.finished

    def fill(self, records: Records) -> None:
        """Decode the next pages.

        :raises ImportFormatError: a damaged page
        """
        if not self._begun:
            self._begun = True
            before = self._about.states.get(self._cpu)
            if before is not None:
                records.state[:3] = before
        self._pages.fill(records)
        self._about.states[self._cpu] = records.state[:3].copy()


class Decoding:
    """A chunk being decoded.  Take all batches, then ask for the rest."""

    def __init__(
        self,
        about: About,
        files: Sequence[tuple[int, RegularFile]],
        *,
        small: bool | None = None,
    ) -> None:
        """``small``: run the kernels uncompiled; where not said, the files' size decides."""
        self._about = about
        self._files = files
        if small is None:
            small = sum(file.size for _, file in files) < SMALL
        streams = [Stream(cpu, self._records(cpu, file, small), file.name) for cpu, file in files]
        self._decoder = Decoder(
            about.formats,
            streams,
            comms=about.comms,
            kallsyms=about.kallsyms,
            definitions={d.source: d for d in about.definitions},
            small=small,
        )

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The rows, in time order.

        :raises ImportFormatError: a damaged page or record
        """
        try:
            if self._files:
                yield from self._decoder.batches()
        finally:
            for _, file in self._files:
                file.close()

    def recorded(self) -> list[tuple[str, int]]:
        """How often each event of the recording was there."""
        return [(r.source, r.count) for r in self._decoder.recorded()]

    def manifest(self, losses: Sequence[Loss], overrun: int) -> Manifest:
        """What the segment says of itself.

        ``losses``: that no page shows; ``overrun``: how many events are lost by what pages show.
        """
        about, decoder = self._about, self._decoder
        words = about.uname
        return Manifest(
            host=words[1] if len(words) > 1 else None,
            kernel=words[2] if len(words) > 2 else None,
            machine=words[-2] if len(words) > 4 else None,
            clock=about.clock,
            clock_comparable=about.clock != "local",
            cpus=len(about.states),
            recorded=tuple(
                RecordedName(name=r.source, count=r.count, event=r.event, function=r.function)
                for r in decoder.recorded()
            ),
            lost_events=overrun + sum(max(loss.count, 0) for loss in losses),
            loss_marks=decoder.loss_marks + len(losses),
            lost_unknown=any(loss.count < 0 for loss in losses),
            sources=tuple(about.sources),
            probes=tuple(d.text for d in about.definitions),
            disagreements=decoder.disagreements(),
            hz=about.hz,
        )

    def _records(self, cpu: int, file: RegularFile, small: bool) -> Continued:
        layout = self._about.layout
        data = CpuData(cpu=cpu, offset=0, size=file.size, compressed=False, file=file)
        where = f"CPU {cpu}"
        pages = PageStream(file, data, layout.page_size, "none")
        return Continued(PageRecords(pages, layout, where, small=small), cpu, self._about)


def decode_chunk(about: About, place: Path, chunk: Chunk) -> Decoding:
    """The chunk whose pages lie in a folder.

    :raises ImportFormatError: its files are damaged
    """
    for tid, name in chunk.comms.items():
        if len(about.comms) < MAX_COMMS and len(tid) <= 10:
            about.comms[int(tid)] = name
    files: list[tuple[int, RegularFile]] = []
    for path in sorted(place.glob("cpu*"), key=lambda p: int(p.name[3:])):
        file = RegularFile(path)
        if not file.size:
            file.close()
            continue
        if file.size % about.layout.page_size:
            raise ImportFormatError(f"{path.name} has {file.size} bytes, no whole number of pages")
        files.append((int(path.name[3:]), file))
    return Decoding(about, files)


def load_kernels() -> None:
    """Load the compiled kernels, by decoding one record with them."""
    number = 1
    format = writer.event_format("loaded", number, [("u64 value", 8, False)])
    one = writer.Record(1, writer.record(number, 1, bytes(8)))
    with tempfile.TemporaryDirectory(prefix="tracekit-") as name:
        place = Path(name) / "cpu0"
        place.write_bytes(writer.pages([one]))
        about = About(
            formats=[parse_format("tracekit", format)],
            definitions=[],
            layout=page_layout(writer.HEADER_PAGE, PAGE),
            kallsyms=Kallsyms(b""),
            clock="mono",
            uname=[],
            sources=(),
            hz=None,
        )
        decoding = Decoding(about, [(0, RegularFile(place))], small=False)
        for _ in decoding.batches():
            pass


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
