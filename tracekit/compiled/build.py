"""Python functions -> object code: the only place that imports numba."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

__all__ = ("INLINED", "SPLICED", "compiler", "machine_code")

numba: Any = importlib.import_module("numba")
types: Any = importlib.import_module("numba.core.types")

# Nothing in a kernel owns memory: no reference counting.  Nobody calls it by way of Python.
_OPTIONS = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True, "_nrt": False}
INLINED = {"forceinline": True}
SPLICED = {"inline": "always"}


def compiler(function: Callable[..., Any], **options: Any) -> Any:
    """numba's dispatcher of a function of a kernel, once for all integers.

    numba would otherwise compile a function again for each constant that it is called with.
    """
    dispatcher: Any = numba.njit(**_OPTIONS, **options)(function)
    if "inline" not in options:
        template = dispatcher.get_call_template
        dispatcher.get_call_template = lambda args, kws: template(
            tuple(types.unliteral(a) for a in args), kws
        )
    return dispatcher


def machine_code(dispatcher: Any, arguments: tuple[Any, ...]) -> tuple[str, int, bytes]:
    """Compile for such arguments: the function's symbol, how many integers it returns, the code.

    :raises TypeError: it returns something else
    """
    given = tuple(types.int64 if _is_number(a) else numba.typeof(a) for a in arguments)
    dispatcher.compile(given)
    made = dispatcher.overloads[given]
    returned = types.unliteral(made.signature.return_type)
    if returned == types.none:
        results = 0
    elif returned == types.int64:
        results = 1
    elif isinstance(returned, types.UniTuple) and returned.dtype == types.int64:
        results = len(returned)
    else:
        raise TypeError(f"{made.fndesc.qualname} returns {returned}, which no entry may")
    symbol = made.fndesc.mangled_name
    return symbol, results, _alone(made.library, symbol)


def _alone(library: Any, symbol: str) -> bytes:
    """Object code in which nobody but ``symbol`` can be called from elsewhere.

    That lets LLVM drop what its callees are handed and do not use: of each array numba hands over
    seven words and more, and most functions of a kernel are handed all of its state.
    """
    llvm: Any = importlib.import_module("llvmlite.binding")
    module = llvm.parse_bitcode(library._final_module.as_bitcode())
    for defined in (*module.functions, *module.global_variables):
        if not defined.is_declaration and defined.name != symbol:
            defined.linkage = "internal"
    machine = library.codegen._tm
    tuning = llvm.create_pipeline_tuning_options(speed_level=3)
    tuning.loop_vectorization = tuning.slp_vectorization = True
    passes = llvm.create_pass_builder(machine, tuning)
    passes.getModulePassManager().run(module, passes)
    return bytes(machine.emit_object(module))


def _is_number(argument: Any) -> bool:
    return isinstance(argument, int)
