"""Bytes of somebody else's file, read with bounds: a regular file, a cursor over a piece of it."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from types import TracebackType

from tracekit.errors import ImportFormatError, TracekitError

__all__ = ("Cursor", "RegularFile")


class RegularFile:
    """A regular file, read at offsets.  Devices, pipes and folders are refused before any read."""

    def __init__(self, path: Path) -> None:
        """Open ``path``.

        :raises TracekitError: there is no such file, it may not be read, or is not a regular file
        """
        self.name = path.name
        self._fd = -1
        try:
            # O_NONBLOCK: opening a FIFO must not wait for a writer.
            self._fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            status = os.fstat(self._fd)
        except FileNotFoundError:
            raise TracekitError(f"there is no file {path}") from None
        except PermissionError:
            raise TracekitError(f"no permission to read {path}") from None
        except OSError as error:
            self.close()
            raise TracekitError(f"cannot open {path}: {error.strerror}") from None
        if not stat.S_ISREG(status.st_mode):
            self.close()
            kind = "a folder" if stat.S_ISDIR(status.st_mode) else "not a regular file"
            raise TracekitError(f"{path} is {kind}; a recording is a regular file")
        self.size = status.st_size

    def __enter__(self) -> RegularFile:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give the descriptor back; a second time does nothing."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def check(self, offset: int, size: int, what: str) -> None:
        """See that ``[offset, offset + size)`` lies in the file.

        :raises ImportFormatError: it does not
        """
        if offset < 0 or size < 0 or offset + size > self.size:
            raise ImportFormatError(
                f"{self.name}: {what} at byte {offset} with {size} bytes ends past the file's"
                f" {self.size}; is it cut off?"
            )

    def read(self, offset: int, size: int, what: str) -> bytes:
        """``size`` bytes at ``offset``.

        :raises ImportFormatError: the file ends before
        """
        self.check(offset, size, what)
        pieces = []
        while size > 0:
            piece = self._pread(size, offset)
            if not piece:
                raise ImportFormatError(f"{self.name}: the file became shorter while it was read")
            pieces.append(piece)
            offset, size = offset + len(piece), size - len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def read_into(self, offset: int, target: memoryview, what: str) -> None:
        """Fill ``target`` with the bytes at ``offset``.

        :raises ImportFormatError: the file ends before
        """
        self.check(offset, len(target), what)
        done = 0
        while done < len(target):
            got = os.preadv(self._fd, [target[done:]], offset + done)
            if got <= 0:
                raise ImportFormatError(f"{self.name}: the file became shorter while it was read")
            done += got

    def _pread(self, size: int, offset: int) -> bytes:
        try:
            return os.pread(self._fd, size, offset)
        except OSError as error:
            raise TracekitError(f"cannot read {self.name}: {error.strerror}") from None


class Cursor:
    """Reads little-endian numbers and strings from bytes, and knows where it is."""

    def __init__(self, data: bytes, where: str) -> None:
        """``where`` names the piece of the file in error messages."""
        self._data = data
        self._at = 0
        self._where = where

    @property
    def at(self) -> int:
        """Bytes taken so far."""
        return self._at

    @property
    def left(self) -> int:
        """Bytes not yet taken."""
        return len(self._data) - self._at

    def take(self, size: int, what: str) -> bytes:
        """The next ``size`` bytes.

        :raises ImportFormatError: there are fewer
        """
        if size > self.left:
            raise ImportFormatError(
                f"{self._where}: {what} takes {size} bytes at byte {self._at}, {self.left} are left"
            )
        self._at += size
        return self._data[self._at - size : self._at]

    def number(self, size: int, what: str) -> int:
        """The next ``size`` bytes as an unsigned number."""
        return int.from_bytes(self.take(size, what), "little")

    def text(self, what: str) -> str:
        """The next bytes up to a NUL, which is taken too.

        :raises ImportFormatError: there is no NUL
        """
        end = self._data.find(b"\0", self._at)
        if end < 0:
            raise ImportFormatError(f"{self._where}: {what} at byte {self._at} does not end")
        piece = self._data[self._at : end]
        self._at = end + 1
        return piece.decode("utf-8", "replace")

    def expect(self, wanted: bytes, what: str) -> None:
        """Take ``wanted``.

        :raises ImportFormatError: something else is there
        """
        if self.take(len(wanted), what) != wanted:
            raise ImportFormatError(f"{self._where}: no {what} at byte {self._at - len(wanted)}")
