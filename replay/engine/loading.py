"""Kernels: folders of modules that numba compiles, and that are plain Python as well."""

from __future__ import annotations

import importlib
import sys
from types import ModuleType

__all__ = ("kernel_module",)


def kernel_module(package: str, name: str, *, compiled: bool) -> ModuleType:
    """A module of a kernel, compiled by numba or as plain Python.

    The plain one is the same folder under another package name, so that its modules find each
    other.
    """
    if compiled:
        return importlib.import_module(f"{package}.{name}")
    plain = f"{package}_plain"
    if plain not in sys.modules:
        module = ModuleType(plain)
        module.__path__ = list(importlib.import_module(package).__path__)
        module.__package__ = plain
        sys.modules[plain] = module
    return importlib.import_module(f"{plain}.{name}")
