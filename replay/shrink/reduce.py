"""Delta debugging: the smallest set of things for which something still holds.

Zeller and Hildebrandt, "Simplifying and isolating failure-inducing input" (2002), in the form that
only takes away: chunks of half of what is left, then of a quarter, down to single ones, until no
single one can go.  No randomness: equal inputs give equal results.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

__all__ = ("reduced",)


def reduced(
    things: Sequence[int],
    holds: Callable[[Sequence[int]], bool],
    left: Callable[[Sequence[int]], None] = lambda some: None,
) -> list[int]:
    """A subset for which ``holds``, and for which it holds no more without any one of its things.

    ``holds`` is true of ``things``.  ``left`` is told what is left, whenever that changes.
    Late things are taken away first.
    """
    kept = list(things)
    size = max(len(kept) // 2, 1)
    while kept:
        shorter = _pass(kept, size, holds, left)
        if len(shorter) == len(kept) and size == 1:
            return kept
        if size > 1:
            size = max(min(size // 2, len(shorter) // 2), 1)
        kept = shorter
    return kept


def _pass(
    kept: list[int],
    size: int,
    holds: Callable[[Sequence[int]], bool],
    left: Callable[[Sequence[int]], None],
) -> list[int]:
    """Try to do without each chunk of ``size``, from the last one to the first."""
    end = len(kept)
    while end > 0:
        start = max(end - size, 0)
        rest = kept[:start] + kept[end:]
        if rest and holds(rest):
            kept = rest
            left(kept)
        end = start
    return kept
