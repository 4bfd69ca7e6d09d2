"""Kernels: plain functions over arrays and integers, called as they are or as machine code.

A kernel is one function, or a folder of modules whose functions call each other.  As they stand
they are plain Python, and a small input is done before machine code would have been loaded.  To
compile a folder, its modules are imported a second time under another name, and there the
decorators below are numba's.  ``NUMBA_DISABLE_JIT=1`` runs everything as Python.
"""

from __future__ import annotations

import functools
import importlib
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import numpy as np

from tracekit.compiled.cache import cache_of
from tracekit.compiled.function import CompiledFunction

__all__ = (
    "CompiledModule",
    "compiled_before",
    "entry",
    "inlined",
    "jit",
    "kernel",
    "kernel_module",
    "spliced",
)

F = TypeVar("F", bound=Callable[..., Any])
_TWIN = "_compiled"


def jit(function: F) -> F:
    """For callers inside the kernel."""
    return _decorated(function)


entry = jit
"""For callers in Python: :func:`kernel_module`."""


def inlined(function: F) -> F:
    """For a small function that is handed a large state: LLVM makes it part of its callers."""
    return _decorated(function, "INLINED")


def spliced(function: F) -> F:
    """For a function that is called at one place: it becomes part of its caller.

    Whoever hands all of the State over pays for that with each call.
    """
    return _decorated(function, "SPLICED")


def kernel(function: F, *, compile: bool) -> F:
    """A function that calls no other of ours, as machine code or as plain Python.

    Its numbers must mean the same in 64 bits as in Python's endless ones.
    """
    made: F = _compiled_kernel(function) if compile and not _disabled() else _plain(function)
    return made


def kernel_module(package: str, name: str, *, compiled: bool) -> Any:
    """A module of a kernel: with ``compiled`` its functions are called as machine code."""
    if not compiled or _disabled():
        return importlib.import_module(f"{package}.{name}")
    return _compiled_module(package, name)


def compiled_before(package: str, name: str) -> bool:
    """True if an earlier run left machine code of a function of this version of the kernel."""
    return cache_of(_folder(package)).holds(name)


class CompiledModule:
    """The entries of a module of a kernel, by name."""

    def __init__(self, package: str, name: str) -> None:
        self._package = package
        self._name = name

    def __getattr__(self, function: str) -> CompiledFunction:
        if function.startswith("_") or function.isupper():
            raise AttributeError(f"{self._package}.{self._name} as machine code has no {function}")

        def dispatcher() -> Any:
            return getattr(
                importlib.import_module(f"{_twin(self._package)}.{self._name}"), function
            )

        cache = cache_of(_folder(self._package))
        made = CompiledFunction(f"{self._name}.{function}", cache, dispatcher)
        setattr(self, function, made)
        return made


@functools.cache
def _compiled_module(package: str, name: str) -> CompiledModule:
    return CompiledModule(package, name)


@functools.cache
def _compiled_kernel(function: Callable[..., Any]) -> Any:
    def dispatcher() -> Any:
        from tracekit.compiled.build import compiler

        return compiler(function)

    source = Path(function.__code__.co_filename)
    name = f"{source.stem}.{function.__name__}"
    return CompiledFunction(name, cache_of(source.parent), dispatcher)


def _plain(function: Callable[..., Any]) -> Any:
    def run(*arguments: Any) -> Any:
        # Items of a memoryview are Python numbers: five times as fast as an array's.
        return function(*(a.data if isinstance(a, np.ndarray) else a for a in arguments))

    return run


def _decorated(function: F, options: str = "") -> F:
    if f"{_TWIN}." not in function.__module__:
        return function
    from tracekit.compiled import build

    made: F = build.compiler(function, **(getattr(build, options) if options else {}))
    return made


def _twin(package: str) -> str:
    """Have the package's modules importable under another name as well."""
    name = f"{package}{_TWIN}"
    if name not in sys.modules:
        module = ModuleType(name)
        module.__path__ = [str(_folder(package))]
        module.__package__ = name
        sys.modules[name] = module
    return name


def _folder(package: str) -> Path:
    return Path(importlib.import_module(package).__path__[0])


def _disabled() -> bool:
    return os.environ.get("NUMBA_DISABLE_JIT", "0") not in ("", "0")
