"""Colour, where the reader can see it; never the only signal."""

from __future__ import annotations

from tracekit.findings import Severity

__all__ = ("Paint",)

_SEVERITY = {Severity.ERROR: "1;31", Severity.WARNING: "1;33", Severity.NOTE: "1;36"}


class Paint:
    """Wraps text in ANSI colours, or leaves it alone."""

    def __init__(self, *, colour: bool) -> None:
        self._colour = colour

    def severity(self, severity: Severity, text: str) -> str:
        return self._wrap(_SEVERITY[severity], text)

    def strong(self, text: str) -> str:
        return self._wrap("1", text)

    def faint(self, text: str) -> str:
        return self._wrap("2", text)

    def missing(self, text: str) -> str:
        return self._wrap("31", text)

    def _wrap(self, codes: str, text: str) -> str:
        return f"\x1b[{codes}m{text}\x1b[0m" if self._colour else text
