"""Requests to an object store, several at once: each takes long and costs little."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

__all__ = ("each",)

_Item = TypeVar("_Item")
_Made = TypeVar("_Made")
_AT_ONCE = 16


def each(remote: bool, do: Callable[[_Item], _Made], items: Iterable[_Item]) -> list[_Made]:
    """``do`` of each item, in their order; several at once if it asks another machine."""
    if not remote:
        return [do(item) for item in items]
    with ThreadPoolExecutor(_AT_ONCE) as threads:
        return list(threads.map(do, items))
