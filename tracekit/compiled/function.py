"""Calls a compiled function as if it were the Python function that it was made of."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from tracekit.compiled.cache import Cache
from tracekit.compiled.machine_code import load, processor

__all__ = ("CompiledFunction", "told_of_builds")

Result = int | tuple[int, ...] | None
_RETURNED = (0, -2)  # numba's status of a value, and of None
_LAYOUT = 0x501  # contiguous as in C or not, aligned, to be written to: what numba's types tell
_ROOM = 8  # integers that may be returned

_tell: list[Callable[[bool], None]] = []


@contextmanager
def told_of_builds(tell: Callable[[bool], None]) -> Iterator[None]:
    """Have it told when something begins to be compiled, and when that is over: it takes a while,
    once."""
    _tell.append(tell)
    try:
        yield
    finally:
        _tell.remove(tell)


class CompiledFunction:
    """A function of arrays, tuples of arrays and integers; made when it is first called.

    ``dispatcher``: numba's, asked for only if no earlier run left the machine code.
    """

    def __init__(self, name: str, cache: Cache, dispatcher: Callable[[], Any]) -> None:
        self._name = name
        self._cache = cache
        self._dispatcher = dispatcher
        self._made: dict[tuple[Any, ...], tuple[Callable[..., int], int]] = {}

    def __call__(self, *arguments: Any) -> Any:
        """Call it.

        :raises OverflowError: an integer has more than 64 bits
        :raises RuntimeError: the function raised something; compiled code does not say what
        """
        kinds: list[Any] = []
        words: list[int] = []
        for argument in arguments:
            _flatten(argument, kinds, words)
        key = tuple(kinds)
        made = self._made.get(key)
        if made is None:
            made = self._made[key] = self._find(key, len(words), arguments)
        function, results = made
        returned = (ctypes.c_int64 * _ROOM)()
        raised = (ctypes.c_int64 * 1)()
        status = function(ctypes.addressof(returned), ctypes.addressof(raised), *words)
        if status not in _RETURNED:
            raise RuntimeError(f"the compiled {self._name} failed with status {status}")
        if results == 0:
            return None
        return returned[0] if results == 1 else tuple(returned[:results])

    def _find(
        self, key: tuple[Any, ...], words: int, arguments: tuple[Any, ...]
    ) -> tuple[Callable[..., int], int]:
        """Load the machine code for such arguments, or make it."""
        path = self._cache.path(self._name, f"{key}\0{processor()}")
        found = self._cache.read(path)
        if found is None:
            found = self._build(arguments)
            self._cache.write(path, *found)
        about, code = found
        return load(code, about["symbol"], 2 + words), about["results"]

    def _build(self, arguments: tuple[Any, ...]) -> tuple[dict[str, Any], bytes]:
        for tell in _tell:
            tell(True)
        from tracekit.compiled.build import machine_code

        symbol, results, code = machine_code(self._dispatcher(), arguments)
        for tell in _tell:
            tell(False)
        return {"symbol": symbol, "results": results}, code


def _flatten(argument: Any, kinds: list[Any], words: list[int]) -> None:
    """An argument's type, and the words in which numba's calling convention hands it over.

    An array: two owners, of which there are none; items, bytes of one, address, shape, strides
    (numba/core/datamodel/models.py, ArrayModel).
    """
    if isinstance(argument, np.ndarray):
        kinds.append((argument.dtype.str, argument.ndim, argument.flags.num & _LAYOUT))
        address = argument.__array_interface__["data"][0]
        words += (0, 0, argument.size, argument.itemsize, address)
        words += argument.shape
        words += argument.strides
    elif isinstance(argument, tuple):
        kinds.append((type(argument).__name__, len(argument)))
        for part in argument:
            _flatten(part, kinds, words)
    else:
        number = int(argument)
        if not -(1 << 63) <= number < 1 << 63:
            raise OverflowError(f"{number} has more than 64 bits")
        kinds.append("i")
        words.append(number)
