"""Compiled or not: as in the engine's kernel, whose boundary to numba this uses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

__all__ = ("entry", "jit", "spliced")

if (__package__ or "").endswith("_plain"):

    def jit(function: F) -> F:
        """Leave the function as it is."""
        return function

    entry = jit
    spliced = jit

else:
    import hashlib
    from pathlib import Path

    from replay.engine.kernel._jit import config, jit, numba, spliced
    from replay.engine.kernel.cache import cache_folder

    def entry(function: F) -> F:
        """Compile on first use and keep the machine code between runs: what Python calls.

        In a folder of this version of the sources, because numba looks only at the file that the
        function stands in.
        """
        if config.DISABLE_JIT:
            return function
        digest = hashlib.sha256()
        for path in sorted(Path(__file__).parent.glob("*.py")):
            digest.update(path.read_bytes())
        given = config.CACHE_DIR
        config.CACHE_DIR = str(cache_folder() / f"conformance-{digest.hexdigest()[:16]}")
        try:
            made: F = numba.njit(cache=True, _nrt=False)(function)
        except RuntimeError:  # nowhere to keep it
            made = numba.njit(_nrt=False)(function)
        finally:
            config.CACHE_DIR = given
        return made
