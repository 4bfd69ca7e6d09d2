"""A checksum of the Parquet footer.

Parquet has checksums for its pages and none for its footer, where one flipped bit renames a column
or moves a row count, and the file still opens.  So a mark and a CRC-32 stand right before the
footer, in bytes that no offset points to and that every Parquet reader skips.
"""

from __future__ import annotations

import os
import zlib
from pathlib import Path
from typing import BinaryIO, cast

from tracekit.store.location import Place

__all__ = ("footer_is_intact", "seal_footer")

_MARK = b"TKFOOTER"
_TAIL = 8
"""The footer's length, and ``PAR1``."""
_SEAL = len(_MARK) + 4
_MAX_FOOTER = 256 << 20


def seal_footer(path: Path) -> None:
    """Put the checksum into a Parquet file that is complete."""
    with path.open("r+b") as file:
        end = file.seek(0, os.SEEK_END)
        footer = _footer(file, end)
        assert footer is not None, "just written, and no Parquet file"
        file.seek(end - _TAIL)
        tail = file.read(_TAIL)
        file.seek(end - _TAIL - len(footer))
        file.write(_MARK + zlib.crc32(footer).to_bytes(4, "little") + footer + tail)


def footer_is_intact(path: Place) -> bool:
    """Whether the checksum is there and right."""
    with path.open("rb") as opened:
        file = cast(BinaryIO, opened)
        end = file.seek(0, os.SEEK_END)
        footer = _footer(file, end)
        if footer is None or end < _TAIL + len(footer) + _SEAL:
            return False
        file.seek(end - _TAIL - len(footer) - _SEAL)
        return file.read(_SEAL) == _MARK + zlib.crc32(footer).to_bytes(4, "little")


def _footer(file: BinaryIO, end: int) -> bytes | None:
    if end < 4 + _TAIL:
        return None
    file.seek(end - _TAIL)
    tail = file.read(_TAIL)
    size = int.from_bytes(tail[:4], "little")
    if tail[4:] != b"PAR1" or size > min(_MAX_FOOTER, end - 4 - _TAIL):
        return None
    file.seek(end - _TAIL - size)
    return file.read(size)
