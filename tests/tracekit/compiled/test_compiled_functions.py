"""Functions as machine code: the same answers, kept between runs, and loaded without numba."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from tracekit.compiled import cache
from tracekit.compiled.function import CompiledFunction, told_of_builds
from tracekit.compiled.kernels import kernel, kernel_module


class Tables(NamedTuple):
    numbers: Any
    bytes: Any


def spread(tables: Any, factor: int, out: Any) -> tuple[int, int]:
    """The numbers that are odd, times a factor; how many, and their sum."""
    n, total = 0, 0
    for row in range(tables.numbers.shape[0]):
        for column in range(tables.numbers.shape[1]):
            if tables.bytes[row] & 1:
                out[n] = tables.numbers[row, column] * factor
                total += out[n]
                n += 1
    return n, total


def first(numbers: Any) -> int:
    return numbers[0] + 0


def clear(numbers: Any) -> None:
    for i in range(len(numbers)):
        numbers[i] = 0


def divided(a: int, b: int) -> int:
    return a // b


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Nothing is compiled yet, and nothing stays."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "kept"))
    monkeypatch.delenv("NUMBA_DISABLE_JIT", raising=False)
    cache.cache_of.cache_clear()
    yield tmp_path / "kept"
    cache.cache_of.cache_clear()


def made(function: Any) -> CompiledFunction:
    """A compiled function that no other test has loaded."""
    copy = type(function)(function.__code__, {"__builtins__": __builtins__}, function.__name__)
    compiled: CompiledFunction = kernel(copy, compile=True)
    return compiled


def test_it_answers_as_the_python_function_does() -> None:
    numbers = np.arange(12, dtype=np.int64).reshape(4, 3)
    tables = Tables(numbers, np.array([1, 2, 3, 4], np.uint8))
    out, plain = np.zeros(12, np.int64), np.zeros(12, np.int64)
    assert made(spread)(tables, 7, out) == spread(tables, 7, plain)
    assert np.array_equal(out, plain)


def test_each_type_of_array_has_code_of_its_own() -> None:
    compiled = made(first)
    for dtype in (np.int64, np.uint32, np.int8):
        assert compiled(np.array([-3 if dtype != np.uint32 else 3], dtype)) == (
            3 if dtype == np.uint32 else -3
        )
    assert compiled(np.arange(10, dtype=np.int64)[4::2]) == 4  # not contiguous


def test_a_function_may_return_nothing() -> None:
    numbers = np.ones(3, np.int64)
    assert made(clear)(numbers) is None
    assert not numbers.any()


def test_what_it_raises_is_an_error_that_names_it() -> None:
    with pytest.raises(RuntimeError, match=r"test_compiled_functions\.divided failed"):
        made(divided)(1, 0)


def test_a_number_of_more_than_64_bits_is_refused() -> None:
    compiled = made(divided)
    assert compiled(-(1 << 63), 2) == -(1 << 62)
    with pytest.raises(OverflowError):
        compiled(1 << 63, 2)


def test_the_second_process_loads_it_without_numba(tmp_path: Path) -> None:
    (tmp_path / "small.py").write_text("def twice(a):\n    return 2 * a\n")
    program = (
        "import sys; from small import twice; from tracekit.compiled.kernels import kernel\n"
        "print(kernel(twice, compile=True)(21), 'numba' in sys.modules)"
    )
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    said = [
        subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True)
        for _ in range(2)
    ]
    assert [s.stdout for s in said] == ["42 True\n", "42 False\n"], said[1].stderr


def test_what_is_kept_damaged_is_compiled_again(own_cache: Path) -> None:
    assert made(divided)(8, 2) == 4
    [kept] = own_cache.glob("**/*.code")
    whole = kept.read_bytes()
    for damage in (b"", whole[:-1], whole[:200], b"[]\n", b"\xff" + whole, whole[:-9] + bytes(9)):
        kept.write_bytes(damage)
        built: list[bool] = []
        with told_of_builds(built.append):
            assert made(divided)(9, 3) == 3
        assert built == [True, False]
        assert cache.Cache(Path(__file__).parent).read(kept) is not None
    with told_of_builds(built.append):
        assert made(divided)(9, 3) == 3
    assert built == [True, False], "whole again: nothing was to be compiled"


def test_where_nothing_can_be_kept_it_works_as_well(own_cache: Path) -> None:
    own_cache.write_text("not a folder")
    assert made(divided)(8, 2) == 4


def test_what_was_compiled_before_is_known_by_its_name() -> None:
    kept = cache.Cache(Path(__file__).parent)
    assert not kept.holds("test_compiled_functions.divided")
    made(divided)(8, 2)
    assert kept.holds("test_compiled_functions.divided")
    assert not kept.holds("test_compiled_functions.first")


def test_nothing_half_written_is_left(own_cache: Path) -> None:
    made(divided)(8, 2)
    assert [p.suffix for p in own_cache.glob("**/*") if p.is_file()] == [".code"]


def test_another_processor_has_another_file(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = cache.cache_of(Path(__file__).parent)
    mine = kept.path("f", "of x86-64 znver4")
    assert kept.path("f", "of x86-64 znver3") != mine
    monkeypatch.setenv("NUMBA_BOUNDSCHECK", "1")
    assert kept.path("f", "of x86-64 znver4") != mine


def test_a_compiled_module_has_functions_only() -> None:
    module = kernel_module("replay.engine.kernel", "frames", compiled=True)
    with pytest.raises(AttributeError, match="has no NULL"):
        module.NULL  # noqa: B018
    assert isinstance(module.run, CompiledFunction)


def test_jit_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")
    module = kernel_module("replay.engine.kernel", "frames", compiled=True)
    assert module is kernel_module("replay.engine.kernel", "frames", compiled=False)
    assert module.NULL < 0
