"""Durations as people give them: a number and a unit."""

from __future__ import annotations

import re

from tracekit.errors import UsageError

__all__ = ("parse_duration",)

_UNITS = {"ns": 1, "us": 1000, "ms": 1_000_000, "s": 1_000_000_000, "min": 60_000_000_000,
          "h": 3_600_000_000_000}  # fmt: skip
_MAX_NS = 365 * 86_400 * 1_000_000_000


def parse_duration(text: str, option: str) -> int:
    """``1ms`` in nanoseconds.

    :raises UsageError: no number, no unit or another one, or more than a year
    """
    match = re.fullmatch(r"(\d{1,18}(?:\.\d{1,9})?)\s*([a-z]*)", text.strip())
    if match is None:
        raise UsageError(f"{option} {text!r} is not a duration", help="for example 1ms or 2.5s")
    number, unit = match.groups()
    if unit not in _UNITS:
        what = f"has no unit we know ({unit!r})" if unit else "has no unit"
        raise UsageError(f"{option} {text!r} {what}", help=f"units: {', '.join(_UNITS)}")
    from decimal import Decimal  # which nobody needs who asks for help

    ns = int(Decimal(number) * _UNITS[unit])
    if ns > _MAX_NS:
        raise UsageError(f"{option} {text!r} is more than a year")
    return ns
