"""One CPU's pages, moved from the kernel into a file without passing through this process."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import re
from pathlib import Path

__all__ = ("CpuPages", "Pipe", "Stats")

MOVE = getattr(os, "SPLICE_F_MOVE", 1)
NONBLOCK = getattr(os, "SPLICE_F_NONBLOCK", 2)
F_SETPIPE_SZ = 1031
PIPE_BYTES = 1 << 20
_COUNTS = re.compile(r"^(commit overrun|overrun|dropped events|read events): (\d{1,18})$", re.M)
_NOTHING = (errno.EAGAIN, errno.EINVAL, errno.ENODATA)


class Pipe:
    """The pipe that pages go through: splice() wants one."""

    def __init__(self) -> None:
        self.out, self.into = os.pipe()
        size = PIPE_BYTES
        while size > 1 << 16:  # a user who has many pipes may not have large ones
            with contextlib.suppress(OSError):
                fcntl.fcntl(self.into, F_SETPIPE_SZ, size)
                break
            size //= 2
        self.size = size


class Stats:
    """What a CPU's ``stats`` counts since the recording began."""

    def __init__(self, text: str) -> None:
        found = {name: int(number) for name, number in _COUNTS.findall(text)}
        self.read = found.get("read events", 0)
        self.overrun = found.get("overrun", 0)
        """Overwritten: the pages show where."""
        self.unmarked = found.get("dropped events", 0) + found.get("commit overrun", 0)
        """Refused, or lost in nested interrupts: no page shows where."""


class CpuPages:
    """``trace_pipe_raw`` and ``stats`` of one CPU, open; pages go to the file of :meth:`into`."""

    def __init__(self, cpu: int, raw: int, stats: int, page_size: int) -> None:
        self.cpu = cpu
        self.raw = raw
        self.page_size = page_size
        self.place = Path()
        self._file = -1
        self._stats = stats

    def into(self, place: Path) -> None:
        """From now on pages go to a new file, made when the first comes."""
        if self._file >= 0:
            os.close(self._file)
        self.place, self._file = place, -1

    @property
    def file(self) -> int:
        """The file, made now if it is not there."""
        if self._file < 0:
            self.place.parent.mkdir(parents=True, exist_ok=True)
            self._file = os.open(self.place, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        return self._file

    def move_full(self, pipe: Pipe) -> int:
        """Move the pages that are full; how many bytes.

        :raises OSError: the file cannot be written; a part of a page may be in it
        """
        total = 0
        while True:
            try:
                taken = os.splice(self.raw, pipe.into, pipe.size, flags=MOVE | NONBLOCK)
            except OSError as why:
                if why.errno in _NOTHING:
                    return total
                raise
            if not taken:
                return total
            left, file = taken, self.file
            while left:
                left -= os.splice(pipe.out, file, left, flags=MOVE)
            total += taken
            if taken < pipe.size // 2:
                return total

    def take_partial(self) -> int:
        """Copy what is there of pages that are not full; how many bytes (a whole page each).

        :raises OSError: the file cannot be written; a part of a page may be in it
        """
        total = 0
        for _ in range(4):  # a writer that is faster than this fills pages, which are moved
            try:
                page = os.read(self.raw, self.page_size)
            except OSError as why:
                if why.errno in _NOTHING:
                    break
                raise
            if not page:
                break
            view = memoryview(page)
            while view:
                view = view[os.write(self.file, view) :]
            total += len(page)
        return total

    def cut_to_whole_pages(self) -> None:
        """Drop the part of a page that a full disk left."""
        if self._file >= 0:
            whole = os.fstat(self._file).st_size // self.page_size * self.page_size
            os.ftruncate(self._file, whole)

    def stats(self) -> Stats:
        """What the kernel counts now."""
        return Stats(self.stats_text())

    def stats_text(self) -> str:
        """The text of ``stats`` now."""
        try:
            return os.pread(self._stats, 4096, 0).decode("ascii", "replace")
        except OSError:
            return ""
