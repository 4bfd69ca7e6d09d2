"""Decompression of foreign data, bounded: nobody's header makes us allocate what they like."""

from __future__ import annotations

import pyarrow as pa

from tracekit.errors import ImportFormatError

__all__ = ("compress", "decompress")


def decompress(name: str, data: bytes, raw_size: int, *, limit: int, where: str) -> bytes:
    """``data``, whose decompressed form has ``raw_size`` bytes, at most ``limit``.

    :raises ImportFormatError: it has another size or is damaged
    """
    if raw_size > limit:
        raise ImportFormatError(f"{where}: {raw_size} bytes decompressed are too many")
    if name != "zstd":
        raise ImportFormatError(f"{where}: marked as compressed in a file that says {name!r}")
    try:
        raw = pa.Codec("zstd").decompress(data, raw_size, asbytes=True)
    except (OSError, pa.ArrowException, ValueError):
        raise ImportFormatError(f"{where}: damaged zstd data") from None
    if len(raw) != raw_size:
        raise ImportFormatError(f"{where}: {len(raw)} bytes decompressed, not {raw_size}")
    return bytes(raw)


def compress(data: bytes) -> bytes:
    """``data`` as one zstd frame."""
    return bytes(pa.Codec("zstd").compress(data, asbytes=True))
