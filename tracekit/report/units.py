"""Numbers as people read them: sizes, times, ranges, counts."""

from __future__ import annotations

import errno

__all__ = (
    "address_range",
    "errno_name",
    "extent",
    "length_of_time",
    "moment",
    "pages",
    "plural",
)

_SIZES = (
    (1 << 60, "EiB"),
    (1 << 50, "PiB"),
    (1 << 40, "TiB"),
    (1 << 30, "GiB"),
    (1 << 20, "MiB"),
    (1 << 10, "KiB"),
)
_PAGE = 4096


def extent(size: int) -> str:
    """``2 MiB``; always exact, so ``1.5 MiB`` but ``1028 KiB``."""
    for unit, name in _SIZES:
        if size >= unit:
            whole, rest = divmod(size, unit)
            if rest == 0:
                return f"{whole:,} {name}"
            if (size * 100) % unit == 0 and whole < 1024:
                return f"{size / unit:,.2f}".rstrip("0") + f" {name}"
    if size % 1024 == 0 and size:
        return f"{size >> 10:,} KiB"
    return f"{size:,} bytes"


def address_range(first: int, size: int) -> str:
    """``[0x7ff00000, +1 MiB)``."""
    return f"[{first:#x}, +{extent(size)})"


def pages(size: int) -> str:
    """``256 pages of 4 KiB``, or nothing for what is no whole number of pages."""
    if size % _PAGE or not size:
        return ""
    return f"{plural(size // _PAGE, 'page')} of 4 KiB"


def moment(ts_ns: int) -> str:
    """A time of the trace's clock, to the microsecond: ``12.904890 s``."""
    return f"{ts_ns // 1_000_000_000}.{ts_ns % 1_000_000_000 // 1000:06d} s"


def length_of_time(ns: int) -> str:
    """``41.207 ms``."""
    for unit, name in ((1_000_000_000, "s"), (1_000_000, "ms"), (1000, "us")):
        if ns >= unit:
            return f"{ns / unit:,.3f} {name}"
    return f"{ns} ns"


def plural(count: int, noun: str) -> str:
    """``1 error``, ``2 errors``."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def errno_name(number: int) -> str:
    """``EINVAL (22)``; takes the number with either sign."""
    number = abs(number)
    name = errno.errorcode.get(number)
    return f"{name} ({number})" if name else f"errno {number}"
