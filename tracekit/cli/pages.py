"""The checks' pages, from the checks' own docstrings."""

from __future__ import annotations

from tracekit.errors import UnknownNameError
from tracekit.report.page import CheckPage, parse_page

__all__ = ("all_pages", "code_of", "needs_of")


def all_pages() -> dict[str, CheckPage]:
    """Every check's page, by code, in the order of the codes."""
    from replay.checks import CHECKS

    return {
        code: parse_page(
            code=check.code, name=check.name, severity=check.severity, docstring=check.__doc__ or ""
        )
        for code, check in CHECKS.items()
    }


def needs_of() -> dict[str, tuple[tuple[str, ...], ...]]:
    """By code, what a check needs: each need is one or more event types, of which one suffices."""
    from replay.checks import CHECKS

    return {
        code: tuple(
            tuple(e.name_ for e in need) if isinstance(need, tuple) else (need.name_,)
            for need in check.needs
        )
        for code, check in CHECKS.items()
    }


def code_of(name: str) -> str:
    """The code of a check given by code or name, in any case.

    :raises UnknownNameError: there is no such check
    """
    from replay.checks import CHECKS

    by_name = {check.name: code for code, check in CHECKS.items()}
    wanted = name.strip()
    if wanted.upper() in CHECKS:
        return wanted.upper()
    if wanted.lower() in by_name:
        return by_name[wanted.lower()]
    raise UnknownNameError("check", name, [*CHECKS, *by_name])
