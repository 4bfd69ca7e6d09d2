"""One CPU's ring-buffer pages in file order, plain or compressed in chunks, read piece by piece."""

from __future__ import annotations

from typing import Protocol

from tracekit.errors import ImportFormatError
from tracekit.ftrace._jit import kernel
from tracekit.ftrace.byte_source import RegularFile
from tracekit.ftrace.compression import decompress
from tracekit.ftrace.ring_buffer import FAULTS, PageLayout, Records, decode_pages
from tracekit.ftrace.trace_dat import CpuData

__all__ = ("PageRecords", "PageSource", "PageStream")

MAX_CHUNK_PAGES = 16
"""Pages in a compressed chunk; trace-cmd makes them of ten."""
MAX_RATIO = 4096
"""How much smaller compression can make a chunk; ten empty pages come to some 2000."""


class PageSource(Protocol):
    """Where a CPU's pages come from."""

    @property
    def finished(self) -> bool:
        """No more pages."""

    def fill(self, target: memoryview) -> int:
        """Put whole pages into ``target``; how many bytes."""


class PageRecords:
    """A CPU's pages, decoded."""

    def __init__(
        self, source: PageSource, layout: PageLayout, where: str, *, small: bool = False
    ) -> None:
        """``small``: decode with the uncompiled kernel."""
        self._source = source
        self._layout = layout
        self._where = where
        self._decode = kernel(decode_pages, compile=not small)
        self._pages_read = 0

    @property
    def unit(self) -> int:
        """One page."""
        return self._layout.page_size

    @property
    def finished(self) -> bool:
        """No more pages."""
        return self._source.finished

    def fill(self, records: Records) -> None:
        """Decode as many of the next pages as there is room for.

        :raises ImportFormatError: a damaged page
        """
        layout = self._layout
        pages = self._source.fill(records.pages.data.cast("B")) // layout.page_size
        if not pages:
            return
        fault = self._decode(
            records.words, pages, layout.page_size, layout.stamp, layout.commit, layout.data,
            records.ts, records.at, records.size, records.until, records.lost, records.state,
        )  # fmt: skip
        if fault:
            page = self._pages_read + int(records.state[5])
            raise ImportFormatError(f"{self._where}: page {page} is damaged: {FAULTS[fault]}")
        self._pages_read += pages


class PageStream:
    """Fills buffers with whole pages of one CPU until there are no more."""

    def __init__(self, file: RegularFile, data: CpuData, page_size: int, compression: str) -> None:
        """``data`` was checked to lie in ``file``.

        :raises ImportFormatError: plain data that is no whole number of pages
        """
        self._file = file
        self._page_size = page_size
        self._compression = compression
        self._compressed = data.compressed
        self._where = f"{file.name}, CPU {data.cpu}"
        self._at, self._end = data.offset, data.offset + data.size
        self._held = memoryview(b"")
        self._chunks = 0
        if data.compressed and data.size:
            # trace-cmd 3.1 does not count the number of chunks itself in the size.
            self._end = min(self._end + 4, file.size)
            self._chunks = int.from_bytes(self._take(4, "number of chunks"), "little")
        elif data.size % page_size:
            raise ImportFormatError(
                f"{self._where}: {data.size} bytes are no whole number of {page_size}-byte pages"
            )

    @property
    def finished(self) -> bool:
        """No more pages."""
        if self._compressed:
            return not self._chunks and not len(self._held)
        return self._at >= self._end

    def fill(self, target: memoryview) -> int:
        """Put as many whole pages as there are and fit into ``target``; how many bytes.

        :raises ImportFormatError: damaged or cut-off data
        """
        if self._compressed:
            return self._fill_from_chunks(target)
        size = min(len(target) // self._page_size * self._page_size, self._end - self._at)
        if size:
            self._file.read_into(self._at, target[:size], "pages")
            self._at += size
        return size

    def _fill_from_chunks(self, target: memoryview) -> int:
        room = len(target) // self._page_size * self._page_size
        done = 0
        while done < room:
            if not len(self._held):
                if not self._chunks:
                    break
                self._held = memoryview(self._next_chunk())
                continue
            size = min(room - done, len(self._held))
            target[done : done + size] = self._held[:size]
            self._held = self._held[size:]
            done += size
        return done

    def _next_chunk(self) -> bytes:
        packed = int.from_bytes(self._take(4, "chunk's compressed size"), "little")
        raw = int.from_bytes(self._take(4, "chunk's raw size"), "little")
        place = f"{self._where}, chunk at byte {self._at - 8}"
        if raw % self._page_size:
            raise ImportFormatError(f"{place}: {raw} bytes are no whole number of pages")
        if raw > packed * MAX_RATIO:
            raise ImportFormatError(f"{place}: {packed} bytes cannot hold {raw}")
        self._chunks -= 1
        limit = MAX_CHUNK_PAGES * self._page_size
        return decompress(
            self._compression, self._take(packed, "chunk"), raw, limit=limit, where=place
        )

    def _take(self, size: int, what: str) -> bytes:
        if size > self._end - self._at:
            raise ImportFormatError(
                f"{self._where}: {what} at byte {self._at} ends past the CPU's data; is it cut off?"
            )
        data = self._file.read(self._at, size, what)
        self._at += size
        return data
