"""Decompression of foreign data, bounded: nobody's header makes us allocate what they like."""

from __future__ import annotations

import zlib

import pyarrow as pa

from tracekit.errors import ImportFormatError

__all__ = ("COMPRESSIONS", "compress", "decompress")

COMPRESSIONS = ("none", "zstd", "zlib")
"""What is read, by the names in trace.dat."""


def decompress(name: str, data: bytes, raw_size: int, *, limit: int, where: str) -> bytes:
    """``data``, whose decompressed form has ``raw_size`` bytes, at most ``limit``.

    :raises ImportFormatError: it has another size or is damaged
    """
    if raw_size > limit:
        raise ImportFormatError(f"{where}: {raw_size} bytes decompressed are too many")
    if name not in ("zstd", "zlib"):
        raise ImportFormatError(f"{where}: marked as compressed in a file that says {name!r}")
    try:
        if name == "zlib":
            raw = zlib.decompressobj().decompress(data, raw_size + 1)
        else:
            raw = bytes(pa.Codec("zstd").decompress(data, raw_size, asbytes=True))
    except (OSError, pa.ArrowException, ValueError, zlib.error):
        raise ImportFormatError(f"{where}: damaged {name} data") from None
    if len(raw) != raw_size:
        raise ImportFormatError(f"{where}: {len(raw)} bytes decompressed, not {raw_size}")
    return raw


def compress(data: bytes, name: str = "zstd") -> bytes:
    """``data`` as one zstd frame, or one zlib stream."""
    if name == "zlib":
        return zlib.compress(data)
    return bytes(pa.Codec("zstd").compress(data, asbytes=True))
