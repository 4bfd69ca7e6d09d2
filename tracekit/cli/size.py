"""Sizes as people give them: a number and a unit."""

from __future__ import annotations

import re

from tracekit.errors import UsageError

__all__ = ("parse_size",)

_UNITS = {"k": 10, "m": 20, "g": 30, "t": 40}


def parse_size(text: str, option: str) -> int:
    """``16M`` in bytes.

    :raises UsageError: no number, no unit or another one, or nothing
    """
    match = re.fullmatch(r"(\d{1,9}(?:\.\d{1,3})?)\s*([kKmMgGtT])(?:i?[bB])?", text.strip())
    if match is None:
        raise UsageError(f"{option} {text!r} is not a size", help="for example 512K, 16M or 2G")
    size = int(float(match[1]) * (1 << _UNITS[match[2].lower()]))
    if not size:
        raise UsageError(f"{option} {text!r} is nothing")
    return size
