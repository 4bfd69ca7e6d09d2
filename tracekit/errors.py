"""What can be wrong with the input or the machine (never with the traced host: that is a finding).

::

    TracekitError                  one screen on stderr, exit status 2
     +-- TraceFormatError          not a trace of ours, or a schema we do not read
     +-- ImportFormatError         somebody else's recording that cannot be read: file, place, why
     +-- UnknownNameError          a check, event or option value we do not have; offers the closest
     +-- UsageError                arguments that contradict each other or have no unit
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = (
    "ImportFormatError",
    "TraceFormatError",
    "TracekitError",
    "UnknownNameError",
    "UsageError",
)


class TracekitError(Exception):
    """The input or the machine is at fault.  ``help`` says how to go on, if there is a way."""

    def __init__(self, message: str, *, help: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.help = help


class TraceFormatError(TracekitError):
    """Not a trace, or one written with a schema that this version does not read."""


class ImportFormatError(TracekitError):
    """A recording made by another tool that cannot be read; the message says where."""


class UsageError(TracekitError):
    """Arguments that cannot be meant."""


class UnknownNameError(TracekitError):
    """A name that is not in a closed list; ``help`` offers the closest ones."""

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        known = sorted(known)
        close = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(close)}?" if close else f"known: {', '.join(known[:12])}"
        super().__init__(f"there is no {kind} {name!r}", help=hint)
