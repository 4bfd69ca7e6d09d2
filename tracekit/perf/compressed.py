"""The compressed records of ``perf record -z``: one zstd stream, cut into records anywhere.

perf never ends that stream's last frame, so :class:`WholeBlocks` follows the frames' and blocks'
headers and ends it: what a cut-off stream still holds can be decompressed to its last whole block.
"""

from __future__ import annotations

import io
import os
import tempfile
from collections.abc import Iterator, Sequence

import pyarrow as pa

from tracekit.errors import ImportFormatError, TracekitError
from tracekit.ftrace.byte_source import RegularFile

__all__ = ("Spool", "WholeBlocks", "decompressed")

FRAME = b"\x28\xb5\x2f\xfd"
LAST_BLOCK = b"\x01\x00\x00"
"""An empty one that ends its frame."""
MAX_BLOCK = 128 << 10
MAX_RATIO = 1024
"""How much smaller compression can make records; some 17 were seen."""
STEP = 256 << 10


class WholeBlocks:
    """Takes pieces of a zstd stream, gives whole blocks, and in the end an ended frame.

    Frames lose their checksums: of a frame that never ended there is none.
    """

    def __init__(self, where: str) -> None:
        self._where = where
        self._held = b""
        self._in_frame = False
        self._checksum = False
        self._skip = 0

    def take(self, piece: bytes) -> bytes:
        """The whole headers and blocks up to the end of ``piece``.

        :raises ImportFormatError: that is no zstd stream
        """
        held = self._held + piece
        out = []
        at = 0
        while True:
            if self._skip:
                skipped = min(self._skip, len(held) - at)
                self._skip -= skipped
                at += skipped
                if self._skip:
                    break
            taken = self._block(held, at) if self._in_frame else self._header(held, at)
            if not taken:
                break
            out.append(taken)
            at += len(taken)
        self._held = held[at:]
        return b"".join(out)

    def end(self) -> bytes:
        """What ends the frame, if one is open."""
        ending = LAST_BLOCK if self._in_frame else b""
        self._in_frame = False
        return ending

    @property
    def cut(self) -> bool:
        """The stream ends inside a header or a block."""
        return bool(self._held or self._skip)

    def _header(self, data: bytes, at: int) -> bytes:
        if len(data) < at + 5:
            return b""
        if data[at : at + 4] != FRAME:
            raise ImportFormatError(f"{self._where}: compressed records that are no zstd stream")
        described = data[at + 4]
        single = described >> 5 & 1
        size = (single, 2, 4, 8)[described >> 6] + (0, 1, 2, 4)[described & 3] + 1 - single
        if len(data) < at + 5 + size:
            return b""
        self._checksum = bool(described & 4)
        self._in_frame = True
        plain = bytes([described & ~4])
        return data[at : at + 4] + plain + data[at + 5 : at + 5 + size]

    def _block(self, data: bytes, at: int) -> bytes:
        if len(data) < at + 3:
            return b""
        head = int.from_bytes(data[at : at + 3], "little")
        kind, size = head >> 1 & 3, head >> 3
        if kind == 3 or size > MAX_BLOCK:
            raise ImportFormatError(f"{self._where}: damaged zstd data")
        size = 1 if kind == 1 else size
        if len(data) < at + 3 + size:
            return b""
        if head & 1:
            self._in_frame = False
            self._skip = 4 if self._checksum else 0
        return data[at : at + 3 + size]


class _Pieces(io.RawIOBase):
    """Compressed records' content as a file."""

    def __init__(
        self, file: RegularFile, pieces: Sequence[tuple[int, int]], blocks: WholeBlocks
    ) -> None:
        self._file = file
        self._pieces = iter(pieces)
        self._blocks = blocks
        self._held = b""
        self.fault: ImportFormatError | None = None
        self.taken = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        while not self._held:
            piece = next(self._pieces, None)
            if piece is None or self.fault is not None:
                self._held = self._blocks.end()
                break
            try:
                self._held = self._blocks.take(self._file.read(*piece, "compressed records"))
            except ImportFormatError as error:
                self.fault = error
            self.taken += piece[1]
        size = len(self._held) if size < 0 else size
        given, self._held = self._held[:size], self._held[size:]
        return given


class Spool:
    """A file without a name, for what was decompressed: the system's temporary folder holds it."""

    def __init__(self) -> None:
        self.size = 0
        try:
            self._file = tempfile.TemporaryFile(prefix="tracekit-")  # noqa: SIM115
        except OSError as error:
            raise _no_room(error) from None

    def write(self, data: bytes) -> None:
        """Append.

        :raises TracekitError: no room
        """
        try:
            self._file.write(data)
            self._file.flush()
        except OSError as error:
            raise _no_room(error) from None
        self.size += len(data)

    def read_into(self, offset: int, target: memoryview) -> None:
        """Fill ``target`` with the bytes at ``offset``, which must all be there."""
        while len(target):
            done = os.preadv(self._file.fileno(), [target], offset)
            assert done > 0
            target, offset = target[done:], offset + done

    def close(self) -> None:
        """Give it back; a second time does nothing."""
        self._file.close()


def decompressed(
    file: RegularFile, pieces: Sequence[tuple[int, int]], where: str
) -> Iterator[bytes | ImportFormatError]:
    """What the compressed records at ``pieces`` hold, piece by piece; at the end what is wrong.

    Memory: some pieces and zstd's window, which zstd itself bounds to 128 MiB.
    """
    blocks = WholeBlocks(where)
    source = _Pieces(file, pieces, blocks)
    done = 0
    try:
        with pa.CompressedInputStream(pa.PythonFile(source, "r"), "zstd") as stream:
            while data := stream.read(STEP):
                done += len(data)
                if done > source.taken * MAX_RATIO + STEP:
                    yield ImportFormatError(f"{where}: {source.taken} bytes cannot hold {done}")
                    return
                yield data
    except (OSError, pa.ArrowException, ValueError):
        yield ImportFormatError(f"{where}: damaged zstd data")
        return
    if source.fault is not None:
        yield source.fault
    elif blocks.cut:
        yield ImportFormatError(f"{where}: compressed records end inside a block; is it cut off?")


def _no_room(error: OSError) -> TracekitError:
    return TracekitError(
        f"no room for decompressed records in {tempfile.gettempdir()}: {error.strerror}",
        help="the variable TMPDIR names another folder",
    )
