"""Compiled or not: the one untyped boundary between the engine and numba.

Loaded as part of ``replay.engine.kernel_plain`` the decorators do nothing, and numba is not even
imported: a trace of some thousand events is judged before numba would have loaded.
"""

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
    import importlib

    numba: Any = importlib.import_module("numba")
    config: Any = importlib.import_module("numba.core.config")
    types: Any = importlib.import_module("numba.core.types")

    from .cache import cache_folder

    def jit(function: F) -> F:
        """Compile on first use, for callers inside the kernel only.

        Without reference counting (nothing here owns memory), and once for all integers: numba
        would otherwise compile a function again for each constant that it is called with.
        """
        if config.DISABLE_JIT:
            return function
        dispatcher: Any = numba.njit(no_cpython_wrapper=True, no_cfunc_wrapper=True, _nrt=False)(
            function
        )
        template = dispatcher.get_call_template
        dispatcher.get_call_template = lambda args, kws: template(
            tuple(types.unliteral(a) for a in args), kws
        )
        made: F = dispatcher
        return made

    def entry(function: F) -> F:
        """Compile on first use and keep the machine code between runs: what Python calls.

        It lets go of the interpreter: another reader of the same events runs beside it.
        """
        if config.DISABLE_JIT:
            return function
        given = config.CACHE_DIR
        config.CACHE_DIR = str(cache_folder())
        try:
            made: F = numba.njit(cache=True, nogil=True, _nrt=False)(function)
        except RuntimeError:  # nowhere to keep it
            made = numba.njit(nogil=True, _nrt=False)(function)
        finally:
            config.CACHE_DIR = given
        return made

    def spliced(function: F) -> F:
        """For a function that is called at one place: it becomes part of its caller.

        Whoever hands all of the State over pays for that with each call.
        """
        if config.DISABLE_JIT:
            return function
        made: F = numba.njit(inline="always", _nrt=False)(function)
        return made
