"""Where commands take :func:`~tracekit.duration.parse_duration` from."""

from __future__ import annotations

from tracekit.duration import parse_duration

__all__ = ("parse_duration",)
