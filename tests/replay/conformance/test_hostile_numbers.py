"""Any numbers in a trace: no overflow, no exception, and both ways to run say the same."""

from __future__ import annotations

import random
import warnings
from typing import Any

import numpy as np
import pytest

from replay.conformance.kernel import layout as K
from replay.conformance.listeners import Listeners
from replay.conformance.machines import Machines
from replay.conformance.matcher import GENERATIONS, Matcher

TOP = K.TOP
EDGES = (0, 1, 4095, 4096, 8192, 1 << 20, 1 << 32, 1 << 47, TOP - 4095, TOP, K.NULL, K.NULL + 1, -1)
FULL_TABLE = 40


def calls(seed: int) -> Any:
    """Calls with numbers from the edges."""
    chance = random.Random(seed)
    rows = np.zeros((FULL_TABLE, K.C_COLS), np.int64)
    for row in rows:
        row[K.C_KIND] = chance.randrange(K.K_ATTR, K.K_REGION + 1)
        row[K.C_THREAD], row[K.C_PROC] = chance.randrange(3), chance.randrange(2)
        for column in (K.C_SPACE, K.C_ADDR, K.C_SIZE, K.C_VADDR):
            row[column] = chance.choice(EDGES)
        row[K.C_SPACE] = chance.choice((20, 6, 1 << 20 | 5, row[K.C_SPACE]))
        row[K.C_FLAG] = chance.choice((0, 1, 2, 4, 16))
        row[K.C_RET] = chance.choice((0, 0, 0, -17, -2, K.NULL))
        row[K.C_COUNT] = 1
        row[K.C_KNOWN] = chance.random() < 0.9
    return rows


@pytest.mark.parametrize("generation", GENERATIONS)
def test_no_number_overflows(generation: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for seed in range(40):
            numbers = iter(range(2, 1000))
            rows = Machines(lambda _, numbers=numbers: next(numbers)).feed(calls(seed))  # type: ignore[misc]
            matcher = Matcher(generation, punches=True, discards=True, compiled=False)
            matcher.feed(rows)
            matcher.finish()
            listeners = Listeners((generation,), {"qemu.virtio_mem": 1, "qemu.region": 1})
            listeners.feed(rows)
            listeners.finish()


def test_compiled_the_same_comes_out() -> None:
    for seed in range(40):
        rows = calls(seed)
        both = []
        for compiled in (False, True):
            matcher = Matcher("merged", punches=True, discards=True, compiled=compiled)
            matcher.feed(rows.copy())
            matcher.finish()
            both.append((matcher.tally, matcher.deviations))
        assert both[0] == both[1]
