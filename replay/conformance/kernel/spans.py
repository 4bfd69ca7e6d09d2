"""Ends of ranges whose addresses and sizes come from a trace: nothing here overflows."""

from __future__ import annotations

from typing import Any

from tracekit.compiled.kernels import jit

from .layout import C_ADDR, C_SIZE, NULL, PAGE, TOP

__all__ = ("covers", "end_of", "end_page", "first_page", "minus", "plus")


@jit
def plus(a: int, b: int) -> int:
    """``a + b``, or the nearest number that there is."""
    if b > 0 and a > TOP - b:
        return TOP
    if b < 0 and a < NULL - b:
        return NULL
    return a + b


@jit
def minus(a: int, b: int) -> int:
    """``a - b``, or the nearest number that there is."""
    if b > 0 and a < NULL + b:
        return NULL
    if b < 0 and a > TOP + b:
        return TOP
    return a - b


@jit
def end_of(calls: Any, row: int) -> int:
    """The first byte behind a call's range; a size of no sense is none."""
    if calls[row, C_SIZE] <= 0:
        return calls[row, C_ADDR]
    return plus(calls[row, C_ADDR], calls[row, C_SIZE])


@jit
def first_page(calls: Any, row: int) -> int:
    """The page that a call's range begins in; below 0: the address is none of a guest."""
    return calls[row, C_ADDR] // PAGE


@jit
def end_page(calls: Any, row: int) -> int:
    """The first whole page behind a call's range."""
    return end_of(calls, row) // PAGE


@jit
def covers(calls: Any, outer: int, inner: int) -> bool:
    """Whether the range of one call lies within that of another."""
    starts = calls[inner, C_ADDR] >= calls[outer, C_ADDR]
    return starts and end_of(calls, inner) <= end_of(calls, outer)
