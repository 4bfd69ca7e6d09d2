"""One CPU's ring-buffer pages in file order, plain or compressed in chunks, read piece by piece."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from tracekit.compiled.kernels import kernel
from tracekit.errors import ImportFormatError
from tracekit.ftrace.byte_source import RegularFile
from tracekit.ftrace.clocks import Stamps
from tracekit.ftrace.compression import decompress
from tracekit.ftrace.ring_buffer import FAULTS, MARK_LOST, PageLayout, Records, decode_pages
from tracekit.ftrace.trace_dat import CpuData

__all__ = ("PageRecords", "PageSource", "PageStream")

MAX_CHUNK_PAGES = 16
"""Pages in a compressed chunk; trace-cmd makes them of ten."""
MAX_RATIO = 4096
"""How much smaller compression can make a chunk; ten empty pages come to some 2000."""
AHEAD = 1 << 16
"""Bytes of chunks that are read at once: their sizes stand before each."""


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
        self,
        source: PageSource,
        layout: PageLayout,
        where: str,
        *,
        small: bool = False,
        stamps: Stamps | None = None,
        shortest: npt.NDArray[np.int32] | None = None,
    ) -> None:
        """``small``: decode with the uncompiled kernel.

        ``stamps``: how times become nanoseconds; none: they are.  ``shortest``: how long records
        of an event are at least, by its number; with it, damage is not raised but ends the records,
        at the end of the page before.
        """
        self._source = source
        self._layout = layout
        self._where = where
        self._decode = kernel(decode_pages, compile=not small)
        self._pages_read = 0
        self._stamps = stamps
        self._shortest = shortest
        self.damage = ""
        """Why the records ended early."""

    @property
    def unit(self) -> int:
        """One page."""
        return self._layout.page_size

    @property
    def finished(self) -> bool:
        """No more pages."""
        return bool(self.damage) or self._source.finished

    def fill(self, records: Records) -> None:
        """Decode as many of the next pages as there is room for.

        :raises ImportFormatError: a damaged page
        """
        try:
            pages = self._source.fill(records.pages.data.cast("B")) // self._layout.page_size
        except ImportFormatError as error:
            if self._shortest is None:
                raise
            self.damage = error.message
            return
        if self._shortest is None:
            fault = self._decode_first(pages, records)
            if fault:
                raise self._damaged(int(records.state[5]), FAULTS[fault])
        else:
            pages = self._decode_intact(pages, records, self._shortest)
        self._pages_read += pages
        if self._stamps is not None:
            self._correct(records, self._stamps)

    def _decode_first(self, pages: int, records: Records) -> int:
        if not pages:
            return 0
        layout = self._layout
        return self._decode(
            records.words, pages, layout.page_size, layout.stamp, layout.commit, layout.data,
            records.ts, records.at, records.size, records.until, records.lost, records.state,
        )  # fmt: skip

    def _decode_intact(self, pages: int, records: Records, shortest: npt.NDArray[np.int32]) -> int:
        """Decode the pages before the first damaged one; how many."""
        before = records.state.copy()
        fault = self._decode_first(pages, records)
        good = pages
        if fault:
            good = int(records.state[5])
            self.damage = self._damaged(good, FAULTS[fault]).message
            records.state[:] = before
            self._decode_first(good, records)
        count = int(records.state[3])
        at = records.at[:count]
        held = at >= 0
        payload = at[held].astype(np.int64)
        numbers = records.pages[payload].astype(np.int32) | (
            records.pages[payload + 1].astype(np.int32) << 8
        )
        short = np.flatnonzero(records.size[:count][held] < shortest[numbers])
        if len(short):
            good = int(payload[short[0]]) // self._layout.page_size
            self.damage = self._damaged(good, "a record is shorter than its format says").message
            records.state[:] = before
            self._decode_first(good, records)
        return good

    def _damaged(self, page: int, why: str) -> ImportFormatError:
        return ImportFormatError(f"{self._where}: page {self._pages_read + page} is damaged: {why}")

    def _correct(self, records: Records, stamps: Stamps) -> None:
        count, marks = int(records.state[3]), int(records.state[4])
        records.ts[:count] = stamps.in_order(records.ts[:count])
        records.until[:marks] = stamps.ns(records.until[:marks])
        # A hole ends no earlier than it begins, also where the correction steps back.
        holes = np.flatnonzero(records.at[:count] == MARK_LOST)
        which = records.size[holes]
        records.until[which] = np.maximum(records.until[which], records.ts[holes])


class PageStream:
    """Fills buffers with whole pages of one CPU until there are no more."""

    def __init__(self, file: RegularFile, data: CpuData, page_size: int, compression: str) -> None:
        """``data`` was checked to lie in ``file``, where it names no other.

        :raises ImportFormatError: plain data that is no whole number of pages
        """
        self._file = data.file or file
        self._page_size = page_size
        self._compression = compression
        self._compressed = data.compressed
        self._where = f"{file.name}, CPU {data.cpu}"
        self._at, self._end = data.offset, data.offset + data.size
        self._held = memoryview(b"")
        self._ahead, self._ahead_at = b"", self._at
        self._chunks = 0
        self._missing = data.missing
        self._broken: ImportFormatError | None = None
        if data.compressed and data.size:
            # trace-cmd 3.1 does not count the number of chunks itself in the size.
            self._end = min(self._end + 4, self._file.size)
            if data.missing and data.size < 4:
                self._end = self._at
                return
            self._chunks = int.from_bytes(self._take(4, "number of chunks"), "little")
        elif data.size % page_size and data.missing:
            self._end -= data.size % page_size
        elif data.size % page_size:
            raise ImportFormatError(
                f"{self._where}: {data.size} bytes are no whole number of {page_size}-byte pages"
            )

    @property
    def finished(self) -> bool:
        """No more pages."""
        if self._missing or self._broken is not None:
            return False
        if self._compressed:
            return not self._chunks and not len(self._held)
        return self._at >= self._end

    def fill(self, target: memoryview) -> int:
        """Put as many whole pages as there are and fit into ``target``; how many bytes.

        :raises ImportFormatError: damaged or cut-off data; what was before it has been handed out
        """
        fill = self._fill_from_chunks if self._compressed else self._fill_plain
        size = fill(target)
        if not size and self._missing:
            raise ImportFormatError(f"{self._where}: pages are missing: {self._missing}")
        return size

    def _fill_plain(self, target: memoryview) -> int:
        size = min(len(target) // self._page_size * self._page_size, self._end - self._at)
        if size:
            self._file.read_into(self._at, target[:size], "pages")
            self._at += size
        return size

    def _fill_from_chunks(self, target: memoryview) -> int:
        if self._broken is not None:
            raise self._broken
        room = len(target) // self._page_size * self._page_size
        done = 0
        while done < room:
            if not len(self._held):
                if not self._chunks:
                    break
                try:
                    self._held = memoryview(self._next_chunk())
                except ImportFormatError as error:
                    if not done:
                        raise
                    self._broken = error
                    break
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
        begin = self._at - self._ahead_at
        if begin + size > len(self._ahead):
            more = min(AHEAD, self._end - self._at, self._file.size - self._at)
            self._ahead = self._file.read(self._at, max(size, more), what)
            self._ahead_at, begin = self._at, 0
        self._at += size
        return self._ahead[begin : begin + size]
