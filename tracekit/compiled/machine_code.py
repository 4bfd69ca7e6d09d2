"""Object code -> something to call: LLVM's own loader, without the compiler around it."""

from __future__ import annotations

import ctypes
import functools
import importlib
from collections.abc import Callable
from typing import Any

__all__ = ("load", "processor")

_KEPT: list[Any] = []
"""LLVM's owners of loaded code, which is never unloaded."""


@functools.cache
def _llvm() -> Any:
    llvm: Any = importlib.import_module("llvmlite.binding")
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm


@functools.cache
def processor() -> str:
    """What machine code must have been made for to run here."""
    llvm = _llvm()
    features = llvm.get_host_cpu_features()
    have = ",".join(sorted(name for name, there in features.items() if there))
    return f"{llvm.get_process_triple()} {llvm.get_host_cpu_name()} {have}"


def load(code: bytes, symbol: str, words: int) -> Callable[..., int]:
    """The function ``symbol`` of an ELF object: ``words`` arguments of 64 bits, a status of 32.

    It lets go of the interpreter while it runs.

    :raises RuntimeError: no such object, or it needs what is not there
    """
    llvm = _llvm()
    machine = llvm.Target.from_default_triple().create_target_machine()
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    address = engine.get_function_address(symbol)
    if not address:
        raise RuntimeError(f"the compiled kernel has no function {symbol}")
    _KEPT.append(engine)
    return ctypes.CFUNCTYPE(ctypes.c_int32, *[ctypes.c_int64] * words)(address)
