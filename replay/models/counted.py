# SPDX-License-Identifier: Apache-2.0
"""A number and its noun, for every ``repr()``."""

__all__ = ("counted",)


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """``1 entry``, ``2 entries``."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"
