"""How bad a finding is: apart from the findings, as every command line asks for it."""

from __future__ import annotations

from enum import Enum

__all__ = ("Severity",)


class Severity(Enum):
    """How bad: an error is a broken promise, a warning is doubt or a near miss."""

    ERROR = "error"
    WARNING = "warning"
    NOTE = "note"

    @property
    def rank(self) -> int:
        """0 for the worst; sorts a report."""
        return ("error", "warning", "note").index(self.value)
