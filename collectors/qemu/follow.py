"""Copies what a QEMU writes, while it writes: a log, or simpletrace; from a file or a named pipe.

The copy ends with a whole line, or a whole record, whenever it ends.  A pipe ends with its writer;
a file never does.
"""

from __future__ import annotations

import os
import select
import stat
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tracekit.errors import ImportFormatError, TracekitError

__all__ = ("Followed", "follow")

PIECE = 1 << 18
WAIT_S = 0.2
MAX_RECORD = 1 << 20
_SIMPLE = struct.pack("=QQ", (1 << 64) - 1, 0xF2B177CB0AA429B4)
_HEADER = 24


@dataclass(kw_only=True)
class Followed:
    """What was copied.  ``events``: lines, or records; ``again``: how often the file was begun
    anew; ``cut``: bytes in the end that were no whole line or record."""

    events: int = 0
    bytes: int = 0
    again: int = 0
    cut: int = 0
    format: str = "log"


def follow(source: Path, out: Path, stop: Callable[[], bool]) -> Followed:
    """Copy ``source`` to the new file ``out`` until ``stop()``, or until a pipe's writer is gone.

    :raises TracekitError: one cannot be opened, read or written
    :raises ImportFormatError: a record of simpletrace is longer than any can be
    """
    told = Followed()
    try:
        from_fd = os.open(source, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as why:
        raise TracekitError(f"cannot open {source}: {why.strerror}") from None
    try:
        mode = os.fstat(from_fd).st_mode
        if not (stat.S_ISFIFO(mode) or stat.S_ISREG(mode)):
            raise TracekitError(f"{source} is neither a file nor a named pipe")
        to_fd = os.open(out, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    except OSError as why:
        os.close(from_fd)
        raise TracekitError(f"cannot make {out}: {why.strerror}") from None
    except TracekitError:
        os.close(from_fd)
        raise
    try:
        _copy(from_fd, to_fd, stop, told, pipe=stat.S_ISFIFO(mode))
    except OSError as why:
        raise TracekitError(f"cannot copy {source} to {out}: {why.strerror}") from None
    finally:
        os.close(from_fd)
        os.close(to_fd)
    return told


def _copy(
    from_fd: int, to_fd: int, stop: Callable[[], bool], told: Followed, *, pipe: bool
) -> None:
    rest = b""
    begun = False
    stopping = False
    while True:
        piece = _read(from_fd, told, pipe=pipe)
        if piece:
            rest += piece
            if not begun and (len(rest) >= _HEADER or not _SIMPLE.startswith(rest[:16])):
                begun = True
                told.format = "simple" if rest.startswith(_SIMPLE) else "log"
                if told.format == "simple":
                    rest = _written(to_fd, rest, _HEADER, told)
            if begun:
                rest = _written(to_fd, rest, _whole(rest, told), told)
            continue
        if stopping or (pipe and piece == b"" and told.bytes + len(rest) > 0):
            break
        # Once more after the end was asked for: what was written until then belongs to it.
        stopping = stop()
        if not stopping:
            time.sleep(WAIT_S)
    told.cut = len(rest)


def _read(from_fd: int, told: Followed, *, pipe: bool) -> bytes | None:
    """The next bytes; empty at the end, ``None`` where a pipe's writer has nothing to say now."""
    if pipe:
        ready, _, _ = select.select([from_fd], [], [], WAIT_S)
        if not ready:
            return None
        try:
            return os.read(from_fd, PIECE)
        except BlockingIOError:
            return None
    if os.fstat(from_fd).st_size < os.lseek(from_fd, 0, os.SEEK_CUR):
        told.again += 1  # truncated: by a log rotation, or a new QEMU
        os.lseek(from_fd, 0, os.SEEK_SET)
    return os.read(from_fd, PIECE)


def _written(to_fd: int, rest: bytes, size: int, told: Followed) -> bytes:
    """Write the first ``size`` bytes; what is left."""
    view = memoryview(rest)[:size]
    while view:
        view = view[os.write(to_fd, view) :]
    told.bytes += size
    return rest[size:]


def _whole(data: bytes, told: Followed) -> int:
    """Bytes of ``data`` up to the end of its last whole line or record, which are counted."""
    if told.format == "log":
        end = data.rfind(b"\n") + 1
        told.events += data.count(b"\n", 0, end)
        return end
    at = 0
    while (size := _record_size(data, at)) and at + size <= len(data):
        told.events += data[at] == 1
        at += size
    return at


def _record_size(data: bytes, at: int) -> int:
    """Bytes of the record of simpletrace that begins at ``at``; 0: not enough is there to tell.

    :raises ImportFormatError: there is no such record
    """
    if len(data) - at < 8:
        return 0
    (kind,) = struct.unpack_from("=Q", data, at)
    if kind == 0:
        if len(data) - at < 20:
            return 0
        size = 20 + int(struct.unpack_from("=I", data, at + 16)[0])
    elif kind == 1:
        if len(data) - at < 28:
            return 0
        size = 8 + int(struct.unpack_from("=I", data, at + 24)[0])
    else:
        raise ImportFormatError(f"a record of simpletrace of an unknown kind, {kind}")
    if not 20 <= size <= MAX_RECORD:
        raise ImportFormatError(f"a record of simpletrace of {size} bytes")
    return size
