"""Compiled or not: the one untyped boundary between the socket engine and numba.

As part of ``replay.linger.kernel_plain`` the decorators do nothing and numba is not imported.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

F = TypeVar("F", bound=Callable[..., Any])

__all__ = ("entry", "jit")

if (__package__ or "").endswith("_plain"):

    def jit(function: F) -> F:
        """Leave the function as it is."""
        return function

    entry = jit

else:
    import importlib

    from replay.engine.kernel.cache import cache_folder

    numba: Any = importlib.import_module("numba")
    config: Any = importlib.import_module("numba.core.config")
    types: Any = importlib.import_module("numba.core.types")

    def jit(function: F) -> F:
        """Compile on first use, for callers inside the kernel only.

        Inlined, since to hand over all tables takes longer than most functions do.  Without
        reference counting (nothing here owns memory), and once for all integers: numba would
        otherwise compile a function again for each constant that it is called with.
        """
        if config.DISABLE_JIT:
            return function
        dispatcher: Any = numba.njit(
            no_cpython_wrapper=True, no_cfunc_wrapper=True, _nrt=False, forceinline=True
        )(function)
        template = dispatcher.get_call_template
        dispatcher.get_call_template = lambda args, kws: template(
            tuple(types.unliteral(a) for a in args), kws
        )
        made: F = dispatcher
        return made

    def entry(function: F) -> F:
        """Compile on first use and keep the machine code between runs: what Python calls."""
        if config.DISABLE_JIT:
            return function
        digest = hashlib.sha256()
        for path in sorted(Path(__file__).parent.glob("*.py")):
            digest.update(path.read_bytes())
        given = config.CACHE_DIR
        folder = cache_folder().parent
        config.CACHE_DIR = str(folder / f"linger-{digest.hexdigest()[:16]}")
        try:
            made: F = numba.njit(cache=True, _nrt=False)(function)
        except RuntimeError:  # nowhere to keep it
            made = numba.njit(_nrt=False)(function)
        finally:
            config.CACHE_DIR = given
        return made
