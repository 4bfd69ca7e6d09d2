"""What a check is, and the list of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar, Protocol, TypeVar

from tracekit.events import Event
from tracekit.findings import Finding, Judged, Severity

if TYPE_CHECKING:
    from replay.checks.violations import Violations

__all__ = ("CHECKS", "Check", "Need", "check")

Need = type[Event] | tuple[type[Event], ...]
"""An event type without which a check cannot judge, or several of which one is enough."""


class Check(Protocol):
    """One finding code.  The class's docstring is its page.

    A check never sees events: it turns the engine's violation records of the kind that it owns into
    findings, and the engine's counters into what could be judged.
    """

    code: ClassVar[str]
    name: ClassVar[str]
    severity: ClassVar[Severity]
    needs: ClassVar[tuple[Need, ...]]

    def findings(self, violations: Violations) -> Iterator[Finding]:
        """Findings of this code, one a cause."""

    def judged(self, violations: Violations) -> Judged:
        """How many of what the check judges could be decided, and why the others could not."""


C = TypeVar("C", bound=type[Check])

CHECKS: dict[str, type[Check]] = {}
"""Every check by its code, in the order of the codes."""


def check(cls: C) -> C:
    """Register a check.

    :raises ValueError: its code is taken, or it has no page
    """
    if cls.code in CHECKS or not cls.__doc__:
        raise ValueError(f"{cls.__name__}: code {cls.code} is taken, or there is no docstring")
    CHECKS[cls.code] = cls
    for code in sorted(CHECKS):  # by code, however they were imported
        CHECKS[code] = CHECKS.pop(code)
    return cls
